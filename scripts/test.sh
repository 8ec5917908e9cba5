#!/usr/bin/env bash
# Everything that the tests need, then every test: a real ComfyUI on the CPU, Modal's real SDKs, a real S3 server, a real
# Temporal server and PostgreSQL, a real Prometheus; the Python app of Modal, the Go modules, the examples of parents with the SDKs
# that they use. With the argument "faults" the long form of the
# fault runner instead; more arguments choose its rows: scripts/test.sh faults F3 F12.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

work=$(mktemp -d)
comfyui_pid=
cleanup() {
  [ -z "$comfyui_pid" ] || kill "$comfyui_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

stage() { echo "== $1 (after $SECONDS s)"; }

stage tools
COMFYD_TEST_COMFYUI_DIR=$(scripts/comfyui.sh)
COMFYD_TEST_MODAL_PYTHON=$(scripts/modal.sh)
port=$(free_port)
start_comfyui "$COMFYD_TEST_COMFYUI_DIR" "$port" "$work"
(cd tools && go build -o "$work/versitygw" github.com/versity/versitygw/cmd/versitygw)
export COMFYD_TEST_S3_SERVER="$work/versitygw" COMFYD_TEST_COMFYUI_DIR COMFYD_TEST_MODAL_PYTHON COMFYD_TEST_COMFYUI="http://127.0.0.1:$port"
export COMFYD_TEST_COMFY_CLI=1
# For the production shape (internal/cluster). Where there is no PostgreSQL to be had, its tests are left out, and say so.
COMFYD_TEST_TEMPORAL=$(scripts/temporal.sh)
COMFYD_TEST_POSTGRES=$(scripts/postgres.sh) || echo "tests of the production shape are left out: no PostgreSQL"
COMFYD_TEST_CHROMIUM=$(scripts/chromium.sh) || echo "tests of the page, and the one that looks at the Temporal UI, are left out: no Chromium"
COMFYD_TEST_AXE=$(scripts/axe.sh)
export COMFYD_TEST_TEMPORAL COMFYD_TEST_POSTGRES COMFYD_TEST_CHROMIUM COMFYD_TEST_AXE
COMFYD_TEST_PROMETHEUS=$(scripts/prometheus.sh) || echo "tests of the metrics against a real Prometheus are left out: there is none"
export COMFYD_TEST_PROMETHEUS
COMFYD_TEST_WEBHOOKS=$(scripts/webhooks.sh)
export COMFYD_TEST_WEBHOOKS

if [ "${1:-}" != faults ]; then
  stage lint
  scripts/lint.sh
fi

wait_for "$COMFYD_TEST_COMFYUI/system_stats" 300 "$comfyui_pid" || { cat "$work/log"; echo "ComfyUI did not start"; exit 1; }

if [ "${1:-}" = faults ]; then
  stage faults
  go run ./faults/table "${@:2}"
  exit
fi

stage "tests of the app at Modal"
(cd modal && "$COMFYD_TEST_MODAL_PYTHON" -m pytest -q)
stage "tests, with the race detector"
# The embedded Temporal server takes minutes to build with it: what links it is tested without.
linked='internal/embedded|internal/backup|internal/app|cmd/comfyd|/faults'
(cd comfy && go test -race ./...)
go test -race -timeout 30m $(go list ./... | grep -vE "$linked")
stage "tests with the embedded Temporal server"
go test -timeout 40m $(go list ./... | grep -E "$linked" | grep -v '/faults$')
stage "faults, the fast rows"
go test -short -parallel 4 -timeout 10m ./faults # the fast rows, which mostly wait; make faults runs them all
stage "examples of parents"
scripts/children.sh
stage "what is written about the API: programs in the docs, the description"
scripts/children.sh scripts/described.sh
stage "bench, a little of it: its times say nothing, lost jobs and wrong bytes do"
kill "$comfyui_pid" # it has one of its own
scripts/bench.sh --quick
