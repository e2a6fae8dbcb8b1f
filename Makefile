# Every target does its own set-up; repeated, it takes no time. GNU make 3.81 (macOS) or newer.
#
#   PYTHON=python3.12   the interpreter that makes .venv (3.11 or newer)
#   WORKERS=2           processes that run the tests
#   MODEL=timm:resnet101   another model for the page, fetched once
#   TESTS=tests/nbdt/test_rules.py   only these

PYTHON ?= python3
WORKERS ?= 2
TESTS ?=
MODEL ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TYPES := $(VENV)/types
FOLDERS := nbdt hierarchies train explain demo
PROSE := $(FOLDERS) tests benchmarks tools docs deploy README.md CHANGELOG.md Makefile hubconf.py
SOURCES := $(shell find $(FOLDERS) -name '*.py' -o -name py.typed)

.PHONY: help install test demo docs lint format types clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## Create .venv with the package and all its extras.

test: install  ## Run the tests.
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

demo: install  ## Open the page on 127.0.0.1:7860.
	$(BIN)/nbdt demo $(if $(MODEL),--model $(MODEL))

docs: $(TYPES)/installed  ## Build the documentation in site/.
	NBDT_INSTALLED=$$($(TYPES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: install  ## Check style and layout.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(PROSE)

format: install  ## Fix what can be fixed.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TYPES)/installed  ## Check the types of the package as a wheel installs it.
	cd $(TYPES) && ../bin/python -m mypy -p nbdt --python-executable bin/python \
	  --config-file $(CURDIR)/pyproject.toml --cache-dir cache

clean:  ## Remove everything that the other targets made.
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .hypothesis
	find $(FOLDERS) tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# torch comes first and by its bare version, so that a CPU build is taken where one is on offer.
# The build backend is pinned like the rest, so builds need no isolation.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@echo "Installing into $(VENV); the first time takes minutes."
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" \
	  "$$(grep '^setuptools==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt \
	  -e '.[demo,postgres,train,export,scale,docs,dev]'
	touch $@

# The wheel is built from a copy, since setuptools would carry a removed file along in build/. The
# second environment holds it alone and borrows the libraries of the first, without running its
# .pth files: the editable install stays out of sight.
$(TYPES)/installed: $(INSTALLED) $(SOURCES)
	rm -rf $(TYPES)/source $(TYPES)/wheel
	mkdir -p $(TYPES)/source
	cp -R $(FOLDERS) pyproject.toml README.md LICENSE $(TYPES)/source
	$(BIN)/python -m build --wheel --no-isolation --outdir $(TYPES)/wheel $(TYPES)/source > /dev/null
	test -x $(TYPES)/bin/python || $(BIN)/python -m venv --without-pip $(TYPES)
	site=$$($(TYPES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$site/base.pth && \
	  rm -rf $$site/nbdt* && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-index --target $$site $(TYPES)/wheel/*.whl
	touch $@
