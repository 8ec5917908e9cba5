#!/usr/bin/env bash
# Holds a running comfyd to what is written about it: the programs in docs/ are run, and schemathesis sends what /openapi.json
# allows, and what it does not, for a bounded time. COMFYD_URL and COMFYD_API_KEY say which comfyd:
#
#   scripts/children.sh scripts/described.sh    one of its own
set -euo pipefail
cd "$(dirname "$0")/.."

python=${COMFYD_TEST_MODAL_PYTHON:-$(scripts/modal.sh)} # it has requests
node=$(scripts/node.sh)
PATH="$node:$PATH" "$python" scripts/snippets.py "$node/node_modules" docs/quickstart.md docs/recipes.md

schemathesis=$(scripts/schemathesis.sh)
cd "$(mktemp -d)" # it leaves notes where it runs
"$schemathesis" --config-file "$OLDPWD/scripts/schemathesis.toml" run "$COMFYD_URL/openapi.json" --max-time 75 "$@"
