# Everyday commands; `make` alone lists them. Each one first installs what it needs, once.
# Settings go behind the command: make test PYTHON=python3.12 VENV=/scratch/venv

# 3.11 first, because the lock was made on it; any later Python that has wheels will do.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV ?= .venv
# Further options of the pip call that installs torch, e.g. the index of another build.
TORCH_ARGS ?=
CORES ?= all
# Further options of Snakemake in `make demo` and `make real`, e.g. --resources gpu=1.
SNAKEMAKE_ARGS ?=
# Not empty: `make real` runs config/smollm2-short.yaml.
SHORT ?=
# One file of tests stays in one worker, so that what its tests share is built once.
PYTEST_ARGS ?= -n 2 --dist loadfile

# Both are stated once, elsewhere: the oldest Python in pyproject.toml, torch in the lock.
OLDEST := $(shell sed -n 's/^requires-python *= *">= *\([0-9.]*\)".*/\1/p' pyproject.toml)
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)

DONE := $(VENV)/.installed
BUSY := $(VENV)/.installing
PIP = "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check
ACTIVATE = . "$(VENV)/bin/activate"

# Run a campaign, print its leaderboard, and fail if either does: $(call campaign,name[,options])
campaign = status=0 && \
  { snakemake --cores $(CORES) --configfile config/$(1).yaml $(2) $(SNAKEMAKE_ARGS) || status=$$?; } && \
  { prunebench report results/$(1) || [ $$status -ne 0 ] || status=$$?; } && exit $$status

REAL := smollm2-135m-instruct
# Without a folder of data it comes from the Hugging Face hub.
REAL_DATA = $(if $(PRUNEBENCH_DATA),,--config 'data={source: hub}')

export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install demo real test browser lint plan bench clean distclean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(DONE) ## Run the embedded campaign to the end and print its leaderboard
	@$(ACTIVATE) && $(call campaign,demo)

real: $(DONE) ## Fetch a language model and run every method on it: a day (SHORT=1: an hour)
	@$(ACTIVATE) && prunebench fetch $(REAL) models/$(REAL) && \
	$(call campaign,smollm2$(if $(SHORT),-short),$(REAL_DATA))

test: $(DONE) ## Run the tests (PYTEST_ARGS="-x tests/test_record.py" runs some of them)
	@$(ACTIVATE) && HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1 PRUNEBENCH_LOCKED=1 \
	python -m pytest $(PYTEST_ARGS)

browser: ## Install the browser that tests the report's page (Debian, Ubuntu; as root)
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then \
	  echo "chromium and chromedriver are here already"; \
	else \
	  apt-get update -q && apt-get install -y -q --no-install-recommends chromium chromium-driver; \
	fi

lint: $(DONE) ## Check types with mypy, style with ruff, rules with snakefmt
	@$(ACTIVATE) && ruff check . && ruff format --check . && mypy && \
	for file in $(wildcard Snakefile workflow/Snakefile workflow/rules/*.smk); do \
	  snakefmt --check "$$file" || exit 1; \
	done

plan: $(DONE) ## Dry-run every campaign file (with stand-ins for models and data)
	@$(ACTIVATE) && HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 python -m pytest -q -m "slow or not slow" tests/workflow/test_plans.py

bench: $(DONE) ## List the benchmarks, or run one of them: make bench NAME=... [BENCH_ARGS=...]
ifdef NAME
	@$(ACTIVATE) && python "benchmarks/$(NAME).py" $(BENCH_ARGS)
else
	@for file in $(wildcard benchmarks/[a-z]*.py); do \
	  printf '%-24s %s\n' "$$(basename "$$file" .py)" "$$(sed -n '1s/^"""//; 1s/"""$$//; 1p' "$$file")"; \
	done
endif

install: $(DONE) ## Only install: the virtual environment with the locked versions

# An installation that was cut off or failed can leave packages half written that pip takes for whole
# ones, so the next one starts from an empty folder. BUSY holds the process id of the make at work.
$(DONE): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(OLDEST)".split("."))))' || \
	{ echo "prunebench needs Python $(OLDEST) or later; '$(PYTHON)' is:" \
	  "$$($(PYTHON) --version 2>&1 || true). Name one that will do: make PYTHON=python3.11 ..." >&2; exit 1; }
	@if [ -e "$(BUSY)" ]; then \
	  if kill -0 "$$(cat "$(BUSY)")" 2>/dev/null; then \
	    echo "Another make is installing into $(VENV); wait for it, or remove $(BUSY)" >&2; exit 1; \
	  fi; \
	  echo "The last installation into $(VENV) did not finish: starting afresh"; rm -rf "$(VENV)"; \
	fi
	@mkdir -p "$(VENV)" && echo $$PPID > "$(BUSY)"
	@[ -x "$(VENV)/bin/python" ] || $(PYTHON) -m venv "$(VENV)"
	@echo "Installing $(TORCH) into $(VENV)"
	@$(PIP) $(TORCH_ARGS) $(TORCH)
	@echo "Installing the other locked versions (a few minutes the first time)"
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch "$(DONE)" && rm -f "$(BUSY)"

clean: ## Remove caches and the demo's results; the environment and other campaigns stay
	rm -rf results/demo .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## As clean, and remove the virtual environment too
	@if [ -e "$(DONE)" ] || [ -e "$(BUSY)" ]; then rm -rf "$(VENV)"; fi
