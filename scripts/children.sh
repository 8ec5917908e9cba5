#!/usr/bin/env bash
# Runs the tests of examples/children as a user would: one comfyd process with its embedded Temporal, and workers of other
# teams beside it, with an older Go SDK and with Python's. COMFYD_TEST_COMFYUI is the address of a real ComfyUI.
#
#   scripts/children.sh               all of them
#   scripts/children.sh COMMAND...    a command of yours in their place, with the same variables
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ -n "${COMFYD_TEST_COMFYUI:-}" ] || { echo "COMFYD_TEST_COMFYUI is not set: the address of a ComfyUI"; exit 1; }
work=$(mktemp -d)
comfyd=
cleanup() {
  [ -z "$comfyd" ] || { kill "$comfyd" 2>/dev/null && wait "$comfyd" 2>/dev/null; } || true
  rm -rf "$work"
}
trap cleanup EXIT

go build -buildvcs=false -o "$work/comfyd" ./cmd/comfyd
temporal_port=$(free_port)
export COMFYD_URL="http://127.0.0.1:$(free_port)" COMFYD_API_KEY=the-key-of-the-examples
TEMPORAL_ADDRESS= TEMPORAL_NAMESPACE= COMFYD_API_KEYS="examples:$COMFYD_API_KEY" COMFYD_LISTEN="${COMFYD_URL#http://}" \
  COMFYD_DATA_DIR="$work/data" COMFYD_BACKEND=url COMFYUI_URLS="$COMFYD_TEST_COMFYUI" COMFYD_LOG_LEVEL=warn \
  COMFYD_TEMPORAL_LISTEN="127.0.0.1:$temporal_port" COMFYD_TEMPORAL_UI_LISTEN=127.0.0.1:0 \
  "$work/comfyd" >"$work/log" 2>&1 &
comfyd=$!
export TEMPORAL_ADDRESS="127.0.0.1:$temporal_port"
wait_for "$COMFYD_URL/readyz" 120 "$comfyd" || { cat "$work/log"; echo "comfyd did not become ready"; exit 1; }

if [ $# -gt 0 ]; then "$@"; exit; fi
(cd examples/children/go && go test -count=1 -timeout 30m ./...) || { tail -50 "$work/log"; exit 1; }
python=$(scripts/sdk.sh)
(cd examples/children/python && "$python" -m pytest -q -p no:cacheprovider) || { tail -50 "$work/log"; exit 1; }
