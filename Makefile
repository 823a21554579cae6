# Two commands matter: `make demo` and `make test`. Both make their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test lint types bench docs-table clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## Make .venv and install the package with everything that demo and tests need

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

demo: install  ## Train a small network on real digits with the callback (a few minutes on two cores)
	$(BIN)/python examples/demo.py

lint: install  ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## Check types
	$(BIN)/mypy

test: lint types  ## Check style and types, run all doctests and tests
	$(BIN)/pytest

bench: install  ## Measure docs/performance.md anew (a quarter of an hour, alone on the machine); CIFAR is an .npz file
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks $(if $(CIFAR),--cifar $(CIFAR))

docs-table: install  ## Measure docs/imagenet-table.md anew (some minutes); IMAGES is a folder of ImageNet pictures
	$(BIN)/python examples/imagenet_checkpoint.py --images $(IMAGES) --num-samples 200 --methods gradcam \
	  gradcam_plusplus xgradcam hirescam layercam eigencam ablationcam --table docs/imagenet-table.md

clean:  ## Remove the environment and all that was built
	rm -rf $(VENV) build dist *.egg-info runs lightning_logs .pytest_cache .mypy_cache .ruff_cache
