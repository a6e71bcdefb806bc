# The few commands people need. Each says what it does, may be run twice, and may be interrupted.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint fmt bench sim soak mutations clean-state
PROFILE_OF_TESTS := $(if $(CI),ci,default)
BINARIES := -p marram -p marram-root -p marram-cluster -p marram-node -p marram-shim

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: ## install what building, testing and the demo need, where missing (Debian, as root)
	@setup/packages.sh && setup/tools.sh nextest && setup/venv.sh && setup/containerd.sh

build: ## build the programs for use, into target/release
	cargo build --locked --release $(BINARIES)

demo: ## deploy examples/clientsrvr.json on this machine, fetch its page, and clean up
	@setup/packages.sh && demo/run.sh

test: setup ## run every test, those of the containerd backend on containerd 2 as well
	cargo build --locked --workspace --bins
	cargo nextest run --locked --workspace --profile $(PROFILE_OF_TESTS)
	MARRAM_TEST_CONTAINERD="$$(setup/containerd.sh --path)" cargo nextest run --locked --workspace \
	  --profile $(PROFILE_OF_TESTS) -E 'package(marram-containerd) & kind(test)'

lint: ## check formatting, and clippy with warnings as errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt --all

bench: setup ## measure what docs/SPECIFICATION.md promises
	cargo build --locked --release $(BINARIES) && cargo run --locked --release -p marram-bench
	cargo run --locked --release -p marram-broker --example idle_connections

sim: ## run the simulated hierarchy over many seeds
	cargo nextest run --locked -p marram-sim

WORLDS ?= 10000
soak: ## run that many simulated worlds, optimised: WORLDS=10000
	cargo run --locked --profile soak -p marram-sim -- soak 0 $(WORLDS)

mutations: ## break the cores on purpose, one change at a time; the simulation has to catch each
	cargo run --locked -p marram-sim --bin mutations

clean-state: ## remove what a killed demo left behind
	@demo/run.sh --clean
