# `make demo` shows the main job, `make test` runs every check, `make quick` the fast tests alone.
# All set everything up themselves: a virtual environment in .venv with Python 3.11 or later.
# PYTHON=... chooses another interpreter.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.ready-dev

.PHONY: demo test quick lint typecheck clean

demo: $(READY)
	$(BIN)/tfq-sv demo --out=demo

# Two processes: each holds a TensorFlow and its networks, some 3 GB. A file stays in one of them;
# files with slow tests come first (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint typecheck
	$(PYTEST)

# Without the tests that are marked as slow.
quick: $(TOOLS)
	$(PYTEST) -q -m 'not slow'

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(TOOLS)
	$(BIN)/mypy tfq_sv

$(READY): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tfq-sv needs Python 3.11 or later; found $$($(PYTHON) --version). Try make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "This Python cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[demo]'
	@touch $@

# Apart, because the demo needs neither PyTorch nor the checkers.
$(TOOLS): $(READY)
	$(BIN)/pip install --quiet -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf build dist *.egg-info demo
