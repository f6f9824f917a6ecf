# The one door: `make` lists what there is. Each target calls one script; CI calls the same ones.

.DEFAULT_GOAL := help
.PHONY: help build run test quick converse simulate mutate bench images fmt lint asan soak setup clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

build: ## a release in .build/release: ferrite and ferritectl
	@scripts/build

run: ## a redis-server, ferrite in front of it, and a demonstration
	@scripts/run

test: ## every test, on both network engines
	@scripts/test

quick: ## unit tests, and conversations on one engine
	@scripts/test --quick

converse: ## the RESP conversations of Tests/Conversations only
	@scripts/converse

simulate: ## a minute of new seeds of the simulator that attacks coherence
	@scripts/simulate

mutate: ## each rule of coherence taken out once: which seed notices?
	@scripts/mutate

bench: ## the figures, measured against redis-server and twemproxy in the same run
	@scripts/bench

images: build ## both container images, their sizes, and the daemon in a hardened container
	@scripts/images

fmt: ## format C and Swift
	@scripts/fmt

lint: ## layers, tidiness, formatters; changes nothing
	@scripts/lint

asan: ## C tests and conversations under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/asan

soak: ## long runs: redis-benchmark with a million requests each, the fence, the journal, coherence
	@scripts/soak

setup: ## install what is missing
	@scripts/setup --tests --lint

clean: ## remove what was built
	@rm -rf .build .build-*
