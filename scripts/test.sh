#!/usr/bin/env bash
# Everything that the tests need, then every test: a real ComfyUI on the CPU, Modal's real SDKs, a real S3 server, a real
# Temporal server and PostgreSQL, a real Prometheus; the Python app of Modal, the Go modules, the examples of parents with the SDKs
# that they use. With the argument "faults" the long form of the
# fault runner instead; more arguments choose its rows: scripts/test.sh faults F3 F12.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

work=$(mktemp -d)
comfyuis=()
declare -A running=()
cleanup() {
  for name in "${!running[@]}"; do
    kill -- "-${running[$name]}" 2>/dev/null || true
    echo "== $name, as far as it came"
    cat "$work/$name.out"
  done
  for pid in "${comfyuis[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

stage() { echo "== $1 (after $SECONDS s)"; }

# beside NAME COMMAND... runs something that mostly waits beside what follows; joined NAME prints what it has said, and fails
# where it has.
beside() {
  set -m # a process group of its own, so that cleanup reaches all of it
  "${@:2}" >"$work/$1.out" 2>&1 </dev/null &
  running[$1]=$!
  set +m
}
joined() {
  local status=0
  wait "${running[$1]}" || status=$?
  unset "running[$1]"
  stage "$1"
  cat "$work/$1.out"
  return "$status"
}

stage tools
COMFYD_TEST_COMFYUI_DIR=$(scripts/comfyui.sh)
COMFYD_TEST_MODAL_PYTHON=$(scripts/modal.sh)
port=$(free_port)
start_comfyui "$COMFYD_TEST_COMFYUI_DIR" "$port" "$work"
comfyuis+=("$comfyui_pid")
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
COMFYD_TEST_NODE=$(scripts/node.sh)
export COMFYD_TEST_NODE

if [ "${1:-}" != faults ]; then
  beside "tests of the app at Modal" env -C modal "$COMFYD_TEST_MODAL_PYTHON" -m pytest -q
  stage lint
  scripts/lint.sh
  joined "tests of the app at Modal"
fi

wait_for "$COMFYD_TEST_COMFYUI/system_stats" 300 "$comfyui_pid" || { cat "$work/log"; echo "ComfyUI did not start"; exit 1; }

if [ "${1:-}" = faults ]; then
  stage faults
  go run ./faults/table "${@:2}"
  exit
fi

# The embedded Temporal server takes minutes to build with the race detector: what links it is tested without.
linked='internal/embedded|internal/backup|internal/app|cmd/comfyd|/faults'
stage "tests, with the race detector"
(cd comfy && go test -race ./...)
# Most of these wait for others, such as a ComfyUI that starts: more packages at a time than there are cores.
go test -race -p "$(($(nproc) + 1))" -timeout 30m $(go list ./... | grep -vE "$linked")
# The fast rows of the faults, which mostly wait, have a ComfyUI of their own; make faults runs them all.
other=$(free_port)
mkdir "$work/other"
start_comfyui "$COMFYD_TEST_COMFYUI_DIR" "$other" "$work/other"
comfyuis+=("$comfyui_pid")
wait_for "http://127.0.0.1:$other/system_stats" 300 "$comfyui_pid" || { cat "$work/other/log"; echo "the second ComfyUI did not start"; exit 1; }
beside "faults, the fast rows" env COMFYD_TEST_COMFYUI="http://127.0.0.1:$other" go test -short -parallel 4 -timeout 40m ./faults
stage "tests with the embedded Temporal server"
go test -timeout 40m $(go list ./... | grep -E "$linked" | grep -v '/faults$')
joined "faults, the fast rows"
stage "examples of parents"
scripts/children.sh
stage "what is written about the API: programs in the docs, the description"
scripts/children.sh scripts/described.sh
stage "bench, a little of it: its times say nothing, lost jobs and wrong bytes do"
kill "${comfyuis[@]}" || true # it has one of its own
scripts/bench.sh --quick
