# Everything sets itself up in .venv; a fresh machine needs Python 3.11 or newer, git and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test browser lint bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/tapath run search_spaces/demo.yaml

test: setup
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# A real browser for the tests of the report: Debian's, where there is none.
browser:
	command -v chromedriver > /dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	for file in $(filter-out benchmarks/chaos.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv build *.egg-info runs store mlflow.db
