# Every target makes .venv first and installs what it needs, if it is missing or the requirements changed.
PYTHON ?= python3
N ?= 04
BIN = .venv/bin
RUN = $(BIN)/python

.PHONY: help lab test lesson dashboard bench checkpoint world text build picture readme
help:            ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

lab: .venv/ready            ## open JupyterLab on the lessons
	$(BIN)/jupyter lab

lesson: .venv/ready         ## run one notebook without a browser and print its verdict: make lesson N=04
	@$(RUN) tools/notebooks.py run $(N)

dashboard: .venv/ready      ## open the sampling dashboard
	cd 07_entropy_plotter && ../$(BIN)/streamlit run dashboard.py

test: .venv/ready-dev       ## lint, then run every test and every notebook
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(RUN) -m pytest

bench: .venv/ready-dev      ## measure against peers: time and memory as ratios
	$(RUN) tests/benchmarks/bench_bpe.py
	$(RUN) tests/benchmarks/bench_skipgram.py
	$(RUN) tests/benchmarks/bench_attention.py
	$(RUN) tests/benchmarks/bench_norms.py
	$(RUN) tests/benchmarks/bench_tiny_lm.py
	$(RUN) tests/benchmarks/bench_world.py
	$(RUN) tests/benchmarks/bench_dashboard.py

world: .venv/ready          ## the story world: its floors, a story, and how near the trained model is to the truth
	$(RUN) -m shared.world --report

checkpoint: .venv/ready     ## train the story model anew (about two hours on two cores; goes on if interrupted)
	$(RUN) -m shared.pretrain
	$(RUN) -m shared.world --pictures

text: .venv/ready-dev       ## write a notebook as a script to edit: scratch/<name>.py
	$(RUN) tools/notebooks.py text $(N)

build: .venv/ready-dev      ## run scratch/<name>.py (or the notebook itself) into the stored notebook
	$(RUN) tools/notebooks.py build $(N)

picture: .venv/ready-dev    ## take the README's picture of the dashboard anew (needs a Chromium)
	$(RUN) tools/served.py

readme: .venv/ready-dev     ## write the README's tables and pictures from the stored notebooks
	$(RUN) tools/readme.py
