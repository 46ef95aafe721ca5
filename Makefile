# Two commands: `make lab` opens the course, `make test` checks all of it. `make` alone lists the rest.
# What they do is in kit.py, for those who have no make as well.

PYTHON ?= python3
ARGS   ?=
JOBS   ?= 2
PY     := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help lab fresh test install test-install coverage rehearse faults notebooks assignments picture upgrade clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

lab: ## open the course in JupyterLab (ARGS=--no-browser prints the address instead)
	@$(PYTHON) kit.py lab $(ARGS)

fresh: ## put a fresh copy of a notebook into my_notebooks, beside yours (ARGS=02)
	@$(PYTHON) kit.py fresh $(ARGS)

test: ## run ruff, pytest, and every notebook (ARGS=tests/c2f/models picks)
	@$(PYTHON) kit.py test --numprocesses $(JOBS) $(ARGS)

install: ## make or renew the environment .venv, as the other targets do too
	@$(PYTHON) kit.py install

test-install: install ## build one more environment from environment.yml's pip section and try it (minutes, 6 GB)
	$(PY) -m pytest -m install tests/test_environment.py $(ARGS)

coverage: install ## run pytest and report the lines and branches of c2f/ that no test reaches
	$(PY) -m pytest --cov=c2f tests $(ARGS)

rehearse: install ## run the kit as on CUDA and as on an Apple GPU, pretended, and write the counts (minutes)
	$(PY) -m tests.notebooks.rehearsal --write

faults: install ## break trainings and their files on purpose; count what survives (minutes; docs/faults.md)
	$(PY) tests/faults/campaign.py $(ARGS)

notebooks: install ## run every notebook in a fresh kernel and store its outputs (ARGS=notebooks/02*.ipynb picks)
	$(PY) docs/store_notebooks.py $(ARGS)

assignments: install ## make what students and graders need from the assignments' sources
	$(PY) -m c2f course build

picture: install ## draw the README's pictures again
	$(PY) docs/draw_convmod.py
	$(PY) docs/draw_explorer.py

upgrade: install ## renew constraints.txt: the newest versions that pyproject.toml and Python 3.11.0 admit
	$(PY) docs/renew_constraints.py
	@$(PYTHON) kit.py install
	@git --no-pager diff --stat constraints.txt
	@echo "The environment has the new set. Next: make test, and commit constraints.txt if it passes."

clean: ## remove the environment and what the tools left behind
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .coverage htmlcov dist
	find c2f tests docs -name __pycache__ -prune -exec rm -rf {} +
