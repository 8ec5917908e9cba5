#!/usr/bin/env bash
# Measures comfyd beside ComfyUI itself and beside its peer (docs/performance.md): prepares all of them, and runs ./bench with
# the arguments given here.
#
#   scripts/bench.sh                          the whole of it, three times, into bench/results/ and docs/performance.md
#   scripts/bench.sh --quick                  a minute: does it all work; fails on lost jobs, false ends, wrong bytes
#   scripts/bench.sh --only tiny,burst --runs 3
#   scripts/bench.sh --without production,peer
#   scripts/bench.sh --only burst --profile /tmp/profiles
#
# BENCH_COMFYD is the program to measure where it is not to be built from here.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

peer=0.1.6
# With what it was measured: another release of these may be faster or slower.
packages=("comfy-api-proxy==$peer" aiohttp==3.14.5 blake3==1.0.11 pydantic==2.14.4 pyyaml==6.0.4)
peer_env=$(cached "comfy-api-proxy-$peer")
say() { echo "bench: $*" >&2; }

prepare_peer() {
  say "installing comfy-api-proxy $peer into $peer_env (once)"
  python_env "$peer_env" "${packages[@]}"
}

comfyui=$(scripts/comfyui.sh)
once "$peer_env" prepare_peer
peer_program=$peer_env/bin/comfy-api-proxy
# For the production shape, which is left out where there is no PostgreSQL.
COMFYD_TEST_TEMPORAL=${COMFYD_TEST_TEMPORAL:-$(scripts/temporal.sh)}
COMFYD_TEST_POSTGRES=${COMFYD_TEST_POSTGRES:-$(scripts/postgres.sh || true)}
if [ -z "${COMFYD_TEST_S3_SERVER:-}" ]; then
  mkdir -p "$(cached bin)"
  COMFYD_TEST_S3_SERVER=$(cached bin/versitygw)
  (cd tools && go build -o "$COMFYD_TEST_S3_SERVER" github.com/versity/versitygw/cmd/versitygw)
fi
export COMFYD_TEST_TEMPORAL COMFYD_TEST_POSTGRES COMFYD_TEST_S3_SERVER

program=${BENCH_COMFYD:-bin/comfyd}
if [ -z "${BENCH_COMFYD:-}" ]; then
  say "building comfyd"
  make --no-print-directory -s build
fi
mkdir -p bench/results
results=bench/results/$(date -u +%F-%H%M).json
whole=()
[ $# -gt 0 ] || whole=(--runs 3 --docs docs/performance.md)
status=0
go run ./bench --comfyui "$comfyui" --comfyd "$program" --peer "$peer_program" --out "$results" "${whole[@]}" "$@" || status=$?
[ ! -f "$results" ] || say "the figures are in $results"
if [ $# = 0 ] && [ -f "$results" ]; then
  (cd tools && go run ./plot "../$results" ../docs/performance.svg)
fi
exit "$status"
