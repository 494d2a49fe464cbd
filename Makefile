# APSS. `make help` lists what there is.

SHELL := /bin/sh
MODULES := shared edge functions webhook infra/helm infra/local infra/policy infra/tools
PACKAGES := $(MODULES:%=./%/...)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BENCHTIME ?= 1s
COUNT ?= 5

# Programs are static and the same on every machine. Without its pages of traces gRPC does not bring in templates, for
# whose sake the linker keeps every method there is: a sixth of the agent.
GOBUILD = CGO_ENABLED=0 go build -tags grpcnotrace -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
# Tools are built once, at the versions that infra/tools pins.
TOOL = $$(GOWORK=off go -C infra/tools tool -n $(1))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## run the whole system on this machine, watching it for real; Ctrl-C ends it
	@exec bin/apss-local

.PHONY: demo-once
demo-once: build ## run a scripted scenario through the whole system; exits 0 when nothing was lost
	@bin/apss-local scenario

.PHONY: test
test: ## run all tests
	go test $(PACKAGES)

.PHONY: check
check: format vet lint race tidy alone ## everything that must hold before a change lands

.PHONY: build
build: ## build the programs into bin/
	@mkdir -p bin
	$(GOBUILD) -o bin/ ./edge/cmd/... ./functions/cmd/... ./webhook/cmd/... ./infra/local/cmd/...

.PHONY: e2e
e2e: build ## prove it on the cluster of KUBECONFIG, with APSS_E2E_LOAD as the command that loads an image (NAME:TAG FOLDER ENTRYPOINT)
	@test -n "$$KUBECONFIG" || { echo "set KUBECONFIG, and APSS_E2E_LOAD or APSS_E2E_IMAGE: see infra/local/e2e/doc.go"; exit 1; }
	$(GOBUILD) -o bin/ ./infra/local/e2e/witness
	GOWORK=off go -C infra/tools build -o ../../bin/helm helm.sh/helm/v4/cmd/helm
	go test -count=1 -v -timeout 30m -parallel 3 ./infra/local/e2e

.PHONY: dist
dist: ## make dist/apss-functions.zip, from which the functions are built without a network; the same sources, the same bytes
	@cd infra/tools && GOWORK=off go run ./dist ../.. ../../dist/apss-functions.zip

.PHONY: test-dist
test-dist: ## build that zip as Google's buildpacks do, without a network, and start each function of it
	APSS_DIST_TEST=1 go test -count=1 -v -run TestBuild -timeout 20m ./infra/tools/dist

.PHONY: test-terraform
test-terraform: ## check infra/terraform with terraform and the google provider (see infra/terraform/check), when they can be had
	@infra/terraform/check

.PHONY: bench
bench: build ## measure; prints one line per figure: BENCH <name> <value> <unit>
	@mkdir -p bin
	@cd infra/tools && GOWORK=off go build -o ../../bin/benchlines ./benchlines
	@{ go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count $(COUNT) -timeout 60m -p 1 $(PACKAGES) 2>&1; \
	   bin/apss-local bench; } | bin/benchlines

.PHONY: bench-sensors
bench-sensors: build ## measure what the sensors see and cost, beside polling and forkstat; all of it takes root
	@mkdir -p bin
	@cd infra/tools && GOWORK=off go build -o ../../bin/benchlines ./benchlines
	@[ "$$(id -u)" = 0 ] || echo "not root: what needs it says so and is left out" >&2
	@command -v forkstat >/dev/null || echo "forkstat is not measured: install Debian's package forkstat" >&2
	@{ go test -v -run '^$$' -bench '^Benchmark(Storm|Unprivileged|ShortConnections|Figures)$$' -benchtime 1x -count $(COUNT) -timeout 60m -p 1 ./edge/internal/source/... 2>&1; \
	   go test -v -run '^$$' -bench '^BenchmarkList$$' -benchtime 100x -count $(COUNT) -p 1 ./edge/internal/source/network 2>&1; \
	   bin/apss-local bench; } | bin/benchlines

IMAGES := apss-agent apss-relay apss-webhook apss-functions
# What images are built on, by digest; scratch: nothing but this machine's certificates, where there is no network.
BASE ?=

.PHONY: images
images: build ## make images of the programs, as OCI archives with SBOMs in dist/images, without Docker
	@cd infra/tools && GOWORK=off go build -o ../../bin/images ./images
	@bin/images -version $(VERSION) $(if $(BASE),-base $(BASE)) $(IMAGES:%=bin/%)

.PHONY: chart
chart: ## write the chart's README from its values
	@docs=$(call TOOL,helm-docs) && $$docs --chart-search-root infra/helm --template-files README.md.gotmpl

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (default 30s) each
	@sh infra/tools/fuzz $(or $(FUZZTIME),30s) $(MODULES)

.PHONY: format
format: ## fail when a file is not formatted
	@out=$$(gofmt -l $(MODULES)); if [ -n "$$out" ]; then echo "not formatted (gofmt -w mends it):"; echo "$$out"; exit 1; fi

.PHONY: vet
vet: ## go vet
	go vet $(PACKAGES)

.PHONY: lint
lint: ## golangci-lint, and actionlint for the workflow, at the versions that infra/tools pins
	@lint=$(call TOOL,actionlint) && echo "lint .github/workflows" && $$lint .github/workflows/*.yml
	@lint=$(call TOOL,golangci-lint) && for m in $(MODULES); do echo "lint $$m"; (cd $$m && GOWORK=off $$lint run ./...) || exit 1; done

.PHONY: race
race: ## all tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race $(PACKAGES)

.PHONY: tidy
tidy: ## fail when go.mod or go.sum is not tidy
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy -diff) || { echo "$$m: run go mod tidy with GOWORK=off there"; exit 1; }; done

.PHONY: alone
alone: ## each module builds without the workspace
	@for m in $(MODULES); do echo "build $$m alone"; (cd $$m && GOWORK=off go build ./...) || exit 1; done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
