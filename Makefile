# The commands of the project. `make test` and `make up` work from a clean clone.
.PHONY: test
test: ## everything: unit, golden, integration, whole-system
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace
