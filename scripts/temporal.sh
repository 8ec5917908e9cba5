#!/usr/bin/env bash
# Builds the Temporal server and its SQL schema tool, as their images hold them, and prints their folder as the last line.
# Once, in some minutes; the version is that of go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(go list -m -f '{{.Version}}' go.temporal.io/server)
root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
dir="$root/temporal-${version#v}"
if [ -x "$dir/temporal-server" ] && [ -x "$dir/temporal-sql-tool" ]; then echo "$dir"; exit 0; fi

mkdir -p "$dir"
exec 9>"$root/temporal.lock"
flock 9 2>/dev/null || true # two clones may build it at the same time; macOS has no flock
if [ -x "$dir/temporal-server" ] && [ -x "$dir/temporal-sql-tool" ]; then echo "$dir"; exit 0; fi
echo "temporal: building the server $version into $dir (once, some minutes)" >&2
GOBIN="$dir/build" go install -ldflags '-s -w' "go.temporal.io/server/cmd/server@$version" "go.temporal.io/server/cmd/tools/sql@$version"
mv "$dir/build/sql" "$dir/temporal-sql-tool"
mv "$dir/build/server" "$dir/temporal-server"
rmdir "$dir/build"
echo "$dir"
