#!/usr/bin/env bash
# Fetches axe-core, which looks for barriers in web pages, and prints the path of its script as the last line. It comes in a
# package of PyPI, where pip fetches it; the rest of that package is not used.
set -euo pipefail
package=axe-playwright-python==0.1.8
root="${COMFYD_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyd}"
dir="$root/axe-${package##*==}"
script="$dir/axe_playwright_python/axe.min.js"
say() { echo "axe: $*" >&2; }
if [ -f "$dir/.complete" ]; then echo "$script"; exit 0; fi

say "fetching $package (once)"
rm -rf "$dir"
mkdir -p "$dir"
python3 -m venv "$dir/venv" || { say "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$dir" "$package"
[ -f "$script" ] || { say "$package has no axe.min.js any more"; exit 1; }
touch "$dir/.complete"
echo "$script"
