# `make demo` shows the main job, `make test` runs every check, `make quick` the fast tests alone.
# All set everything up themselves: a virtual environment in .venv with Python 3.11 or later.
# PYTHON=... chooses another interpreter. Versions are those of constraints.txt; CONSTRAINTS= takes the
# newest instead.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.ready-dev

.PHONY: demo test quick lint typecheck docs constraints clean

demo: $(READY)
	$(BIN)/tfq-sv demo --out=demo

# Two processes: each holds a TensorFlow and its networks, some 3 GB. A file stays in one of them;
# files with slow tests come first (tests/conftest.py). One thread in each: more would only wait for
# each other.
PYTEST := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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

# The site, in site/: every page and the API reference. Warnings, such as a broken link, are errors.
docs: $(READY)
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

INSTALL := $(BIN)/pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

# Of what `make test` has just passed with. Local versions (torch 2.13.0+cpu) are on no index.
constraints: $(TOOLS)
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/pip freeze --exclude-editable | sed -n 's/^\([^ @+]*==[^ @+]*\).*/\1/p'; } > constraints.new
	mv constraints.new constraints.txt

$(READY): setup.py pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tfq-sv needs Python 3.11 or later; found $$($(PYTHON) --version). Try make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "This Python cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(INSTALL) -e '.[demo]'
	@touch $@

# Apart, because the demo needs neither PyTorch nor the checkers.
$(TOOLS): $(READY)
	$(INSTALL) -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf build dist *.egg-info packaging/runtime/build packaging/runtime/*.egg-info demo site
