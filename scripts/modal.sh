#!/usr/bin/env bash
# Prepares what tests and deploys of the Modal app need (modal/), and prints the interpreter as the last line.
#
#   scripts/modal.sh        a Python environment with Modal's SDK and the test tools
#   scripts/modal.sh lock   the same, and makes modal/requirements.lock anew from modal/requirements.in
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

modal=1.6.4
uv=0.13.9
# What the containers have too is pinned as comfyd_modal/image.py pins it.
packages=("modal==$modal" aiohttp==3.14.5 requests==2.34.2 cbor2==6.3.0
  pytest==9.2.0 pytest-asyncio==1.5.0 pyyaml==6.0.3 black==26.10.1 pyflakes==4.1.0)
id=$(printf '%s\n' "$uv" "${packages[@]}" | cksum | cut -d' ' -f1)
dir=$(cached "modal-$modal-$id") # another list, another environment
say() { echo "modal: $*" >&2; }

prepare() {
  say "installing Modal's SDK $modal into $dir (once)"
  python_env "$dir/tools" "uv==$uv"
  "$dir/tools/bin/uv" venv --quiet --python 3.11 "$dir/venv" 2>/dev/null || # as in the containers, where it is there
    "$dir/tools/bin/uv" venv --quiet --python '>=3.11,<3.14' "$dir/venv"
  "$dir/tools/bin/uv" pip install --quiet --python "$dir/venv/bin/python" "${packages[@]}"
}

once "$dir" prepare
if [ "${1:-}" = lock ]; then
  "$dir/tools/bin/uv" pip compile --quiet --config-file modal/uv.toml --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --custom-compile-command "scripts/modal.sh lock" \
    modal/requirements.in --output-file modal/requirements.lock
  say "modal/requirements.lock is written"
fi
echo "$dir/venv/bin/python"
