#!/usr/bin/env bash
# Finds Prometheus and promtool, or gets those of the Debian package without installing it, and prints their folder as the
# last line. Fails where there is neither.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

dir=$(cached prometheus)
say() { echo "prometheus: $*" >&2; }

prepare() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { say "install Prometheus 2.42 or newer (prometheus, promtool)"; exit 1; }
  say "getting the package of Prometheus into $dir (once; nothing is installed)"
  mkdir -p "$dir/packages"
  known() { apt-cache show prometheus >/dev/null 2>&1; }
  if ! known && [ "$(id -u)" = 0 ]; then apt-get update -qq >&2; fi
  known || { say "apt knows no package prometheus: run apt-get update, or install Prometheus"; exit 1; }
  (cd "$dir/packages" && apt-get download -qq prometheus >&2)
  dpkg-deb -x "$dir"/packages/*.deb "$dir"
  rm -rf "$dir/packages"
  "$dir/usr/bin/promtool" --version >&2
}

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then dirname "$(readlink -f "$(command -v prometheus)")"; exit 0; fi
once "$dir" prepare
echo "$dir/usr/bin"
