#!/usr/bin/env bash
# Prepares a Python environment with schemathesis, which holds a running comfyd to its own description, and prints the command as
# the last line.
set -euo pipefail

version=4.32.5
root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
dir="$root/schemathesis-$version"
say() { echo "schemathesis: $*" >&2; }
if [ -f "$dir/.complete" ]; then echo "$dir/bin/schemathesis"; exit 0; fi

mkdir -p "$root"
exec 9>"$root/schemathesis.lock"
flock 9 2>/dev/null || true # two clones may prepare it at the same time; macOS has no flock
if [ -f "$dir/.complete" ]; then echo "$dir/bin/schemathesis"; exit 0; fi
say "installing schemathesis $version into $dir (once)"
rm -rf "$dir"
python3 -m venv "$dir" || { say "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
"$dir/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
touch "$dir/.complete"
echo "$dir/bin/schemathesis"
