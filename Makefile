# Needs Python 3.11 or newer and make. Everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint format types bench peers zoo fuzz docs site ci clean

help:
	@echo "make demo     install into .venv, read some digits, time ResNeSt-50"
	@echo "make test     run the tests"
	@echo "make lint     ruff: style and formatting; import-linter: who may import whom"
	@echo "make types    mypy, strict"
	@echo "make format   let ruff rewrite the sources"
	@echo "make bench    milliseconds, GFLOP/s and share of peak of ResNeSt-50, batch 1 and 8"
	@echo "make peers    ResNeSt-50 against other engines (installs them, torch among them)"
	@echo "make zoo      55 networks that people serve: right? how fast beside others? (hours)"
	@echo "make fuzz     the tests on generated graphs, many more of them"
	@echo "make docs     draw the pictures in docs/ anew"
	@echo "make site     the documentation as a site, in build/site"
	@echo "make ci       what the project's CI runs, in an environment of its own"
	@echo "make clean    remove .venv, caches and build output"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no python3.11 or python3 found; set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; set PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps say which extras the environment has. The package is linked, so sources are never stale.
$(VENV)/.plain: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.test $(VENV)/.dev $(VENV)/.bench $(VENV)/.zoo $(VENV)/.docs: $(VENV)/.%: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[$*]'
	@touch $@ $(VENV)/.plain

demo: $(VENV)/.plain
	$(BIN)/python examples/demo.py

test: $(VENV)/.test
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.plain
	$(BIN)/lucid bench resnest_50
	$(BIN)/lucid bench resnest_50 --batch 8

peers: $(VENV)/.bench
	$(BIN)/python benchmarks/peers.py --threads 2

zoo: $(VENV)/.zoo
	$(BIN)/python benchmarks/zoo.py --markdown docs/models.md

fuzz: $(VENV)/.test
	$(BIN)/pytest --hypothesis-profile=fuzz -m hypothesis

docs: $(VENV)/.plain
	$(BIN)/python docs/draw_block.py docs/block.svg

site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

ci:
	PYTHON=$(PYTHON) .ci/run

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
