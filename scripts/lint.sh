#!/usr/bin/env bash
# Formatting, vet, staticcheck and Temporal's determinism check, for both modules; black and pyflakes for the Modal app.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(gofmt -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || { echo "gofmt: $unformatted"; exit 1; }
go vet ./...
(cd comfy && go vet ./...)
go tool -modfile=tools/go.mod staticcheck ./...
(cd comfy && go tool -modfile=../tools/go.mod staticcheck ./...)
(cd tools && go vet ./plot && go tool staticcheck ./plot)
go tool -modfile=tools/go.mod workflowcheck ./workflows/...
python=$(scripts/modal.sh)
"$python" -m black --check --line-length 120 modal internal/fakemodal bench
"$python" -m pyflakes modal internal/fakemodal bench
