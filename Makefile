# Four commands: `make demo`, `make figures` (the README's figures), `make docs` (the pages as a site)
# and `make test`. All set up .venv first; nothing outside this folder is changed.
VENV := .venv
BIN := $(VENV)/bin
LINKS := $(VENV)/editable
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools
DOCS := $(VENV)/.docs

.PHONY: demo figures docs test check links clean

demo: $(INSTALLED)
	rm -rf demo_output
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node 2 -m mapflow run \
		--model mapflow_llava --intervention full,effective,random --output_path demo_output
	@echo "to go on: source $(VENV)/bin/activate && mapflow compare demo_output"

figures: $(INSTALLED)
	rm -rf figures_output
	OMP_NUM_THREADS=1 $(BIN)/python -m mapflow.harness.reporting.bundled_figures figures_output --output results/figures

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs_output/index.html: to search in it, $(BIN)/python -m http.server -d docs_output"

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

$(INSTALLED): pyproject.toml setup.py
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	$(MAKE) --no-print-directory links
	touch $@

# What only tests and checks need (a browser driver, a type checker with its Node.js).
$(TOOLS): $(INSTALLED)
	$(BIN)/pip install --quiet --editable ".[dev]"
	# For its JSON schemas only: no code of it runs, so neither its Python nor its packages matter.
	$(BIN)/pip install --quiet --no-deps --ignore-requires-python "every-eval-ever>=0.3"
	touch $@

$(DOCS): $(INSTALLED)
	$(BIN)/pip install --quiet --editable ".[dev,docs]"
	touch $@

# `mapflow.*` as links to the four code folders, for type checkers and editors, which cannot follow
# setuptools' import hook. Links show new files at once: nothing has to be installed again.
links:
	mkdir -p $(LINKS)/mapflow
	for file in __init__.py __main__.py py.typed; do \
		ln -sfn "$(CURDIR)/harness/package_root/$$file" $(LINKS)/mapflow/$$file; done
	for floor in harness tasks model_adapters results; do \
		ln -sfn "$(CURDIR)/$$floor" $(LINKS)/mapflow/$$floor; done
	echo "$(CURDIR)/$(LINKS)" > "$$($(BIN)/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')/mapflow_links.pth"

clean:
	rm -rf $(VENV) demo_output docs_output figures_output build dist *.egg-info
