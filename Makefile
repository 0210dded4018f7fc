# `make demo` and `make test` do all their own set-up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
SAMPLE = src/adaptok/assets/walk.mp4

.PHONY: demo test clean
demo: $(VENV)/installed
	mkdir -p out
	$(BIN)/adaptok reconstruct $(SAMPLE) out/demo.mp4 --budget 192 --compare-uniform --side-by-side --plot out/demo.png --force
	@echo "Look at out/demo.mp4 and out/demo.png"

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) out
