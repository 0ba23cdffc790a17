# Every target first sees to .venv: tools/set_up.py makes it, or says in words why it cannot.
PYTHON ?= python3
CORES ?= 2
N ?= 04
BIN = .venv/bin
RUN = $(BIN)/python
NAMED = $(if $(filter file,$(origin PYTHON)),,--named)
SET_UP = command -v $(PYTHON) >/dev/null || { \
	echo "There is no $(PYTHON) here. Install Python 3.11 or newer and name it: make PYTHON=python3.12"; exit 1; }; \
	$(PYTHON) tools/set_up.py $(NAMED) requirements.txt

.PHONY: help .venv/ready .venv/ready-dev lab test lesson clinic dashboard bench checkpoint verify world text build picture readme
help:            ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

.venv/ready:
	@$(SET_UP)

.venv/ready-dev:
	@$(SET_UP) requirements-dev.txt

lab: .venv/ready            ## open JupyterLab on the lessons
	JUPYTER_PATH= $(BIN)/jupyter lab

lesson: .venv/ready         ## run one notebook without a browser and print its verdict: make lesson N=04
	@$(RUN) tools/notebooks.py run $(N)

clinic: .venv/ready         ## find out what ails a program: make clinic, or make clinic P="04 any"
	@$(RUN) -m shared.clinic $(P)

dashboard: .venv/ready      ## open the sampling dashboard
	cd 07_entropy_plotter && ../$(BIN)/streamlit run dashboard.py

test: .venv/ready-dev       ## lint, then run every test and every notebook, on two cores: make test CORES=1 for one
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(RUN) -m pytest -n $(CORES)

bench: .venv/ready-dev      ## measure against peers: time and memory as ratios
	$(RUN) tests/benchmarks/bench_bpe.py
	$(RUN) tests/benchmarks/bench_skipgram.py
	$(RUN) tests/benchmarks/bench_attention.py
	$(RUN) tests/benchmarks/bench_norms.py
	$(RUN) tests/benchmarks/bench_tiny_lm.py
	$(RUN) tests/benchmarks/bench_generation.py
	$(RUN) tests/benchmarks/bench_smollm2.py
	$(RUN) tests/benchmarks/bench_kv_cache.py
	$(RUN) tests/benchmarks/bench_window.py
	$(RUN) tests/benchmarks/bench_gqa.py
	$(RUN) tests/benchmarks/bench_moe.py
	$(RUN) tests/benchmarks/bench_int8.py
	$(RUN) tests/benchmarks/bench_ppo.py
	$(RUN) tests/benchmarks/bench_world.py
	$(RUN) tests/benchmarks/bench_dashboard.py

world: .venv/ready          ## the story world: its floors, a story, and how near the trained model is to the truth
	$(RUN) -m shared.story_model --report

checkpoint: .venv/ready     ## train the story model anew (about two hours on two cores; goes on if interrupted)
	$(RUN) -m shared.story_model.pretrain
	$(RUN) -m shared.story_model --pictures

verify: .venv/ready         ## run a sample of each stored sweep again: does today's code give what is stored?
	@status=0; for sweep in [01][0-9]_*/*_sweep.py; do $(RUN) $$sweep --verify --workers 2 || status=1; done; exit $$status

text: .venv/ready-dev       ## write a notebook as a script to edit: scratch/<name>.py
	$(RUN) tools/notebooks.py text $(N)

build: .venv/ready-dev      ## run scratch/<name>.py (or the notebook itself) into the stored notebook
	$(RUN) tools/notebooks.py build $(N)

picture: .venv/ready-dev    ## take the README's picture of the dashboard anew (needs a Chromium)
	$(RUN) tools/served.py

readme: .venv/ready-dev     ## write the README's tables and pictures from the stored notebooks
	$(RUN) tools/readme.py
