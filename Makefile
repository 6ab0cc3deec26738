# One verb a line; the first use of a set installs it into .venv.
PYTHON ?= python3
BIN := .venv/bin
LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt $(LINKS)
LAWS := tests/laws/test_architecture.py tests/laws/test_shape.py tests/laws/test_kept_records.py tests/laws/test_results.py

.PHONY: demo test test-everywhere golden check fuzz kills lint speed gpu docs wheel clean

demo: .venv/demo  ## train, retrain, unlearn, attack, report on digits: about a minute
	$(BIN)/unrecall demo --out unrecall-demo

test: .venv/dev  ## everything that needs nothing outside this repository
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

golden: .venv/dev  ## eight runs by the revision REV and by this one: every number that differs (about 6 minutes)
	rm -rf build/golden && git worktree prune && git worktree add --detach --force build/golden/code $(or $(REV),HEAD~1)
	PYTHONPATH=build/golden/code/src $(BIN)/python tests/end_to_end/golden.py keep build/golden/before
	PYTHONPATH=src $(BIN)/python tests/end_to_end/golden.py keep build/golden/after
	$(BIN)/python tests/end_to_end/golden.py compare build/golden/before build/golden/after

check: lint  ## style, types and the laws that run no audit: under a minute
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(LAWS)

test-everywhere: .venv/dev  ## the tests six times, as six processors would run them
	sh tests/everywhere.sh $(BIN)/pytest -n 2 --dist loadfile

fuzz: .venv/dev  ## COUNT bad inputs from SEED, 2,000 from 0: each is one line, and leaves nothing (about 10 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.end_to_end.fuzz $(or $(COUNT),2000) $(or $(SEED),0)

kills: .venv/dev  ## COUNT kills at random file operations from SEED, 100 from 0: the same records, nothing left (about 15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.end_to_end.kills $(or $(COUNT),100) $(or $(SEED),0)

lint: .venv/dev  ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

speed: .venv/dev  ## races: ratios against a bare loop or a peer in the same run
	$(BIN)/python -m speed

gpu: .venv/dev  ## the same on one GPU, in at most 12 minutes; records go to results/gpu
	$(BIN)/python recipes/gpu.py results/gpu

docs: .venv/docs  ## the documentation as a site
	$(BIN)/mkdocs build --quiet --strict

wheel: .venv/dev  ## dist/unrecall-*.whl
	$(BIN)/uv build --quiet --wheel

clean:  ## everything that make made
	rm -rf .venv dist build site unrecall-demo

.venv/bin/uv: constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt uv
	@touch $@

.venv/demo: .venv/bin/uv pyproject.toml
	$(INSTALL) -e .
	@touch $@

.venv/dev: .venv/bin/uv pyproject.toml
	$(INSTALL) -e '.[llm,datasets,attest,graphs]' --group dev
	$(INSTALL) --no-deps torchattacks
	@touch $@ .venv/demo

.venv/docs: .venv/dev
	$(INSTALL) --group docs
	@touch $@
