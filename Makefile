# Everything a fresh machine needs: python3 with venv and pip. `make demo` and `make test` do the rest.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: demo test test-all lint wheel docs site clean help

help:
	@echo "make demo      install, draw a data set, train, validate, detect (TASK=pose: another task)"
	@echo "make test      install, lint, check types, run the fast tests"
	@echo "make test-all  the slow tests too"
	@echo "make lint      ruff and mypy"
	@echo "make wheel     build dist/*.whl"
	@echo "make docs      write docs/SETTINGS.md and docs/moving.md from the settings classes"
	@echo "make site      build the documentation as a site in site/"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/holdfast demo $(if $(TASK),--task $(TASK) --folder demo-$(TASK))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow or not slow"

wheel: $(STAMP)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist site

docs: $(STAMP)
	$(BIN)/python -c "from holdfast.cli.flags import settings_page; print(settings_page())" > docs/SETTINGS.md
	$(BIN)/python -c "from holdfast.cli.moving import moving_page; print(moving_page())" > docs/moving.md

site: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict
