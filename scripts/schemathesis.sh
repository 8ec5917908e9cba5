#!/usr/bin/env bash
# Prepares a Python environment with schemathesis, which holds a running comfyd to its own description, and prints the command as
# the last line.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=4.32.5
dir=$(cached "schemathesis-$version")

prepare() {
  echo "schemathesis: installing $version into $dir (once)" >&2
  python_env "$dir" "schemathesis==$version"
}

once "$dir" prepare
echo "$dir/bin/schemathesis"
