# An index: what there is to do, one line each. The work is in Go and in ci/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Works from any folder: make -C PATH, make -f PATH/Makefile.
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
BIN := $(ROOT)/bin/netproof
VERSION_PACKAGE := github.com/netproof/netproof/cmd/netproof/internal/cmd/version
# The commit is read here: Go's own stamping stops the build when somebody else owns the clone.
COMMIT := $(shell git -C '$(ROOT)' rev-parse HEAD 2>/dev/null)
ARGS ?= fixtures/quickstart

.PHONY: help setup build engines kind-images run test test-kind lint verify platforms fuzz bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' '$(ROOT)/Makefile'

setup: ## install the programs of the machine that local clusters call
	@'$(ROOT)/ci/setup.sh'

build: ## build bin/netproof
	@CGO_ENABLED=0 go build -C '$(ROOT)' -trimpath -buildvcs=false -ldflags '-X $(VERSION_PACKAGE).commit=$(COMMIT)' -o '$(BIN)' ./cmd/netproof

engines: build ## build the upstream programs of local clusters, once for this user
	@'$(BIN)' engines build

kind-images: ## build the images of kind clusters that cannot be pulled, and load them
	@cd '$(ROOT)' && ci/docker.sh start && go run ./ci/offline

run: setup build ## prove the quickstart: set up, build, run; others with ARGS='PATH ...'
	@cd '$(ROOT)' && '$(BIN)' run $(ARGS)

test: setup build engines ## run all tests, and count those skipped with their reasons
	@cd '$(ROOT)' && go run ./ci/gotest -split=2 -timeout=30m $(if $(COUNT),-count=$(COUNT)) ./harness/run ./... # the longest, which mostly waits

test-kind: setup engines ## prove fixtures/core on kind with Calico, and compare with the embedded cluster; others with KIND='PATH ...'
	@'$(ROOT)/ci/test-kind.sh' $(KIND)

lint: ## run the linters, which are built on first use
	@'$(ROOT)/ci/lint.sh'

verify: ## check that generated files are current, modules tidy, and linters pass
	@'$(ROOT)/ci/verify.sh'

platforms: ## compile and vet for Linux, macOS and Windows, on amd64 and arm64
	@'$(ROOT)/ci/platforms.sh'

fuzz: ## run every fuzz target for a short time; FUZZTIME=10s
	@'$(ROOT)/ci/fuzz.sh' $(FUZZTIME)

bench: setup build ## measure speed and memory as told in docs/performance.md
	@'$(ROOT)/ci/bench.sh'

clean: ## remove what was built here; the caches of the user stay
	@rm -rf '$(ROOT)/bin'
