# A fresh machine needs Python 3.11 or newer with pip, and make; everything else goes into .venv.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
READY := .venv/.ready
# A process a core; a file of tests stays in one, since its fixtures are made once.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: run test check lint format train bench

run: $(READY)
	@echo "Drawing a bench left of a teddy bear ..."
	@picture=$$($(BIN)/janus-kit generate "a bench left of a teddy bear" --seed 1 -o out) && \
	echo "The picture is $$picture" && \
	echo "Asking the same model what it sees there ..." && \
	$(BIN)/janus-kit caption "$$picture"

test: $(READY)
	$(PYTEST)

check: lint
	$(PYTEST)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: $(READY)
	$(BIN)/janus-kit train embedded

bench: $(READY)
	$(BIN)/python benchmarks/bench.py

# torch goes first and alone: with it installed, the ranges of the second line add no other one.
# Another build or version: make TORCH=torch==2.12.0
$(READY): pyproject.toml $(wildcard generation/native/*.[ch])
	@echo "Setting up .venv; the first time takes some minutes ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install "$(TORCH)"
	@$(PIP) install -e ".[dev]"
	@touch $@
