#!/usr/bin/env bash
# Formatting, vet, staticcheck and Temporal's determinism check, for all modules; the histories of releases; black and pyflakes for
# the Modal app and the examples in Python.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(gofmt -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || { echo "gofmt: $unformatted"; exit 1; }
go vet ./...
(cd comfy && go vet ./...)
(cd examples/children/go && go vet ./...)
go tool -modfile=tools/go.mod staticcheck ./...
(cd comfy && go tool -modfile=../tools/go.mod staticcheck ./...)
(cd examples/children/go && go tool -modfile=../../../tools/go.mod staticcheck ./... && go tool -modfile=../../../tools/go.mod workflowcheck ./...)
(cd tools && go vet ./plot && go tool staticcheck ./plot)
go tool -modfile=tools/go.mod workflowcheck ./workflows/...
scripts/histories.sh check
python=$(scripts/modal.sh)
"$python" -m black --check --line-length 120 modal internal/fakemodal examples/children/python bench scripts
"$python" -m pyflakes modal internal/fakemodal examples/children/python bench scripts
