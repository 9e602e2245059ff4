# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup's folder is not on the PATH of every shell.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
PLUGINS := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/gstreamer-1.0/plugins

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

.PHONY: setup
setup: ## Install what is missing: GStreamer (apt) and libtorch (.libtorch/); CUDA=1 for GPUs
	@scripts/setup.sh

.PHONY: build
build: setup ## Build the plugin and the trainer, optimised
	cargo build --release --workspace

.PHONY: demo
demo: ## Cut an object out of a clip: make demo [CLIP=in.mp4 MASK=mask.png]
	@scripts/demo.sh $(if $(CLIP)$(MASK),"$(CLIP)" "$(MASK)")

# Tests run many networks side by side; threads that spin while they wait would starve each other.
test: export OMP_WAIT_POLICY ?= passive
# A test that cannot run for want of a tool fails.
test: export FASTGANSEG_REQUIRE_ALL ?= 1

.PHONY: test
test: setup lint ## Everything CI runs: formatting, lints, all tests, documentation
	cargo test --workspace
	$(MAKE) --no-print-directory doc

.PHONY: lint
lint: setup ## Formatting and lints, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	# The model, the tracker and the trainer stand without GStreamer.
	cargo clippy --package fastganseg-training --all-targets -- -D warnings

.PHONY: doc
doc: setup ## The documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

.PHONY: bench
bench: setup ## Time the network and the element; lines are added to benches/history.csv
	BENCH_HISTORY=$(CURDIR)/benches/history.csv cargo bench --workspace

# A seed per run: make soak SEED=7. What runs for minutes or hours is not part of `make test`.
.PHONY: soak
soak: setup ## The long tests: 10,000 changes of state, 100,000 frames
	OMP_NUM_THREADS=1 FASTGANSEG_SEED=$(or $(SEED),1) cargo test --test element -- \
	  --ignored --exact stress::ten_thousand_state_changes --nocapture
	scripts/soak.sh $(or $(FRAMES),100000)

# cargo-fuzz needs a nightly compiler: rustup toolchain install nightly && cargo install cargo-fuzz
.PHONY: fuzz
fuzz: setup ## Broken masks, pictures and weights: make fuzz [TARGET=mask] [SECONDS=600]
	FASTGANSEG_CORPUS=$(CURDIR)/fuzz/corpus cargo test --test hostile
	for target in $(or $(TARGET),mask picture weights); do \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(or $(SECONDS),600) -rss_limit_mb=4096 -max_len=65536; \
	done

.PHONY: install
install: build ## Put the plugin where GStreamer finds it, for this user
	mkdir -p $(PLUGINS)
	install -m 755 $(TARGET)/release/libgstfastganseg.so $(PLUGINS)/
	@echo "installed in $(PLUGINS); it uses libtorch from this checkout, so keep that"

.PHONY: uninstall
uninstall: ## Undo install
	rm -f $(PLUGINS)/libgstfastganseg.so

.PHONY: clean
clean: ## Remove what was built, and the demo's files; libtorch stays
	cargo clean
	rm -rf demo
