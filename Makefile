# The same commands for people and for CI. `make help` lists them.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup run demo-envoy demo-replicas test check bench load soak faults rolling-restart fuzz proto-baseline release image

SECONDS_EACH ?= 60
MINUTES ?= 30
CLERK_DOWN_MINUTES ?= 10
CALLS ?= 2000
RESTARTS ?= 10
BUF := node_modules/.bin/buf
# The last release's contract; `make proto-baseline` renews it at a release.
BASELINE := docs/proto-baseline.binpb

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: ## install what building and testing need, into folders of the project
	@scripts/setup.sh

run: ## run the offline Clerk and the service, and print what to try
	cargo run -- dev

demo-envoy: setup ## run a real Envoy in front of a small service, and print what to try
	cargo build --locked
	@.venv/bin/python scripts/demo-envoy.py

demo-replicas: setup ## run two replicas on PostgreSQL over mTLS, and print what to try
	cargo build --locked
	@.venv/bin/python scripts/demo-replicas.py

test: ## install what is missing, then run every test suite
	@scripts/test.sh

check: ## format, lint, tests, docs, licences, protos: everything that must be green
	@scripts/check.sh

bench: ## measure the parts: signature, parsing, cache, allocations
	cargo bench --bench verification

load: ## measure the service against an empty call, over real connections
	scripts/load.sh

soak: setup ## run a mixed load for MINUTES=30 and say whether memory, descriptors and p99 stay flat
	cargo build --locked
	@.venv/bin/python scripts/soak.py "$(MINUTES)"

rolling-restart: setup ## restart two replicas in turn, RESTARTS=10, under CALLS=2000 a second and say how many calls failed
	cargo build --locked
	cargo build --release --locked --no-default-features
	@.venv/bin/python scripts/rolling-restart.py --calls "$(CALLS)" --restarts "$(RESTARTS)" \
	  --clerk target/debug/clerk-authz target/release/clerk-authz

faults: setup ## break each part under load (SECONDS_EACH=60, CLERK_DOWN_MINUTES=10): is it as docs/operations.md says?
	cargo build --locked
	@.venv/bin/python scripts/faults.py --seconds-each "$(SECONDS_EACH)" --clerk-down-minutes "$(CLERK_DOWN_MINUTES)"

fuzz: ## build the fuzz targets and run each for a minute (SECONDS_EACH=60)
	@SECONDS_EACH="$(SECONDS_EACH)" scripts/fuzz.sh

proto-baseline: ## write the contract that `buf breaking` compares with; at a release
	$(BUF) build -o $(BASELINE)

release: ## build the binary as it is released: without the offline Clerk
	cargo build --release --locked --no-default-features

image: setup ## build the image with buildah, as root, and look at it and run it
	@scripts/image.sh
