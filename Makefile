# The only entry point. Needs make and Python >= 3.11; everything else is installed into .venv from
# requirements/*.txt by hash. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
LOCKED := --require-hashes --disable-pip-version-check --quiet --no-build-isolation

# Folders that hold Python, as far as they exist.
CODE := $(wildcard zipnet tdx sim tests benchmarks examples images ops)
TYPED := $(wildcard zipnet tdx sim tests benchmarks examples)

# Options of one run: make demo MESSAGES=/path/file TDX=emulated · make test TESTS=tests/unit WORKERS=1
MESSAGES ?= examples/messages.txt
TDX ?= off
TESTS ?= tests
# More than there are processors: most tests of real processes wait most of the time.
WORKERS ?= 3
PYTEST_ARGS ?=

.PHONY: demo
demo: $(VENV)/.node ## Run the network on loopback: MESSAGES=/path/to/file takes any text file, TDX=emulated gates every bond, KEEP=1 stays up
ifdef KEEP
	@test "$(TDX) $(MESSAGES)" = "off examples/messages.txt" || { \
	  echo "error: KEEP=1 goes without TDX and MESSAGES: what stays up is not attested, and you publish" >&2; exit 2; }
	@$(PY) -m examples.stay
else
	@$(PY) -m examples.demo --messages "$(MESSAGES)" --tdx "$(TDX)"
endif

.PHONY: test
test: $(VENV)/.dev ## Run the linters, then the whole suite: TESTS=tests/unit narrows it
	@$(MAKE) lint
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS) $(TESTS)

.PHONY: lint
lint: $(VENV)/.dev ## Check style, spelling, types and the import contract
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE)
	@$(BIN)/codespell $(CODE) docs *.md
	@$(BIN)/mypy $(TYPED)
	@MYPYPATH=images $(BIN)/mypy images/build.py
	@$(BIN)/lint-imports --no-logo | tail -n 2

.PHONY: format
format: $(VENV)/.dev ## Lay out the code and apply the linter's safe fixes
	@$(BIN)/ruff check --quiet --fix $(CODE) || true
	@$(BIN)/ruff format --quiet $(CODE)

ifneq ($(wildcard tests/vectors/generate.py),)
.PHONY: vectors
vectors: $(VENV)/.dev ## Make the test vectors anew from the naive reference
	@$(PY) -m tests.vectors.generate
endif

ifneq ($(wildcard benchmarks/pads.py),)
.PHONY: bench
bench: $(VENV)/.dev ## Measure the pad path beside openssl and a naive XOR
	@$(PY) -m benchmarks.pads
endif

ifneq ($(wildcard tests/conformance/consensus/test_consensus.py),)
# SEEDS in all, over committees of 1, 3, 5 and 7; FIRST seed, to repeat one.
SEEDS ?= 500
FIRST ?= 0

.PHONY: conformance
conformance: $(VENV)/.dev ## Hold the consensus engine to its promises under SEEDS=500 kinds of trouble
	@ZIPNET_CONFORMANCE_SEEDS=$(SEEDS) ZIPNET_CONFORMANCE_FIRST=$(FIRST) $(PY) -m pytest -q -s -n 0 -p no:randomly \
	  tests/conformance/consensus/test_consensus.py

.PHONY: faults
faults: $(VENV)/.dev ## Fail disks, servers and aggregators of real networks one after the other: some minutes
	@ZIPNET_LONG_FAULTS=1 $(PY) -m pytest -q -rA -p no:randomly tests/e2e/test_safe_mode.py tests/e2e/test_amnesia.py \
	  tests/e2e/test_absent_server.py tests/e2e/test_failover.py tests/e2e/test_succession_faults.py

# First seed, how many from there on, and how long each.
SEED ?= 0
chaos: SEEDS = 1
MINUTES ?= 2

.PHONY: chaos
chaos: $(VENV)/.dev ## Throw faults drawn from SEED=0 at real processes for MINUTES=2, SEEDS=1 of them, and check what must hold
	@$(PY) -W ignore -m tests.chaos.run --seed $(SEED) --seeds $(SEEDS) --minutes $(MINUTES)

.PHONY: fuzz
fuzz: MINUTES = 15
fuzz: $(VENV)/.dev ## Fuzz every parser for MINUTES=15, guided by coverage; corpus and findings go to out/fuzz
	@$(PY) -m tests.fuzz.run --minutes $(MINUTES) --out out/fuzz

.PHONY: crashpoints
crashpoints: $(VENV)/.dev ## Let servers die at every durable write and send of a round, one by one: about ten minutes
	@$(PY) -W ignore -m tests.crashpoints.run --seed $(SEED)

.PHONY: soak
soak: MINUTES = 30
soak: $(VENV)/.dev ## Run a network of processes for MINUTES=30 and judge what grew; samples and plots go to out/soak
	@$(PY) -W ignore -m tests.soak.run --minutes $(MINUTES) --out out/soak

.PHONY: drills
drills: $(VENV)/.dev ## Attack a live network of processes in twelve ways (NAME=… for one): attack, response, metric, and what honest clients notice
	@$(PY) -W ignore -m tests.drills.run $(NAME)

.PHONY: etcd
etcd: ## Unpack Debian's etcd-server into .venv/etcd, by name and without root; its tests run from then on
	@ops/fetch-etcd.sh "$(VENV)/etcd"
endif

.PHONY: ops-check
ops-check: $(VENV)/.dev ## Check units, alert rules and runbooks: fails where a checker is missing
	@ZIPNET_REQUIRE_OPS_TOOLS=1 $(PY) -m pytest -q tests/ops -m "not image"

.PHONY: ops-tools
ops-tools: ## Install promtool, systemd-analyze and the image tools from Debian, when root
	@ops/install-tools.sh ops

.PHONY: observer
observer: $(VENV)/.dev ## Watch one client's packets for 2,400 rounds; plots go to out/observer
	@ZIPNET_OBSERVER_ROUNDS=2400 ZIPNET_OBSERVER_OUT=out/observer $(PY) -m pytest -q -s \
	  -o faulthandler_timeout=0 tests/interaction/sdk/test_passive_observer.py

.PHONY: model
model: $(VENV)/.dev model-tools ## Check the models: states explored, promises, and wrong designs that must be caught
	@$(PY) -m tests.models.check

.PHONY: model-tools
model-tools: ## Install the model checker from Debian, when root
	@ops/install-tools.sh model

.PHONY: client-tools
client-tools: ## Install a browser and a SOCKS5 server for the clients' tests from Debian, when root
	@ops/install-tools.sh client

.PHONY: token-tools
token-tools: ## Install a PKCS#11 token in software for the tests of key custody from Debian, when root
	@ops/install-tools.sh token

.PHONY: simulate
SCENARIO ?= paper
SEED ?= 1
simulate: $(VENV)/.node ## Run SCENARIO=paper SEED=1 in virtual time; the report goes to out/sim
	@$(PY) -m sim model --scenario "$(SCENARIO)" --seed "$(SEED)" --report "out/sim/$(SCENARIO)"

.PHONY: lab
LAB_SEEDS ?= 20
lab: $(VENV)/.node ## Set every adversary on the protocol LAB_SEEDS=20 times; the report goes to out/sim/lab
	@$(PY) -m sim lab --all --seeds "$(LAB_SEEDS)" --report out/sim/lab

.PHONY: parquet
parquet: $(VENV)/.node ## Install pyarrow, so that the simulator writes raw events as Parquet too
	@$(PY) -m pip install $(LOCKED) -r requirements/sim.txt

.PHONY: images
images: $(VENV)/.dev ## Build the container image into out/image and check its root filesystem
	@$(PY) images/build.py --out out/image
	@ZIPNET_REQUIRE_IMAGE=1 $(PY) -m pytest -q tests/ops -m image

.PHONY: lock
lock: $(VENV)/.dev ## Resolve requirements/*.txt anew, leaving out releases younger than a week
	@requirements/lock.sh "$(BIN)/uv"

.PHONY: advisories
advisories: $(VENV)/.audit ## Ask the open vulnerability database about every locked package; needs a way to it
	@ops/advisories.sh $(VENV)/audit/bin/pip-audit node dev sim

.PHONY: clean
clean: ## Remove the virtual environment, caches and everything that was built
	@rm -rf $(VENV) build dist out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info .coverage*
	@find $(CODE) -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------------
# A stamp for each set; it is made anew when a lock or the project's metadata changes. Console scripts
# and metadata come from an editable install without dependencies: those are already there, by hash.

$(VENV)/.python: requirements/build.txt
	@python="$$(requirements/find-python.sh "$(PYTHON)")"; \
	  echo "set-up: $$("$$python" --version) in $(VENV)" >&2; \
	  test -x $(PY) || "$$python" -m venv $(VENV) || { \
	    echo "error: $$python cannot make a virtual environment (Debian: install python3-venv)" >&2; exit 1; }
	@$(PY) -m pip install $(LOCKED) -r requirements/build.txt
	@touch $@

# Apart from everything else: the auditor must not share packages with what it audits.
$(VENV)/.audit: $(VENV)/.python requirements/audit.txt
	@test -x $(VENV)/audit/bin/python || $(PY) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install $(LOCKED) -r requirements/audit.txt
	@touch $@

$(VENV)/.node: $(VENV)/.python requirements/node.txt pyproject.toml
	@echo "set-up: installing the locked packages of a node" >&2
	@$(PY) -m pip install $(LOCKED) -r requirements/node.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.node requirements/dev.txt
	@echo "set-up: installing the locked tools of a developer" >&2
	@$(PY) -m pip install $(LOCKED) -r requirements/dev.txt
	@touch $@
