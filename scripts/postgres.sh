#!/usr/bin/env bash
# Finds PostgreSQL's programs, or gets those of the Debian packages without installing them, and prints their folder as the
# last line. Fails where there is neither.
set -euo pipefail

root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
# PostgreSQL refuses to run as root, and other users do not reach root's home.
if [ "$(id -u)" = 0 ]; then root=/var/cache/comfyd; fi
dir="$root/postgresql"
say() { echo "postgres: $*" >&2; }

newest() { ls -d "$@" 2>/dev/null | sort -V | tail -1; }
found=$(newest /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin || true)
if [ -z "${COMFYD_POSTGRES_PACKAGES:-}" ]; then # set it to try the packages where PostgreSQL is installed
  if [ -n "$found" ] && [ -x "$found/initdb" ]; then echo "$found"; exit 0; fi
  if command -v initdb >/dev/null && command -v pg_isready >/dev/null; then dirname "$(readlink -f "$(command -v initdb)")"; exit 0; fi
fi
bin() { newest "$dir"/usr/lib/postgresql/*/bin; }
if [ -f "$dir/.complete" ]; then bin; exit 0; fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { say "install PostgreSQL 14 or newer (initdb, postgres, pg_isready)"; exit 1; }
mkdir -p "$root"
exec 9>"$root/postgres.lock"
flock 9 2>/dev/null || true
if [ -f "$dir/.complete" ]; then bin; exit 0; fi
say "getting the packages of PostgreSQL into $dir (once; nothing is installed)"
rm -rf "$dir"
mkdir -p "$dir/packages"
version() { apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -1; }
if [ -z "$(version)" ] && [ "$(id -u)" = 0 ]; then apt-get update -qq >&2; fi
[ -n "$(version)" ] || { say "apt knows no package postgresql: run apt-get update, or install PostgreSQL"; exit 1; }
server="postgresql-$(version)"
# What would be installed with it are the libraries that this machine lacks.
lacking=$(apt-get -s install --no-install-recommends "$server" 2>/dev/null | awk '/^Inst/ {print $2}')
(cd "$dir/packages" && printf '%s\n' "$server" "postgresql-client-$(version)" libpq5 $lacking | sort -u | xargs apt-get download -qq >&2)
for p in "$dir"/packages/*.deb; do dpkg-deb -x "$p" "$dir"; done
rm -rf "$dir/packages"
LD_LIBRARY_PATH=$(newest "$dir"/usr/lib/*-linux-gnu) "$(bin)/postgres" --version >&2
touch "$dir/.complete"
bin
