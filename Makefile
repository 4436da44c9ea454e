# Tagtrail. Every target can be run again and again, as root or not.

CARGO ?= cargo
# Folder of `make up`: as root Postgres runs as another user, who must be able to reach it.
DATA ?= $(if $(filter 0,$(shell id -u)),/var/lib/tagtrail,.tagtrail)

.PHONY: help setup build up demo test chaos lint fmt clean-data

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install what is missing (as root; otherwise print the one line to run)
	@scripts/setup

build: ## build the release binary, target/release/tagtrail
	$(CARGO) build --release --locked --package tagtrail

up: setup build ## run everything on this machine, with data in $(DATA)
	target/release/tagtrail up --data $(DATA)

demo: setup build ## tell the story with a real registry and real pushes
	@scripts/demo

test: setup ## run every test, on real servers
	$(CARGO) test --locked --workspace

chaos: setup ## push while everything is killed at random, for long (CHAOS_SEED, CHAOS_PUSHES)
	$(CARGO) build --locked --package tagtrail
	CHAOS_PUSHES=$${CHAOS_PUSHES:-5000} $(CARGO) test --locked --package tagtrail-e2e --test fleet -- --nocapture whatever_crashes

lint: ## check format, lints and dependency rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@scripts/check-dependencies

fmt: ## format the code
	$(CARGO) fmt --all

clean-data: ## remove the data folder of `make up`
	rm -rf $(DATA)
