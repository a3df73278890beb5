# What developers and CI run. `make` alone lists the targets; PYTHON=python3.12 make test picks another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install check test demo sample sample-media test-weights clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

install: $(INSTALLED) ## build .venv with the versions of constraints.txt

# torch first and alone, so that an installation cut short is quick to take up again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

check: $(INSTALLED) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check ## what CI runs: check, then every test that needs no network
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 --dist worksteal

demo: $(INSTALLED) ## a miniature Earth, bound and drawn in minutes: runs/demo/report.html
	$(BIN)/geobind demo --out runs/demo

sample: $(INSTALLED) ## bind and evaluate on the feature files of ../shared/sample
	$(BIN)/geobind bind recipes/sample.yaml --out runs/sample
	$(BIN)/geobind evaluate runs/sample

sample-media: $(INSTALLED) ## the same from its images, sounds and captions (minutes)
	$(BIN)/geobind bind recipes/sample-media.yaml --out runs/sample-media
	$(BIN)/geobind evaluate runs/sample-media

test-weights: $(INSTALLED) ## compare with the published CLIP and CLAP; downloads them
	$(BIN)/pytest -m weights

clean: ## remove .venv, caches and build leftovers; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find geobind tests -name __pycache__ -type d -prune -exec rm -rf {} +
