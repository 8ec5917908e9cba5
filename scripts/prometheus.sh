#!/usr/bin/env bash
# Finds Prometheus and promtool, or gets those of the Debian package without installing it, and prints their folder as the
# last line. Fails where there is neither.
set -euo pipefail

root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
dir="$root/prometheus"
say() { echo "prometheus: $*" >&2; }

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then dirname "$(readlink -f "$(command -v prometheus)")"; exit 0; fi
if [ -f "$dir/.complete" ]; then echo "$dir/usr/bin"; exit 0; fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { say "install Prometheus 2.42 or newer (prometheus, promtool)"; exit 1; }
mkdir -p "$root"
exec 9>"$root/prometheus.lock"
flock 9 2>/dev/null || true
if [ -f "$dir/.complete" ]; then echo "$dir/usr/bin"; exit 0; fi
say "getting the package of Prometheus into $dir (once; nothing is installed)"
rm -rf "$dir"
mkdir -p "$dir/packages"
known() { apt-cache show prometheus >/dev/null 2>&1; }
if ! known && [ "$(id -u)" = 0 ]; then apt-get update -qq >&2; fi
known || { say "apt knows no package prometheus: run apt-get update, or install Prometheus"; exit 1; }
(cd "$dir/packages" && apt-get download -qq prometheus >&2)
dpkg-deb -x "$dir"/packages/*.deb "$dir"
rm -rf "$dir/packages"
"$dir/usr/bin/promtool" --version >&2
touch "$dir/.complete"
echo "$dir/usr/bin"
