# Every target sets up .venv from the lock first. Without make: pip install -r requirements.lock -e . and then the
# same commands as below with your Python.
PYTHON ?= python3
BIN := .venv/bin
PROFILE ?= nano
OUT ?= runs
# What is imported is compiled once, at the end of the set-up: most of what pip would compile never is.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: study test lab notebooks gpu-check lock clean

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11, 5) and sys.exit("Python 3.11.5 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -c "import ipykernel.kernelapp, papermill.__main__, rftkit.study.batch"
	touch $@

study: .venv/.ready  ## the CPU study: notebooks 01-04 (or NOTEBOOKS=06,10, NOTEBOOKS=all), three seeds (SEEDS=10: as the archived study has), then the table beside the archived one and a report
	$(BIN)/python -m rftkit.cli study --profile $(PROFILE) $(if $(NOTEBOOKS),--only $(NOTEBOOKS)) $(if $(SEEDS),--seeds $(SEEDS)) --out $(OUT)

test: .venv/.ready  ## lint and all tests, every notebook headless included
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lab: .venv/.ready  ## JupyterLab on the notebooks
	$(BIN)/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

notebooks: .venv/.ready  ## execute the notebooks with the parameters that stand in them, and store them so (or NOTEBOOKS="00 01")
	$(BIN)/python -m rftkit.tools.stored $(NOTEBOOKS)

gpu-check: .venv/.ready  ## on a CUDA device, at most 8 minutes: three steps of gpu-2b and the bench of 2b, beside the estimates, into data/benchmarks/gpu-check.json
	$(BIN)/python -m rftkit.tools.gpu_check

lock:  ## write requirements.lock anew from pyproject.toml
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0 "setuptools>=77"
	build/lock/bin/python -m pip install --quiet -e ".[dev]"
	(echo "# What CI installs, by pip; written by 'make lock'." && build/lock/bin/python -m pip freeze --all \
	  --exclude-editable --exclude pip | sed 's/^torch==.*/torch==2.13.0/') > requirements.lock

clean:
	rm -rf .venv build runs
