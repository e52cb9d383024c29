# The interface of the project. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint check nightly bench mutants audit notices constraints clean

demo: $(VENV)/.run
	$(BIN)/tuning demo

test: lint
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: test

nightly: $(VENV)/.dev
	$(BIN)/pytest -m "nightly or not nightly"

# Which changes to the tasks, the scores and the grid no test notices: an hour or more on two cores.
mutants: $(VENV)/.dev
	$(BIN)/pip install --quiet -c constraints.txt mutmut==3.8.1
	$(BIN)/mutmut run
	$(BIN)/mutmut results

bench: $(VENV)/.run
	$(BIN)/python benchmarks/run.py

# Are there known vulnerabilities in the exact versions? Asks the package index, and fails when it does not know them.
# pip-audit has an environment of its own: what it needs is no business of ours.
audit: $(VENV)/audit/bin/pip-audit
	$< --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

$(VENV)/audit/bin/pip-audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet 'pip-audit>=2.9,<3'

# The licences in NOTICE, as the installed packages state them.
notices: $(VENV)/.dev
	$(BIN)/python tools/notices.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.run

# Exact versions of everything that one environment holds; the local suffix of a CPU build of torch is left out.
constraints: $(VENV)/.dev
	{ echo "# Exact versions, made by make constraints. Every install uses them."; $(BIN)/pip freeze --exclude-editable --exclude tuning | sed "s/+cpu$$//"; } > constraints.new && mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache .hypothesis mutants
