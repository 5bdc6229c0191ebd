# make book PYTHON=python3.12 PORT=9000: both settings may be left out. README.md gives it all in plain commands.
PYTHON ?= python3
PORT ?=
BIN = .venv/bin

.PHONY: book html pdf epub lab test slow bench clean environment

book: html
	@$(BIN)/python tools/serve.py $(if $(PORT),--port $(PORT))

html: environment
	$(BIN)/jupyter-book build . -W -n --keep-going

pdf epub: html
	$(BIN)/python tools/other_forms.py $@

lab: environment
	$(BIN)/jupyter lab book

# Everything; then the package's tests again, with the shapes of each function checked as it is called (the exercises
# call what learners write, which declares none); then every chapter.
test: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist loadgroup
	$(BIN)/pytest -n auto -m "not (slow or gpu or browser or bad_input or compiled)" \
		--jaxtyping-packages=transformer_lab,beartype.beartype \
		--ignore=tests/book --ignore=tests/tools --ignore=tests/js \
		--ignore=tests/exercises --ignore=transformer_lab/exercises
	$(BIN)/pytest --nbval --nbval-current-env --nbval-sanitize-with=tests/book/nbval.cfg \
		-n auto --dist loadscope book/

slow: environment
	$(BIN)/pytest -m slow

bench: html
	$(BIN)/python -m benchmarks.attention
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.number_words
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.load

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache .import_linter_cache

environment:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON) here: install Python 3.11 to 3.13, or name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) tools/environment.py
