# Tagtrail. Every target can be run again and again, as root or not.

CARGO ?= cargo
# Folder of `make up`: as root Postgres runs as another user, who must be able to reach it.
DATA ?= $(if $(filter 0,$(shell id -u)),/var/lib/tagtrail,.tagtrail)

.PHONY: help setup build up demo test faults faults-selftest overload bench bench-growth fuzz lint fmt clean-data

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

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

# A random one, so that each run is another storm.
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')

faults: setup build ## let everything go wrong at once, then look whether every promise holds (SEED, NATS=3, FAULTS_SECONDS, FAULTS_EVENTS)
	FAULTS_SEED=$(SEED) FAULTS_NATS=$${NATS:-1} FAULTS_SECONDS=$${FAULTS_SECONDS:-120} FAULTS_EVENTS=$${FAULTS_EVENTS:-3000} \
		TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail $(CARGO) test --locked --package tagtrail-e2e --test storm -- --nocapture

faults-selftest: setup ## leave out one step of the product after another, to see that the storm notices (half an hour)
	@scripts/faults-selftest

overload: setup build ## push far more than the store takes, for a minute; memory must stay bounded, and nothing be lost
	OVERLOAD_SECONDS=60 TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail \
		$(CARGO) test --locked --package tagtrail-e2e --test overload -- --nocapture

bench: setup build ## measure every goal against the ceilings of the servers, in the same run (a quarter of an hour; QUICK=1 in two minutes)
	$(CARGO) build --release --locked --package tagtrail-bench
	TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail target/release/tagtrail-bench run $(if $(QUICK),--quick)

bench-growth: setup build ## measure stores of several sizes (FACTS=1,5,20, in millions)
	$(CARGO) build --release --locked --package tagtrail-bench
	TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail target/release/tagtrail-bench growth --facts $(or $(FACTS),1,5,20)

fuzz: ## fuzz each target for FUZZ_SECONDS (60), from the corpus that is kept; needs a nightly compiler and cargo-fuzz
	@scripts/fuzz

lint: ## check format, lints and dependency rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@scripts/check-dependencies

fmt: ## format the code
	$(CARGO) fmt --all

clean-data: ## remove the data folder of `make up`
	rm -rf $(DATA)
