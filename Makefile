SHELL := /bin/bash
GO ?= go
export GOFLAGS ?= -buildvcs=false
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

demo: comfyui build ## Set everything up, run a real workflow, leave images in demo/ and everything running
	@scripts/demo.sh

test: ## Set everything up and run every test
	@scripts/test.sh

faults: ## Kill, cut off, starve and overfeed everything (docs/faults.md); FAULTS_RUNS=3 does it three times
	@scripts/test.sh faults

comfyui: ## Prepare a real ComfyUI on the CPU for demo and tests (a test tool, not for production)
	@scripts/comfyui.sh >/dev/null

build: ## bin/comfyd, with the embedded Temporal server
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/comfyd ./cmd/comfyd

build-slim: ## bin/comfyd-slim, for a Temporal cluster of your own: a tenth of the size
	$(GO) build -tags noembedded -ldflags '$(LDFLAGS)' -o bin/comfyd-slim ./cmd/comfyd

lint: ## gofmt, vet, staticcheck, workflowcheck
	@scripts/lint.sh

histories: ## Record the histories of a release that is about to be tagged: make histories VERSION=v1.2.3
	@scripts/histories.sh record $(VERSION)

fuzz: ## Fuzz the graph parser for a minute
	cd comfy && $(GO) test -run '^$$' -fuzz FuzzParseGraph -fuzztime 60s .

load: ## 1,000 jobs at once: memory, fairness, many waiting; prints a table of the figures
	COMFYD_TEST_LOAD=1000 $(GO) test ./faults -count=1 -timeout 20m -v -run '^(TestLoad|TestFairness|TestManyWaitForABackend|TestDiskOfAJob)$$'

bench: ## Measure beside ComfyUI itself and a peer: the table and the plot of docs/performance.md (an hour)
	@scripts/bench.sh

profile: ## Profiles of comfyd while each row of the bench is measured; ROWS=burst,tiny chooses rows
	@scripts/bench.sh --without production,peer --only '$(ROWS)' --profile bench/results/profiles

clean: ## Remove what was built (data stays)
	rm -rf bin demo

.PHONY: help demo test faults comfyui build build-slim lint histories fuzz load bench profile clean
