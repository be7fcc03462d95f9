# `make demo` and `make test` do all set-up themselves; see README.md.
PYTHON ?= python3
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-long lint smoke serve stop bench gpu-bench clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/ready
	.venv/bin/e2urec unlearn sample tiny-t5 e2urec

test: .venv/ready lint
	.venv/bin/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# Whole stories and benchmarks whose parts `make test` has tested already.
test-long: .venv/ready
	.venv/bin/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m long

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# The real MovieLens rows, where they lie beside the project.
smoke: .venv/ready
	.venv/bin/e2urec unlearn ml-1m tiny-t5 e2urec --dataset.path ../shared/data/ml-1m-tail --preset smoke

# A Prefect server, an MLflow server and workers on this machine; see docs/deployments.md.
serve: .venv/ready
	.venv/bin/e2urec serve

stop: .venv/ready
	.venv/bin/e2urec stop

# Every benchmark in its quick form; see benchmarks/README.md.
bench: .venv/ready
	for name in unlearning all_in utilisation cache_memory kill_loss prepare scale forgotten_users serving polluted fan_out orchestration; do \
		OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false .venv/bin/python -m benchmarks.$$name --quick || exit 1; \
	done

# On a bare machine with a GPU: it needs torch, transformers, peft, accelerate, pyarrow, pydantic and jaxtyping, and no .venv.
gpu-bench:
	$(PYTHON) -m benchmarks.gpu

clean:
	rm -rf .venv workspace
