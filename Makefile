# Needs Go, Python 3.10 or later with its headers, and make. Everything else is installed into
# .venv and build.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := build/bin
PY := $(VENV)/bin/python
MACHINE := $(shell uname -m)
SERVER := $(BIN)/nats-server
SERVER_OLDEST := $(BIN)/nats-server-oldest
PYTHON_SOURCES := setup.py docs/site pybind/extbuild python tests examples
DEMO := $(wildcard examples/demo)
BENCH := $(wildcard tests/bench)
SHORT := $(DEMO:%=test-demo) $(BENCH:%=test-bench) $(BENCH:%=test-peers) $(BENCH:%=test-sizing)
EXTBUILD := PYTHONPATH=pybind $(PY) -m extbuild

# Only the race detector and the extension need a C compiler; zig is one that pip can install.
ifeq ($(shell command -v gcc || command -v cc || command -v clang),)
ZIG := $(VENV)/.wheel
export CC = $(CURDIR)/$(PY) -m ziglang cc
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: venv
venv: $(VENV)/.dev ## Create .venv with the locked development requirements

$(VENV)/.dev: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: natslease needs Python 3.10 or later, not " + sys.version.split()[0])'
	@PYTHONPATH=pybind $(PYTHON) -m extbuild.toolchain
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -r requirements/dev.txt
	@touch $@

$(VENV)/.%: requirements/%.txt $(VENV)/.dev
	$(PY) -m pip install --quiet -r $<
	@touch $@

# The editable install is only metadata and a path; the extension is built by extbuild.
$(VENV)/.editable: $(VENV)/.dev $(ZIG) pyproject.toml setup.py python/natslease/_version.py
	$(PY) -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

.PHONY: build
build: $(VENV)/.editable ## Build the extension in place, if its sources changed, and install the checkout
	@$(EXTBUILD)

.PHONY: servers
servers: $(SERVER) $(SERVER_OLDEST) ## Build the newest and the oldest supported nats-server

# nats and nsc, which pages of the documentation run.
$(BIN)/.natstools: tests/tools/natstools/go.mod tests/tools/natstools/go.sum
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -C $(<D) -buildvcs=false -trimpath -ldflags='-s -w' -o $(CURDIR)/$(BIN)/ github.com/nats-io/natscli/nats github.com/nats-io/nsc/v2
	@touch $@

$(SERVER): go.mod go.sum
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags='-s -w' -o $@ github.com/nats-io/nats-server/v2
	@touch $@

$(SERVER_OLDEST): tests/tools/nats-server-oldest/go.mod tests/tools/nats-server-oldest/go.sum
	CGO_ENABLED=0 go build -C $(<D) -buildvcs=false -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ github.com/nats-io/nats-server/v2
	@touch $@

$(BIN)/.lint: tests/tools/lint/go.mod tests/tools/lint/go.sum
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -C $(<D) -buildvcs=false -o $(CURDIR)/$(BIN)/ mvdan.cc/gofumpt honnef.co/go/tools/cmd/staticcheck golang.org/x/vuln/cmd/govulncheck
	@touch $@

.PHONY: test
test: lint test-go test-wasm test-python test-django test-antenna test-worker test-programs test-types test-browser test-pythons test-wheel test-tutorial test-faults test-chaos test-soak $(SHORT) ## Run everything that CI runs

.PHONY: test-go
test-go: $(ZIG) ## Run the Go tests under the race detector
	go vet ./...
	go test -race -p 1 ./... # in turn: some measure how late calls return

.PHONY: test-wasm
test-wasm: ## Check that the core compiles for js/wasm
	GOOS=js GOARCH=wasm go build ./core/...

WASM := build/wasm

.PHONY: wasm
wasm: ## Build the example for browsers and Node into build/wasm
	@mkdir -p $(WASM)
	GOOS=js GOARCH=wasm go build -C examples/wasm -buildvcs=false -trimpath -ldflags='-s -w' -o $(CURDIR)/$(WASM)/natslease.wasm .
	@cp "$$(go env GOROOT)/lib/wasm/wasm_exec.js" examples/wasm/index.html examples/wasm/node.mjs $(WASM)

.PHONY: docs
docs: $(VENV)/.docs ## Build the documentation's site into build/site/html
	NO_MKDOCS_2_WARNING=1 $(PY) docs/site/build.py

.PHONY: test-browser
test-browser: build servers wasm docs $(VENV)/.browser ## Look at the pages with Debian's chromium, and run the WebAssembly in Node
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest tests/browser

# Most tests wait, for a silence or a deadline: three at a time keep two cores busy by half.
AT_ONCE := --numprocesses 3

.PHONY: test-python
test-python: build servers $(BIN)/.natstools ## Run the Python tests against the newest nats-server, and against the oldest under the least permissions
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest $(AT_ONCE) --ignore-glob='*/test_example_cluster.py' # an upgrade
	NATSLEASE_LOOP=uvloop NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER_OLDEST) $(PY) -m pytest $(AT_ONCE) --ignore-glob='*/test_build_*.py'

DJANGO := build/django
# The plugin by its name: whether its entry point is found depends on what else was built here.
DJANGO_PYTEST = PYTHONPATH=$(CURDIR)/python NATSLEASE_NATS_SERVER=$(CURDIR)/$(2) $(DJANGO)/$(1)/bin/python -m pytest -p no:natslease -p natslease.testing.plugin
DJANGO_TESTS = $(call DJANGO_PYTEST,$(1),$(SERVER)) -k 'not outage_is_answered' tests/django

.PHONY: test-antenna
test-antenna: build servers $(VENV)/.bench $(DJANGO)/oldest/.made ## Run the tests of Antenna's part and of examples/antenna
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest tests/antenna
	$(call DJANGO_PYTEST,oldest,$(SERVER_OLDEST)) $(patsubst %,tests/antenna/test_antenna_%.py,http jobs rows) # what the application has

.PHONY: test-django
test-django: build servers $(DJANGO)/oldest/.made $(DJANGO)/newest/.made ## Run the tests of Django and Celery: as locked, oldest, newest
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest tests/django
	$(call DJANGO_TESTS,oldest) --ignore=tests/django/test_health_check.py # which needs Django 5.2
	$(call DJANGO_TESTS,newest)

$(DJANGO)/oldest/.made: requirements/django-oldest.txt $(VENV)/.dev
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet -r $<
	@touch $@

# The newest Django needs a newer Python than others do.
$(DJANGO)/newest/.made: requirements/dev.txt requirements/django-oldest.in $(VENV)/.dev
	$$(PYTHONPATH=tests/tools $(PY) -c 'import pythons; print(pythons.find()[-1].executable)') -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet -c $< django-health-check $$(sed -E '/^#/d; s/==.*//' requirements/django-oldest.in)
	@touch $@

.PHONY: test-programs
test-programs: build servers ## Run Celery, gunicorn, uvicorn and pools of processes as they are deployed
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest tests/programs

.PHONY: test-worker
test-worker: build servers ## Run the tests of workers, over HTTP and straight to NATS
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest tests/worker

TORCH_PYTHON ?= /usr/bin/python3

.PHONY: test-torch
test-torch: build servers ## Run torch's DataLoader, with Debian's python3-torch or TORCH_PYTHON=...
	@$(TORCH_PYTHON) -c 'import torch' || { echo "error: $(TORCH_PYTHON) has no torch: apt-get install python3-torch, or name another by TORCH_PYTHON=..." >&2; exit 1; }
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) TORCH_PYTHON=$(TORCH_PYTHON) $(PY) -m pytest tests/torch tests/worker/test_task_dataset.py

.PHONY: test-permissions
test-permissions: build servers ## Run the tests of the Python API under the permissions that the documentation recommends
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest --permissions --ignore-glob='*/test_build_*.py' tests/python

.PHONY: test-pythons
test-pythons: build servers ## Try the extension on every CPython 3.10 to 3.13 found
	$(PY) tests/tools/everywhere.py

# A wheel depends on nothing but the commit.
EPOCH = $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
MAKE_WHEEL = SOURCE_DATE_EPOCH=$(EPOCH) NATSLEASE_TARGET=$*-linux-gnu.2.17 \
	$(PY) -m pip wheel --quiet --no-build-isolation --no-deps --no-cache-dir --wheel-dir dist

.PHONY: wheel
wheel: wheel-$(MACHINE) ## Build this machine's wheel with zig cc (glibc 2.17) into dist

wheel-%: $(VENV)/.editable $(VENV)/.wheel
	rm -f dist/natslease-*_$*.whl
	$(MAKE_WHEEL) .
	$(PY) tests/tools/check_wheel.py dist/natslease-*_$*.whl

server-wheel-%: $(VENV)/.wheel
	rm -f dist/natslease_server-*_$*.whl
	$(MAKE_WHEEL) python/natslease-server

$(BIN)/cyclonedx-gomod: tests/tools/sbom/go.mod tests/tools/sbom/go.sum
	CGO_ENABLED=0 go build -C $(<D) -buildvcs=false -o $(CURDIR)/$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	@touch $@

.PHONY: sdist
sdist: $(VENV)/.editable $(VENV)/.wheel ## Build the source distribution into dist
	rm -f dist/natslease-*.tar.gz
	SOURCE_DATE_EPOCH=$(EPOCH) $(PY) -m build --sdist --no-isolation --outdir dist . >/dev/null

.PHONY: wheels
wheels: export NATSLEASE_CYCLONEDX = $(CURDIR)/$(BIN)/cyclonedx-gomod
wheels: $(BIN)/cyclonedx-gomod $(foreach m,x86_64 aarch64,wheel-$(m) server-wheel-$(m)) sdist ## Build all that is published, for x86_64 and aarch64, into dist
	@ls -l dist

.PHONY: test-wheels
test-wheels: wheels servers ## Build the wheels once more, run the Python tests on them without Go, try aarch64 in qemu
	NATSLEASE_CYCLONEDX=$(CURDIR)/$(BIN)/cyclonedx-gomod $(PY) tests/tools/wheels.py --epoch $(EPOCH)

.PHONY: test-wheel
test-wheel: wheel servers ## Install the wheel where there is no Go and no compiler, and try it
	$(PY) tests/tools/everywhere.py --wheel $(CURDIR)/$$(echo dist/natslease-*_$(MACHINE).whl)

.PHONY: test-tutorial
test-tutorial: wheel server-wheel-$(MACHINE) ## Follow the tutorials with the wheels, where there is no Go
	$(PY) tests/tools/tutorial.py

.PHONY: lint
lint: build $(BIN)/.lint ## Check formatting, vet, staticcheck, ruff and mypy
	@unformatted=$$($(BIN)/gofumpt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofumpt: run make format for"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	GOOS=js GOARCH=wasm go vet -C examples/wasm ./...
	$(BIN)/staticcheck ./...
	$(PY) -m ruff check $(PYTHON_SOURCES)
	$(PY) -m ruff format --check $(PYTHON_SOURCES)
	$(PY) -m mypy

.PHONY: test-types
test-types: build servers $(VENV)/.types ## Check what users' type checkers see, with pyright
	$(PY) -m pytest tests/types

.PHONY: audit
audit: $(VENV)/.types $(BIN)/.lint ## Look up what is pinned in the databases of known vulnerabilities
	$(PY) tests/tools/audit.py

.PHONY: format
format: venv $(BIN)/.lint ## Format the Go and the Python code
	$(BIN)/gofumpt -l -w $$(git ls-files --cached --others --exclude-standard '*.go')
	$(PY) -m ruff check --fix-only --quiet $(PYTHON_SOURCES)
	$(PY) -m ruff format $(PYTHON_SOURCES)

REPLAY := cd examples/antenna && NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(CURDIR)/$(PY) -m replay

.PHONY: demo
demo: build servers ## Replay the incident as it is now: NATS frozen, slow and killed under 32 pollers
	$(REPLAY) --half after --short

.PHONY: demo-drain
demo-drain: build servers ## Publish 20,000 tasks, drain them with 4 processes, freeze the server meanwhile
	$(PY) $(DEMO)

.PHONY: test-demo
test-demo: build servers
	$(PY) $(DEMO) --short
	$(REPLAY) --half after --smoke

.PHONY: cluster
cluster: build servers ## Kill the leader of a cluster of three, upgrade all servers one by one, account for every task
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) examples/cluster --upgrade-from $(SERVER_OLDEST)

.PHONY: replay
replay: build servers $(VENV)/.bench $(DJANGO)/oldest/.made ## Replay the incident before and after, and write docs/explanation/incident.*
	PYTHONPATH=$(CURDIR)/python && export PYTHONPATH && $(REPLAY) --python-before $(CURDIR)/$(DJANGO)/oldest/bin/python

.PHONY: replay-control
replay-control: build servers ## Compare an unrelated endpoint in outages with a stub's load
	$(REPLAY).control --write

.PHONY: outage
outage: build servers ## Measure what queue views answer and hold in an outage, and write it into docs/howto/django.md
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) tests/django/outage.py --write

.PHONY: bench
bench: build servers $(VENV)/.bench ## Measure natslease beside nats.go, nats-py and natsrpy
	$(PY) $(BENCH)

.PHONY: test-bench
test-bench: build servers $(VENV)/.bench
	$(PY) $(BENCH) --short

# One of the peers needs a newer Python than others do.
PEERS := build/peers
PEERS_PATH := PYTHONPATH=python:tests/bench:examples/antenna
RUN_PEERS := $(PEERS_PATH) NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PEERS)/bin/python -m peers

$(PEERS)/.made: requirements/peers.txt $(VENV)/.dev
	$$(PYTHONPATH=tests/tools $(PY) -c 'import pythons; print(pythons.find()[-1].executable)') -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet -r $<
	@touch $@

.PHONY: peers
peers: build servers $(VENV)/.bench $(PEERS)/.made ## Compare with nats-py, Celery, RQ and others, and write docs/explanation/peers.*
	$(RUN_PEERS)
	$(PEERS_PATH) $(PY) -m peers --page

.PHONY: test-peers
test-peers: build servers $(PEERS)/.made
	$(PY) -m pytest tests/bench
	$(RUN_PEERS) --short

SIZING := PYTHONPATH=examples/antenna NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) $(BENCH)/sizing.py

.PHONY: sizing
sizing: build servers $(VENV)/.bench ## Measure many queues and many processes, and write docs/explanation/sizing.md
	$(SIZING) --page docs/explanation/sizing.md

.PHONY: test-sizing
test-sizing: build servers $(VENV)/.bench
	$(SIZING) --short

FAULTS := PYTHONPATH=tests/tools $(PY) tests/faults/run_faults.py

.PHONY: faults
faults: build servers ## Make 200 calls of each operation under each fault, and write docs/reference/faults.md
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(FAULTS) --table docs/reference/faults.md

.PHONY: test-faults
test-faults: build servers
	$(PY) -m pytest tests/faults
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(FAULTS) --short
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER_OLDEST) $(FAULTS) --short --fault 'disk full' --fault 'kill -9 and restart'

.PHONY: soak
soak: build servers ## Show that nothing grows over 200,000 calls and 1,000 forked children
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) tests/bench/soak.py

.PHONY: test-soak
test-soak: build servers
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) tests/bench/soak.py --short

# What has to do with processes and signals is a matter of moments: one good run proves little.
TIMES ?= 200
MOMENTS := promise_8 or promise_9 or cancel or closed or daemon or tasks_of or forks_out

.PHONY: repeat
repeat: build servers ## Run the tests of forks, signals and cancelled calls TIMES=200 times in a row
	NATSLEASE_REPEAT=$(TIMES) NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) -m pytest -q -x -k "$(MOMENTS)" \
		tests/python/test_promise_04_asyncio.py tests/python/test_promise_08_fork.py \
		tests/python/test_promise_09_interrupt.py tests/python/test_exit.py

CHAOS := tests/chaos/chaos.py
CHECKER := tests/chaos/linearizable

$(BIN)/linearizable: $(wildcard $(CHECKER)/*)
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -C $(CHECKER) -buildvcs=false -trimpath -o $(CURDIR)/$@ .
	@touch $@

.PHONY: chaos
chaos: build servers $(BIN)/linearizable ## Kill, freeze and restart everything 100 times, and account for 100,000 tasks
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) $(CHAOS)
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) $(CHAOS) --cluster

.PHONY: test-chaos
test-chaos: build servers $(BIN)/linearizable
	go vet -C $(CHECKER) ./...
	go test -C $(CHECKER) ./...
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER) $(PY) $(CHAOS) --short
	NATSLEASE_NATS_SERVER=$(CURDIR)/$(SERVER_OLDEST) $(PY) $(CHAOS) --short --cluster

.PHONY: lock
lock: venv ## Renew the locked Python requirements
	$(PY) -m pip install --quiet uv
	@cd requirements; set --; for name in dev wheel bench peers browser docs types; do \
		$(CURDIR)/$(PY) -m uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --upgrade "$$@" -o $$name.txt $$name.in; \
		set -- "$$@" -c $$name.txt; done; \
	$(CURDIR)/$(PY) -m uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --upgrade -o django-oldest.txt django-oldest.in

.PHONY: clean
clean: ## Remove what make made
	rm -rf build dist $(VENV) python/*.egg-info python/natslease/_natslease.abi3.so
