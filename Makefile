# Every target does its own set-up in $(VENV), with the versions that constraints.txt pins.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN = $(VENV)/Scripts
else
BIN = $(VENV)/bin
endif
PIP = $(BIN)/python -m pip install --quiet --constraint constraints.txt
SAMPLE = src/adaptok/assets/walk.mp4

# Arguments of pytest, as in `make test TESTS="tests/codec -m 'not slow'"`.
TESTS ?= -n auto -m "not docs"

# The lowest versions need a Python that has wheels for them.
LOWEST_PYTHON ?= 3.10
LOWEST_VENV ?= .venv-lowest
LOWEST_TESTS ?= -n auto -m "not slow and not ray and not docs"

# Lengths of `make fuzz` and `make crash`; other arguments go through FUZZ and CRASH, as in
# `make fuzz FUZZ="token_files --count 30000 --seed 1"`.
MINUTES ?= 30
KILLS ?= 100
FUZZ ?= --minutes $(MINUTES)
CRASH ?= --kills $(KILLS)

.PHONY: demo test lint docs notebooks fuzz crash long audit test-lowest lock clean

demo: $(VENV)/installed
	mkdir -p out
	$(BIN)/adaptok reconstruct $(SAMPLE) out/demo.mp4 --budget 384 --compare-uniform --side-by-side --plot out/demo.png --force
	@echo "Look at out/demo.mp4 and out/demo.png"

test: lint
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mypy
	$(BIN)/$(STRICT)

# As a script of a user is checked against the types of the package; errors inside the package are reported above.
STRICT = mypy --strict --follow-imports=silent examples/typed_example.py

# Runs the examples of every page, and builds the site. Warnings, such as links without a target, are errors.
docs: $(VENV)/installed-docs $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto -m docs
	$(BIN)/python -m sphinx --builder html --quiet --fail-on-warning --keep-going docs out/docs
	@echo "Open out/docs/index.html"

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[eval]"
	touch $@

# lpips goes without its dependency torchvision, which must match torch exactly and which no test needs.
$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps lpips
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable ".[docs]"
	touch $@

# Executes the notebooks of examples/ into out/notebooks; `make notebooks SAVE=1` also replaces the saved outputs.
notebooks: $(VENV)/installed-dev
	$(BIN)/python examples/run_notebooks.py $(if $(SAVE),--save)

# Damaged and hostile files, for MINUTES. Inputs that fail are saved in out/fuzz, with the number that repeats them.
fuzz: $(VENV)/installed-dev
	ADAPTOK_EXAMPLES=10000 $(BIN)/python -m pytest tests/fuzz/test_properties.py
	$(BIN)/python -m tests.fuzz $(FUZZ)

# Commands that are killed KILLS times each, finished, and compared with undisturbed runs.
crash: $(VENV)/installed-dev
	$(BIN)/python -m tests.crash $(CRASH)

# Memory, open files and threads of ten minutes of video and of 5,000 training clips.
long: $(VENV)/installed-dev
	$(BIN)/python benchmarks/long_video.py
	$(BIN)/python benchmarks/long_runs.py

# Known vulnerabilities of the versions in constraints.txt. Needs the network; a package without an answer is an error.
audit: $(VENV)/installed-dev
	$(BIN)/uv tool run pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

test-lowest: $(VENV)/installed-dev
	$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) $(LOWEST_VENV)
	VIRTUAL_ENV=$(LOWEST_VENV) $(BIN)/uv pip install --quiet --resolution lowest-direct --editable ".[dev]"
	$(LOWEST_VENV)/bin/python -m pytest $(LOWEST_TESTS)

# Recompiles constraints.txt; commit the result once `make test` and `make demo` have passed with it.
lock: $(VENV)/installed-dev
	( echo "# Versions that CI and make install, compiled on $$(date +%Y-%m-%d) by 'make lock' for Python 3.10 to 3.14:"; \
	  echo "# $(LOCK)"; $(BIN)/$(LOCK) --no-header --quiet ) > constraints.new
	mv constraints.new constraints.txt

LOCK = uv pip compile --universal --upgrade --python-version 3.10 --extra dev --extra docs --no-annotate --config-file .ci/lock.toml .ci/lock.in pyproject.toml

clean:
	rm -rf $(VENV) $(LOWEST_VENV) out build dist src/*.egg-info
