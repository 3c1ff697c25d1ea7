# Everything a developer does here. `make help` lists it; `make run` is the way to try it.

SHELL := /bin/sh
.DEFAULT_GOAL := help

export CACHE ?= $(or $(XDG_CACHE_HOME),$(or $(HOME),/tmp)/.cache)/tracker
# Outside the checkout, so that a fresh clone builds on what an older one compiled.
export CARGO_TARGET_DIR ?= $(CACHE)/target
# Chooses and names the way DuckDB is linked; sets $$features.
DUCKDB := . .ci/duckdb
CARGO := $(DUCKDB) && cargo
PROGRAM = $(CARGO_TARGET_DIR)/release/tracker
CONFIG ?= config.json
LOG ?= tests/data/access_log
FUZZ_SECONDS ?= 60
FUZZ_API := tests/fuzz_api.sh $(CARGO_TARGET_DIR)/debug/tracker "$$(.ci/services fuzzer)"

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## the program, optimised
	@$(CARGO) build --release --locked --bin tracker $$features

.PHONY: run
run: build ## build and serve with config.json (CONFIG=other.json)
	@exec $(PROGRAM) $(CONFIG)

.PHONY: test
test: ## every test, with the outside programs it needs (.ci/services)
	@.ci/services install
	@$(CARGO) test --locked --no-run --lib --test '*' $$features
	@$(FUZZ_API) $(FUZZ_SECONDS) --seed 1
	@$(CARGO) test --locked --no-fail-fast --lib --test '*' $$features
	@.ci/services missing

.PHONY: lint
lint: ## format, clippy and documentation, warnings are errors
	@cargo fmt --check
	@$(CARGO) clippy --locked --all-targets $$features -- -D warnings
	@$(DUCKDB) && RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps $$features

.PHONY: check
check: lint test ## what CI runs: lint and test

# No daemon is needed: what would build and start the image is read by linters instead.
.PHONY: packaging
packaging: ## the image's, compose's and systemd's files, read by their linters
	@tests/packaging.sh $(CACHE)/linters

.PHONY: fmt
fmt: ## format the sources
	@cargo fmt

.PHONY: bench
bench: ## measure the hot paths
	@$(CARGO) bench --locked $$features

# The stable compiler has no sanitizers, and without unsafe code there is little for them to find. New
# inputs go to a folder of their own beside what was built; kept ones are in tests/fuzz/corpus.
.PHONY: fuzz
fuzz: ## each fuzz target for FUZZ_SECONDS (60)
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	@for target in $$(cargo fuzz list --fuzz-dir tests/fuzz); do \
		echo "fuzz: $$target for $(FUZZ_SECONDS) seconds"; \
		mkdir -p "$(CARGO_TARGET_DIR)/fuzz/$$target" tests/fuzz/artifacts; \
		cargo fuzz run --fuzz-dir tests/fuzz -s none "$$target" \
			"$(CARGO_TARGET_DIR)/fuzz/$$target" "tests/fuzz/corpus/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4608 -timeout=10 -rss_limit_mb=2048 \
			-print_final_stats=1 || { \
			echo "fuzz: $$target failed; the input is in tests/fuzz/artifacts/$$target" >&2; \
			exit 1; \
		}; \
	done

.PHONY: fuzz-api
fuzz-api: ## the routes by their document, for ten times FUZZ_SECONDS, other requests each time
	@.ci/services install
	@$(CARGO) test --locked --no-run --test openapi $$features
	@$(FUZZ_API) $$(($(FUZZ_SECONDS) * 10))

.PHONY: soak
soak: ## 500 random faults of ClickHouse (SOAK_RUNS) and an outage of 5 GB (SOAK_BACKLOG_MB)
	@.ci/services install
	@$(DUCKDB) && SOAK_RUNS=$${SOAK_RUNS:-500} SOAK_BACKLOG_MB=$${SOAK_BACKLOG_MB:-5120} cargo test \
		--release --locked --test clickhouse_soak $$features -- --nocapture --test-threads 1

.PHONY: replay
replay: build ## import an access log (LOG=path) into a server and compare what it stored
	@tests/replay.sh $(PROGRAM) $(LOG)

.PHONY: deny
deny: ## licences, sources and advisories of the dependencies
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
	@cargo deny check --config .deny.toml

.PHONY: clean
clean: ## what was built; data and the cache of libraries stay
	@cargo clean
