# Three commands: `make demo`, `make figures` (the README's pictures) and `make test`. All set up .venv first; nothing outside this folder is touched.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo figures test check clean

demo: $(INSTALLED)
	rm -rf demo_output
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node 2 -m mapflow.harness.lmms_eval_command \
		--model mapflow_llava --intervention full,effective,random --output_path demo_output

figures: $(INSTALLED)
	rm -rf figures_output
	OMP_NUM_THREADS=1 $(BIN)/python -m mapflow.harness.bundled_figures figures_output --output results/figures

test: $(INSTALLED) check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

$(INSTALLED): pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]" --config-settings editable_mode=strict
	touch $@

clean:
	rm -rf $(VENV) demo_output figures_output build dist *.egg-info
