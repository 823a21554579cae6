# Two commands matter: `make demo` and `make test`. Every target makes the environment it needs first.
PYTHON ?= python3
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-quick test-oldest test-newest lint format types docs docs-serve wheel mutants \
  bench docs-table hooks clean

##@ Begin here

help:  ## Print this list.
	@awk -F ':.*## ' '/^##@ /{print "\n" substr($$0, 5)} /^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## Make .venv and install the package in it, with all that demo, tests and docs need.

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

demo: install  ## Train a small network on real digits with the callback; a few minutes on two cores.
	$(BIN)/python examples/demo.py

##@ Before you commit

test: lint types  ## Check style and types, run all doctests and tests: what CI runs.
	$(BIN)/pytest --numprocesses 2 --dist worksteal

test-quick: install  ## Run the doctests and what every member promises; the part worth running after each change.
	$(BIN)/pytest --quiet lightning_camrobust tests/contracts tests/test_layers_of_imports.py

lint: install  ## Say what breaks the style, without changing a file.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## Change files to the style, as far as a program can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## Check the types of the package.
	$(BIN)/mypy

hooks: install  ## Let git run lint and types before each commit.
	$(BIN)/pre-commit install

##@ Documentation

docs: install  ## Build the documentation site in build/site; a warning is an error.
	$(BIN)/mkdocs build --strict

docs-serve: install  ## Show the site at http://localhost:8000 and rebuild it whenever a page changes.
	$(BIN)/mkdocs serve

##@ Before a release

test-oldest:  ## Run the tests on Python 3.10 with the oldest versions that pyproject.toml allows; in .venv-oldest.
	$(OLDEST_PYTHON) -m venv .venv-oldest
	PIP_CONSTRAINT= .venv-oldest/bin/pip install --quiet --editable '.[test]' --constraint constraints/oldest.txt
	.venv-oldest/bin/pytest -W default $(ARGS)  # what old libraries warn of is not ours to mend

test-newest:  ## Run the tests on Python 3.13 with the newest versions there are; in .venv-newest.
	$(NEWEST_PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test]' $(if $(PINS),--constraint $(PINS))
	.venv-newest/bin/pytest $(ARGS)

wheel: install  ## Build the source distribution and the wheel in dist, and install and test those.
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --no-isolation
	DISTRIBUTIONS=dist $(BIN)/pytest --quiet tests/packaging/test_distributions.py tests/packaging/test_dependencies.py

mutants: install  ## Break the maths on purpose, a seeded sample of lines, and count what the tests notice; some hours.
	$(BIN)/python -m tests.mutation --output build/mutants.jsonl
	$(BIN)/python -m tests.mutation --output build/mutants.jsonl --again --seconds 30
	$(BIN)/python -m tests.mutation --output build/mutants.jsonl --control
	$(BIN)/python -m tests.mutation --output build/mutants.jsonl --report

##@ Numbers in the docs

bench: install  ## Measure docs/performance.md anew; a quarter of an hour, alone on the machine. CIFAR is an .npz file.
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks $(if $(CIFAR),--cifar $(CIFAR))

docs-table: install  ## Measure docs/imagenet-table.md anew; some minutes. IMAGES is a folder of ImageNet pictures.
	$(BIN)/python examples/imagenet_checkpoint.py --images $(IMAGES) --num-samples 200 --methods gradcam \
	  gradcam_plusplus xgradcam hirescam layercam eigencam ablationcam --table docs/imagenet-table.md

##@ Tidy up

clean:  ## Remove the environments and all that was built.
	rm -rf .venv .venv-oldest .venv-newest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache lightning_logs
