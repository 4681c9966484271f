# `make up` and `make test` are all that a newcomer needs; `make help` lists the rest.
.PHONY: help up down test test-unit simulation test-v2 bench chaos stall clients drill lint deny documents build image nats stores prometheus prerequisites clean
.DEFAULT_GOAL := help
SHELL := /bin/bash

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Most of the image is downloading, so it is made while Rust compiles.
up: ## install, build and start everything, and prove it with a request
	@$(MAKE) --no-print-directory --jobs=3 build image nats
	@infra/dev/up.sh

down: ## stop what `make up` started
	@infra/dev/down.sh

test: ## every test: TEST=part of a name
	@$(MAKE) --no-print-directory --jobs=5 build image nats stores prometheus
	@infra/dev/test.sh -- $(TEST)

test-unit: ## logic alone, without root, services and network: TEST=part of a name
	@HEARTH_SEEDS=0..300 cargo --config infra/dev/tests.toml test --release --workspace --lib -- $(TEST) --skip azurite:: --skip moto:: --skip sync::tests:: --skip preflight::tests::a_directory

simulation: ## a fleet in one process, with faults from seeds: SEEDS=0..20000
	@HEARTH_SEEDS=$(or $(SEEDS),0..20000) cargo --config infra/dev/tests.toml test --release --workspace --lib -- --nocapture session::simulation::

test-v2: build image nats ## tests on a kernel with control groups of version 2 alone
	@infra/dev/test-v2.sh

bench: build image nats ## figures beside Jupyter Kernel Gateway and ipykernel
	@target/release/loadtest bench

chaos: build image nats stores ## kill and pause everything under load: SECONDS=60 SEED=random
	@target/release/loadtest chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

stall: build image nats ## print 100 MB to a reader that stalls for five minutes
	@target/release/loadtest stall

clients: ## clients of compiled languages against the stack that `make up` started, with a compiler each
	@set -a && . .hearth/dev.env && loadtest/clients/run.sh .hearth/venv/clients compiled-go compiled-dotnet

drill: build image nats ## what an operator may meet: lost bus, full disk, wrong clock, expired certificate and more
	@infra/dev/test.sh --test it -- --include-ignored --nocapture --test-threads=1 drill::

lint: prerequisites ## formatting, lints and documentation
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --release --workspace --no-deps --document-private-items

deny: prerequisites ## licences, sources and banned crates of what the programs are made of (compiles cargo-deny once)
	@test -x .hearth/tools/bin/cargo-deny || CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --quiet --debug --root .hearth/tools cargo-deny@0.20.2
	@.hearth/tools/bin/cargo-deny --offline check bans licenses sources

documents: build image nats prometheus ## write from the code: ingress/ERRORS.md, ingress/openapi/, docs/settings.md, docs/metrics.md
	@HEARTH_WRITE_DOCUMENTS=1 infra/dev/test.sh -- --test-threads=1 the_committed_

build: prerequisites ## the programs
	cargo build --release --workspace

image: prerequisites ## the session image
	@infra/image/build.sh .hearth/image

nats: prerequisites ## the pinned nats-server
	@infra/nats/fetch.sh .hearth/bin

prometheus: prerequisites ## Debian's Prometheus, which tests run
	@infra/prometheus/fetch.sh .hearth/bin

stores: prerequisites ## the object stores and the receiver of spans that tests run against
	@infra/stores/fetch.sh .hearth/stores

prerequisites: ## what a fresh machine lacks
	@infra/dev/prerequisites.sh

clean: down ## stop everything and remove what was built
	rm -rf target .hearth
