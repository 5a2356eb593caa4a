# The commands of the project. `make up` and `make test` work from a clean clone.

SUDO := $(shell [ $$(id -u) = 0 ] || echo "sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME,HOME,ROUNDS,CI")
# Length of the randomised rounds; `make soak` runs them in full.
export ROUNDS ?= 3

.PHONY: help up down test soak fuzz bench conformance
help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile

up: ## install what is missing, build, start a cluster and show a request served
	scripts/install-needs up
	cargo build --release --bin peapod
	scripts/demo-image target/release/peapod
	$(SUDO) scripts/up target/release/peapod

down: ## stop the cluster and leave the machine as it was
	$(SUDO) target/release/peapod down --purge

test: ## everything: unit, golden, integration, whole-system
	scripts/install-needs test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace --all-targets
	scripts/demo-image target/debug/peapod
	$(SUDO) env PATH="$(CURDIR)/target/clients/bin:$$PATH" cargo test --workspace --no-fail-fast

soak: ## the randomised tests in full
	$(MAKE) test ROUNDS=100

fuzz: ## the fuzz targets, half a minute each (nightly Rust)
	scripts/fuzz

conformance: ## upstream's own conformance suite, that of Kubernetes 1.20 (an hour)
	scripts/install-needs conformance
	cargo build --release --bin peapod
	$(SUDO) tests/conformance/upstream/build target/conformance
	$(SUDO) tests/conformance/upstream/run target/conformance target/release/peapod

bench: ## the table of figures, each beside its reference
	scripts/install-needs bench
	cargo build --release --bin peapod --bin peapod-bench
	scripts/demo-image target/release/peapod
	$(SUDO) env PATH="$(CURDIR)/target/clients/bin:$$PATH" target/release/peapod-bench
	cargo bench --workspace --bench figures
