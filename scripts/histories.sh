#!/usr/bin/env bash
# Histories of jobs as each released version has run them, in workflows/testdata/VERSION: every later version must be able to
# go on with them (workflows/replay_test.go). See docs/releasing.md.
#
#   scripts/histories.sh record v1.2.3   runs jobs to each kind of end and keeps their histories
#   scripts/histories.sh check           every release that git knows has its folder
#   scripts/histories.sh check v1.2.3    and that one, too, which is about to be tagged
set -euo pipefail
cd "$(dirname "$0")/.."
histories=workflows/testdata

case "${1:-}" in
record)
  version=${2:?"the version that is about to be released, such as v1.2.3"}
  [[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+ ]] || { echo "$version is no version: v1.2.3"; exit 1; }
  [ ! -e "$histories/$version" ] || { echo "$histories/$version is there: the histories of a release never change"; exit 1; }
  new=$(mktemp -d)
  trap 'rm -rf "$new"' EXIT
  COMFYD_RECORD_HISTORIES=$new go test ./internal/app -count=1 -timeout 15m -run '^TestReplay$'
  [ -n "$(ls "$new")" ] || { echo "nothing was recorded"; exit 1; }
  chmod 755 "$new"
  cp -r "$new" "$histories/$version"
  go test ./workflows -count=1 -run '^TestReplayStoredHistories$'
  ls "$histories/$version"
  ;;
check)
  for version in $(git tag --list 'v[0-9]*' 2>/dev/null) "${@:2}"; do
    [ -d "$histories/$version" ] || { echo "release $version has no histories: scripts/histories.sh record $version, before the tag"; exit 1; }
  done
  ;;
*)
  sed -n '2,8p' "$0"
  exit 1
  ;;
esac
