#!/usr/bin/env bash
# Starts comfyd with the ComfyUI that `make comfyui` has prepared, sends it a workflow, and leaves the images in demo/.
# COMFYD_DEMO_ONCE=1 stops there; otherwise everything stays up until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

began=$SECONDS
export COMFYUI_DIR COMFYD_DATA_DIR=${COMFYD_DATA_DIR:-demo/data} COMFYD_LOG_LEVEL=${COMFYD_LOG_LEVEL:-warn}
COMFYUI_DIR=$(scripts/comfyui.sh)
mkdir -p demo/images "$COMFYD_DATA_DIR"
url=http://${COMFYD_LISTEN:-127.0.0.1:8080}

bin/comfyd &
comfyd=$!
trap 'kill "$comfyd" 2>/dev/null || true; wait "$comfyd" 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM
echo "waiting for ComfyUI (its first start takes half a minute) ..."
wait_for "$url/readyz" 300 "$comfyd" || { echo "comfyd did not become ready: $(curl -s "$url/readyz")"; exit 1; }

bin/comfyd submit examples/two_images.json --url "$url" --out demo/images
cat <<END

The images are in demo/images, $((SECONDS - began)) s after the start.

  The page     $url        (key: $COMFYD_DATA_DIR/api-key)
  Temporal UI  http://${COMFYD_TEMPORAL_UI_LISTEN:-127.0.0.1:8233}

  The API listens there, too:
  COMFYD_DATA_DIR=$COMFYD_DATA_DIR bin/comfyd submit examples/two_images.json --url $url
  curl -s $url/readyz

END
[ -n "${COMFYD_DEMO_ONCE:-}" ] && exit 0
echo "Everything stays up; Ctrl-C stops it."
wait "$comfyd"
