#!/usr/bin/env bash
# Prepares a Python environment with Temporal's SDK for the examples in examples/children, and prints the interpreter as the
# last line.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

packages=($(cat examples/children/python/requirements.txt) pytest==9.2.0 pytest-asyncio==1.5.0)
dir=$(cached "temporalio-$(printf '%s\n' "${packages[@]}" | cksum | cut -d' ' -f1)") # another list, another environment

prepare() {
  echo "sdk: installing ${packages[0]} into $dir (once)" >&2
  python_env "$dir" "${packages[@]}"
}

once "$dir" prepare
echo "$dir/bin/python"
