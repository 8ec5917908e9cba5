#!/usr/bin/env bash
# Fetches axe-core, which looks for barriers in web pages, and prints the path of its script as the last line. It comes in a
# package of PyPI, where pip fetches it; the rest of that package is not used.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

package=axe-playwright-python==0.1.8
dir=$(cached "axe-${package##*==}")
script="$dir/axe_playwright_python/axe.min.js"

prepare() {
  echo "axe: fetching $package (once)" >&2
  python_env "$dir/venv" --no-deps --target "$dir" "$package"
  [ -f "$script" ] || { echo "axe: $package has no axe.min.js any more" >&2; exit 1; }
}

once "$dir" prepare
echo "$script"
