# The project's everyday commands; `make help` lists them. Needs Python 3.11 or newer, pip, make.

PYTHON ?= python3
DIST ?= dist
PLOTLY ?= 4.1.1
RUN ?= runs/agiqa-3k/grouped
BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALLED := .venv/.installed

# DVC's stages call `agiqa` by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help venv demo test check docs evidence house mutations scorer screenshots build constraints plotly clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

venv: $(INSTALLED) ## create .venv with the pinned dependencies and agiqa itself

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agiqa needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (about 3 GB, some minutes the first time)"
	@# Python 3.11's own pip takes minutes to choose what one of today chooses in seconds.
	@$(PIP) install --upgrade 'pip>=26'
	@# torch first and alone, so that no other requirement picks its build. Where Linux has no NVIDIA
	@# GPU that of PyTorch's own index for CPUs: PyPI's brings 4 GB of CUDA.
	@index=; if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi > /dev/null; then \
	  index='--retries 1 --extra-index-url https://download.pytorch.org/whl/cpu'; fi; \
	$(PIP) install --no-compile --constraint constraints.txt --no-deps $$index torch
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]'
	@# Bytecode on all cores; some packages hold templates that are no Python.
	@$(BIN)/python -m compileall -qq -j 0 $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") || true
	@touch $@

demo: venv ## images to scores and a report, on a data set that the project makes itself
	@$(BIN)/agiqa nano
	@test -e .git || $(BIN)/dvc config --local core.no_scm true # unpacked from an archive
	@$(BIN)/dvc repro report@demo-grouped
	@echo "Open in a browser: runs/demo/grouped/report.html"
	@echo "All protocols of params.yaml: $(BIN)/dvc repro"

test: venv ## run the tests, on all cores
	@# With bytecode: rewriting the tests' assertions anew takes as long as importing torch.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: venv ## lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: venv ## build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict
	@echo "Open site/index.html, or $(BIN)/mkdocs serve"

evidence: venv ## hold the figures in README's and docs' tables against their result files and sources
	@$(BIN)/python docs/making/evidence.py

house: venv ## count lines by floor, layers, the longest import chain, long functions ...
	@$(BIN)/python docs/making/house.py

mutations: venv ## break ten lines, one at a time; a test has to fail each
	@$(BIN)/python docs/making/mutations.py

scorer: venv ## fit the scorer that comes with agiqa anew; FROM=folder of AGIQA-3K
	@$(BIN)/python docs/making/scorer.py $(FROM)

screenshots: venv ## pictures for the docs, of RUN=runs/agiqa-3k/grouped; IMAGES=folder
	@$(BIN)/python docs/making/screenshots.py $(RUN) $(if $(IMAGES),--images $(IMAGES))

build: venv ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --outdir $(DIST) . > /dev/null
	@ls $(DIST)/*.whl

constraints: ## write constraints.txt anew, from the newest versions that fit together
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && \
	"$$folder/bin/python" -m pip install --quiet "$$(grep '^torch==' constraints.txt)" && \
	"$$folder/bin/python" -m pip install --quiet --editable '.[dev,timm]' && \
	{ grep '^#' constraints.txt && \
	  "$$folder/bin/python" -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new && \
	mv constraints.new constraints.txt

plotly: ## fetch the report's Plotly anew, of version PLOTLY=4.1.1
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	npm pack --silent --pack-destination "$$folder" plotly.js-basic-dist-min@$(PLOTLY) > /dev/null && \
	tar -xzf "$$folder"/*.tgz -C "$$folder" && \
	cp "$$folder"/package/plotly-basic.min.js "$$folder"/package/LICENSE pipeline/agiqa/views/report/plotly/

clean: ## remove what tools left behind; .venv, cache/ and runs/ stay
	@rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
