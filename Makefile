# What developers and CI run. `make` alone lists the targets; PYTHON=python3.12 make test picks another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install check test demo sample sample-media tables test-weights test-elsewhere clean

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

# Days on one GPU, and resumed by the same command. BASELINES= leaves out SoundingEarth's three lines of Table 2.
BASELINES ?= native contrastive batch
LOSS_native := triplet
LOSS_contrastive := infonce
LOSS_batch := batch_triplet

tables: $(INSTALLED) ## both tables of the GeoBind paper beside its numbers, on the real data: make tables DATA=/datasets
	@test -d "$(DATA)" || { echo "make tables DATA=FOLDER, which holds sat2cap/ and soundingearth/: recipes/geobind.yaml"; exit 1; }
	$(BIN)/geobind bind recipes/geobind.yaml --set data=$(DATA) --out runs/tables/geobind
	$(foreach name,$(BASELINES),$(BIN)/geobind bind recipes/soundingearth.yaml --set data=$(DATA) \
		--set stages.0.links.0.loss=$(LOSS_$(name)) --out runs/tables/soundingearth-$(name) &&) true
	$(BIN)/python scripts/published_tables.py runs/tables

test-weights: $(INSTALLED) ## compare with the published CLIP and CLAP; downloads them
	$(BIN)/pytest -m weights

# Environments of their own: what such libraries bring along may break the package's.
test-elsewhere: $(INSTALLED) ## sentence-transformers opens an export, mteb runs a space; installs both
	$(PYTHON) -m venv .elsewhere/st && .elsewhere/st/bin/pip install --quiet -c constraints.txt torch sentence-transformers pillow
	$(PYTHON) -m venv .elsewhere/mteb && .elsewhere/mteb/bin/pip install --quiet -c constraints.txt -e . mteb
	GEOBIND_ST_PYTHON=$(CURDIR)/.elsewhere/st/bin/python GEOBIND_MTEB_PYTHON=$(CURDIR)/.elsewhere/mteb/bin/python \
	  HF_HUB_OFFLINE=1 $(BIN)/pytest tests/interop/test_sentence_transformers.py tests/interop/test_mteb.py

clean: ## remove .venv, caches and build leftovers; runs/ stays
	rm -rf $(VENV) .elsewhere build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find geobind tests -name __pycache__ -type d -prune -exec rm -rf {} +
