# Two commands: `make lab` opens the course, `make test` checks all of it. `make` alone lists the rest.

PYTHON ?= python3
ARGS   ?=
JOBS   ?= 2
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/ready
EXTRAS := lab,test

# JupyterLab refuses to run as root without being told to; in a container everybody is root.
LAB := --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root)
# Without this Lab asks each newcomer whether it may fetch news, and looks for updates.
define WITHOUT_NEWS
@mkdir -p $(VENV)/etc/jupyter/labconfig
@echo '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' \
	> $(VENV)/etc/jupyter/labconfig/page_config.json
endef

.DEFAULT_GOAL := help
.PHONY: help lab test test-install coverage notebooks assignments picture upgrade clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

lab: $(READY) ## open the course in JupyterLab (ARGS=--no-browser prints the address instead)
	$(PY) -m jupyterlab $(LAB) notebooks/00_start_here.ipynb $(ARGS)

test: $(READY) ## run ruff, pytest, and every notebook (ARGS=tests/models picks)
	$(PY) -m ruff check
	$(PY) -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

test-install: $(READY) ## build one more environment from environment.yml's pip section and try it (minutes, 6 GB)
	$(PY) -m pytest -m install tests/test_environment.py $(ARGS)

coverage: $(READY) ## run pytest and report the lines and branches of c2f/ that no test reaches
	$(PY) -m pytest --cov=c2f tests $(ARGS)

notebooks: $(READY) ## run every notebook in a fresh kernel and store its outputs (ARGS=notebooks/02*.ipynb picks)
	$(PY) docs/store_notebooks.py $(ARGS)

assignments: $(READY) ## make what students and graders need from the assignments' sources
	$(PY) -m c2f course build

picture: $(READY) ## draw the README's picture again
	$(PY) docs/draw_convmod.py

# torch itself pins the CUDA libraries and triton that belong to it, exactly. Repeated here they would only stand in
# the way of whoever needs another build of torch, for an older driver or without CUDA.
upgrade: ## renew constraints.txt: the newest versions that pyproject.toml's ranges admit
	rm -rf $(VENV) && mkdir $(VENV) && echo "$(CURDIR)" > $(VENV)/installing
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -e '.[$(EXTRAS)]'
	$(PY) -m pip freeze --all --exclude pip --exclude-editable > $(VENV)/set
	{ grep '^#' constraints.txt; grep -vE '^(cuda|nvidia)-|^triton==' $(VENV)/set; } > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt
	$(WITHOUT_NEWS)
	@mv $(VENV)/installing $(READY) && touch $(READY)
	@git --no-pager diff --stat constraints.txt
	@echo "The environment has the new set. Next: make test, and commit constraints.txt if it passes."

clean: ## remove the environment and what the tools left behind
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .coverage htmlcov dist
	find c2f tests docs -name __pycache__ -prune -exec rm -rf {} +

# `installing` is there from the first to the last moment of an installation. Where it is found beforehand, an earlier
# one was cut off, and half a package can pass for a whole one: so begin again (pip's cache still has the downloads).
#
# $(READY) holds the folder it was made for: after a move or a rename the environment is put right once.
ifneq "$(CURDIR)" "$(shell cat $(READY) 2> /dev/null)"
.PHONY: $(READY)
endif
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "c2f needs Python 3.11 or newer, and '$(PYTHON)' is not: try make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "'$(PYTHON)' cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@if [ -e $(VENV)/installing ]; then echo "an earlier installation was cut off: beginning again"; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && echo "$(CURDIR)" > $(VENV)/installing && rm -f $(READY)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	$(WITHOUT_NEWS)
	@mv $(VENV)/installing $(READY)
