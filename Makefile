# tracebridge: everything here works on a fresh machine that has make and Python 3.11 or newer.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?=
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := $(VENV)-lowest

# What an agent may have beside tracebridge: tests set it there.
BESIDE := langfuse opentelemetry-sdk opentelemetry-exporter-otlp $(addprefix opentelemetry-instrumentation-,grpc httpx requests urllib3)

.PHONY: help
help: ## Show this list
	@echo "usage: make TARGET [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

# The first interpreter that runs, is new enough and can make environments. A command of that name may exist and
# not run (version managers put placeholders on the PATH), so each one is tried.
define make-environment
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        found=$$python; break; \
	    fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "make: no Python 3.11 or newer with its venv module was found (tried: $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3))." >&2; \
	    echo "      Install one (Debian and Ubuntu: apt-get install python3 python3-venv)," >&2; \
	    echo "      or name one: make PYTHON=/path/to/python3 ..." >&2; \
	    exit 1; \
	fi; \
	echo "installing tracebridge and its tools into $(1), with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(1)
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(call make-environment,$(VENV))
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	    $(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@

# What constraints-lowest.txt does not name is as in constraints.txt.
$(LOWEST)/.installed: pyproject.toml constraints.txt constraints-lowest.txt
	$(call make-environment,$(LOWEST))
	@awk -F '==' '/^#/ { next } NR == FNR { lowest[tolower($$1)]; print; next } !(tolower($$1) in lowest)' \
	    constraints-lowest.txt constraints.txt > $(LOWEST)/constraints.txt
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$(LOWEST)/constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	    $(LOWEST)/bin/python -m pip install --quiet --editable '.[all,compare,testing]' $(BESIDE) \
	    pytest-randomly pytest-timeout pytest-xdist
	@touch $@

.PHONY: install
install: $(INSTALLED) ## Make the environment, with every extra and tool

.PHONY: demo
demo: $(INSTALLED) ## A whole migration in under a minute (ARGS='--input FILE.jsonl' runs your own chats)
	@$(BIN)/tracebridge demo $(ARGS)

.PHONY: test
test: $(INSTALLED) ## Run the tests (ARGS='-k name' picks some)
	@$(BIN)/python -m pytest -n auto $(ARGS)

# Half a gigabyte that one slow test needs.
$(VENV)/.installed-spark: $(INSTALLED)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	    $(BIN)/python -m pip install --quiet --editable '.[spark]'
	@touch $@

.PHONY: test-slow
test-slow: $(VENV)/.installed-spark ## Run the tests that `make test` leaves out
	@$(BIN)/python -m pytest -m slow $(ARGS)

.PHONY: test-laws
test-laws: $(INSTALLED) ## Try the laws on five times as many examples as `make test` does
	@TRACEBRIDGE_EXAMPLES_TIMES=5 $(BIN)/python -m pytest -n auto -m "hypothesis and not slow" --timeout 900 $(ARGS)

.PHONY: servers
servers: $(INSTALLED) ## Build the real servers of the tests, Jaeger and a Collector, into a cache (needs Go 1.26; once)
	@$(BIN)/python -m tests.servers

.PHONY: test-servers
test-servers: servers ## Run the tests that need real servers (some of them are slow, too: `make test-slow` runs those)
	@$(BIN)/python -m pytest -n auto -m "real_server and not slow" $(ARGS)

.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed ## Run the adapters' tests with the lowest versions that are allowed
	@$(LOWEST)/bin/python -m pytest -n auto tests/langfuse tests/otel tests/otlp tests/contract tests/coexistence tests/correlation $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## Check style, format and the rules of who may import what
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo

.PHONY: types
types: $(INSTALLED) ## Check the types
	@$(BIN)/mypy

.PHONY: check
check: lint types test ## All of lint, types and test

.PHONY: format
format: $(INSTALLED) ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(INSTALLED) ## Measure what tracing costs the agent's thread
	@$(BIN)/python benchmarks/caller.py $(ARGS)

.PHONY: test-kill
test-kill: $(INSTALLED) ## Kill recording, shipping, backfilling and deleting at each of their system calls (an hour)
	@$(BIN)/python -m pytest -m slow tests/durability/test_kill.py -s --every-call $(ARGS)

.PHONY: soak
soak: $(INSTALLED) ## Break everything at random for 5 minutes, then account for every event (ARGS='--seconds 60 --seed 1')
	@$(BIN)/python -m soak $(ARGS)

.env: ## Make random secrets for docker-compose.langfuse.yml, once
	@deploy/make-env.sh $@
	@echo "Start LangFuse: docker compose -f docker-compose.langfuse.yml up -d --wait"

langfuse.env: ## The same into a file of another name, for --env-file
	@deploy/make-env.sh $@
	@echo "Start LangFuse: docker compose --env-file $@ -f docker-compose.langfuse.yml up -d --wait"

.PHONY: clean
clean: ## Remove the environment, caches and builds
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
