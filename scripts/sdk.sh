#!/usr/bin/env bash
# Prepares a Python environment with Temporal's SDK for the examples in examples/children, and prints the interpreter as the
# last line.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=($(cat examples/children/python/requirements.txt) pytest==9.2.0 pytest-asyncio==1.5.0)
root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
id=$(printf '%s\n' "${packages[@]}" | cksum | cut -d' ' -f1)
dir="$root/temporalio-$id" # another list, another environment
say() { echo "sdk: $*" >&2; }
if [ -f "$dir/.complete" ]; then echo "$dir/bin/python"; exit 0; fi

mkdir -p "$root"
exec 9>"$root/temporalio.lock"
flock 9 2>/dev/null || true # two clones may prepare it at the same time; macOS has no flock
if [ -f "$dir/.complete" ]; then echo "$dir/bin/python"; exit 0; fi
say "installing ${packages[0]} into $dir (once)"
rm -rf "$dir"
python3 -m venv "$dir" || { say "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
"$dir/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
touch "$dir/.complete"
echo "$dir/bin/python"
