# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup's folder is not in PATH in every shell.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
PLUGINS := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/gstreamer-1.0/plugins

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

.PHONY: setup
setup: ## Install missing dependencies: GStreamer (apt) and libtorch (.libtorch/); CUDA=1 for GPUs
	@scripts/setup.sh

.PHONY: build
build: setup ## Build the plugin and the trainer, optimised
	cargo build --release --workspace

.PHONY: demo
demo: ## Cut an object out of a clip: make demo [CLIP=in.mp4 MASK=mask.png]
	@scripts/demo.sh $(if $(CLIP)$(MASK),"$(CLIP)" "$(MASK)")

# Tests run many networks in parallel: OpenMP threads that spin while they wait would starve the others.
test: export OMP_WAIT_POLICY ?= passive
# Tests fail if a tool is missing, instead of being skipped.
test: export FASTGANSEG_REQUIRE_ALL ?= 1

.PHONY: test
test: setup lint ## All checks of CI: formatting, lints, tests, documentation
	cargo test --workspace
	$(MAKE) --no-print-directory doc

.PHONY: lint
lint: setup ## Check formatting and lints; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	# Model, tracker and trainer must build without GStreamer.
	cargo clippy --package fastganseg-training --all-targets -- -D warnings
	cargo tree --quiet --locked --manifest-path fuzz/Cargo.toml >/dev/null

# Needs cargo-deny: cargo install cargo-deny --locked. `cargo deny --workspace check advisories` reads the advisory
# database from GitHub, so it is not part of this check, which needs no other network than the crates registry.
.PHONY: deny
deny: ## Check licences and sources of the dependencies
	cargo deny --workspace check bans licenses sources

.PHONY: doc
doc: setup ## Build the documentation in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

.PHONY: bench
bench: setup ## Time the network and the element; append to benches/history.csv
	BENCH_HISTORY='$(CURDIR)/benches/history.csv' cargo bench --workspace

# Tests that run for minutes to hours, not part of `make test`. Set a seed with make soak SEED=7.
.PHONY: soak
soak: setup ## Run the long tests: 10,000 state changes, 100,000 frames
	OMP_NUM_THREADS=1 FASTGANSEG_SEED=$(or $(SEED),1) cargo test --test element -- \
	  --ignored --exact stress::ten_thousand_state_changes --nocapture
	scripts/soak.sh $(or $(FRAMES),100000)

# Needs a nightly compiler and cargo-fuzz: rustup toolchain install nightly && cargo install cargo-fuzz
.PHONY: fuzz
fuzz: setup ## Fuzz the readers of masks, pictures and weights: make fuzz [TARGET=mask] [SECONDS=600]
	FASTGANSEG_CORPUS='$(CURDIR)/fuzz/corpus' cargo test --test hostile
	for target in $(or $(TARGET),mask picture weights); do \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(or $(SECONDS),600) -rss_limit_mb=4096 -max_len=65536; \
	done

.PHONY: install
install: build ## Install the plugin for this user
	@scripts/install.sh '$(PLUGINS)'

.PHONY: uninstall
uninstall: ## Remove the installed plugin
	@scripts/install.sh --uninstall '$(PLUGINS)'

.PHONY: dist
dist: setup ## Pack an archive that runs where GStreamer is installed
	@scripts/dist.sh

# Needs cargo-deb: cargo install cargo-deb
.PHONY: deb
deb: setup ## Pack a Debian package: target/dist/fastganseg_*.deb
	@scripts/dist.sh --deb

.PHONY: clean
clean: ## Remove build output and the demo's files, but not libtorch
	cargo clean
	rm -rf demo
