# Two commands do all the set-up: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BROKER ?= auto
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export ORT_DISABLE_TELEMETRY := 1
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1

.PHONY: help install demo test test-slow test-assets lint bench lock clean

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("menjin needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## Make .venv with everything in it (pinned, by hash)

demo: $(STAMP) ## The whole story end to end, hardware simulated (BROKER=mosquitto or embedded)
	$(VENV)/bin/hil demo --broker $(BROKER)

test: $(STAMP) ## The default tests: under three minutes
	$(PY) -m pytest
	@echo "left out: the slow suite (make test-slow), real models and photos (make test-assets)"

test-slow: $(STAMP) ## The slow suite: long fuzzing, many examples
	MENJIN_HYPOTHESIS=slow $(PY) -m pytest -m 'slow and not assets'

test-assets: $(STAMP) ## Real models and photos: MENJIN_TEST_ASSETS=folder
	$(PY) -m pytest -m assets

lint: $(STAMP) ## ruff and mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP) ## Figures as ratios to a named peer or limit, in one run
	$(VENV)/bin/hil bench

# opencv-python (named by insightface) and opencv-python-headless share one cv2 folder: only the
# headless one is installed.
lock: $(STAMP) ## Resolve requirements.lock again (needs uv)
	printf 'opencv-python ; python_version < "3"\n' > build-override.txt
	printf 'setuptools>=77\n' | uv pip compile pyproject.toml - --extra hil --extra dev \
	  --override build-override.txt --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --quiet -o requirements.lock
	rm -f build-override.txt

clean: ## Remove what make made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
