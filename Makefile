# make test    the test suite, on every backend (BACKEND=jax: on that one)
# make demo    the quickstart (BACKEND=jax or torch instead of tensorflow)
# make matrix  the test suite with the oldest supported Keras, then with the newest
# make bench   speed and memory against plain cross-entropy (about half an hour)
# make lint    style checks; make format repairs what it can
# make build   the wheel, installed and imported from another folder
# make clean   removes what these create

PYTHON ?= python3
VENV := .venv
BACKENDS := torch jax tensorflow
# These only infer: the tests that need gradients are deselected.
INFERENCE_BACKENDS := openvino numpy
# OpenVINO compiles whatever is computed. What combines functions that it is tested
# with is left to the other backends.
NOT_ON_OPENVINO := loss_bounds presets study_models tuning
TESTS := $(addprefix test-,$(BACKENDS) $(INFERENCE_BACKENDS))
DEMO_BACKEND := $(or $(BACKEND),tensorflow)
DEMO_VENV := .venv-demo-$(DEMO_BACKEND)

export TF_CPP_MIN_LOG_LEVEL ?= 2
# The tests' tensors are small; more threads only wait for each other there.
test: export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help test test-across test-once $(TESTS) matrix demo bench lint format build clean
help:
	@grep '^# make' Makefile | cut -c3-

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --upgrade pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --group dev --editable '.[demo]'
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --no-deps keras-hub
	touch $@

$(DEMO_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install --quiet --constraint constraints.txt --upgrade pip
	$(DEMO_VENV)/bin/pip install --quiet --constraint constraints.txt --group $(DEMO_BACKEND) --editable '.[demo]'
	touch $@

PYTEST = $(VENV)/bin/python -m pytest --quiet -p no:cacheprovider
define one_benchmark
KERAS_BACKEND=$(1) $(VENV)/bin/python -m benchmarks.clipped_cross_entropy

endef

# Two at a time, for a test takes one core; the longest first.
test: $(VENV)/installed
	@echo "Tests run on two backends at a time; each prints its results when it is done."
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going $(if $(BACKEND),test-$(BACKEND),$(TESTS) test-across) test-once

$(TESTS): test-%: $(VENV)/installed
	KERAS_BACKEND=$* $(PYTEST) --ignore=tests/across \
	$(if $(filter openvino,$*),$(NOT_ON_OPENVINO:%=--ignore=tests/test_%.py)) \
	-m 'not once$(if $(filter $*,$(INFERENCE_BACKENDS)), and not gradients)'

# What depends on no backend, on one that trains without compiling.
test-once: $(VENV)/installed
	KERAS_BACKEND=torch $(PYTEST) --ignore=tests/across -m once

test-across: $(VENV)/installed
	$(PYTEST) tests/across

# The oldest versions that pyproject.toml allows, as far as their files are still
# offered; and the newest Keras with the pinned versions of all else.
matrix:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --constraint constraints-oldest.txt --upgrade pip
	.venv-oldest/bin/pip install --quiet --constraint constraints-oldest.txt \
	--group tensorflow --group jax --group torch --group test --editable '.[demo]'
	touch .venv-oldest/installed
	$(MAKE) test VENV=.venv-oldest INFERENCE_BACKENDS=numpy
	$(PYTHON) -m venv .venv-newest
	grep -v '^keras==' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/pip install --quiet --constraint .venv-newest/constraints.txt --upgrade pip
	.venv-newest/bin/pip install --quiet --constraint .venv-newest/constraints.txt \
	--upgrade keras --group dev --editable '.[demo]'
	touch .venv-newest/installed
	$(MAKE) test VENV=.venv-newest

demo: $(DEMO_VENV)/installed
	KERAS_BACKEND=$(DEMO_BACKEND) $(DEMO_VENV)/bin/python examples/quickstart.py

bench: $(VENV)/installed
	$(foreach backend,$(or $(BACKEND),$(BACKENDS)),$(call one_benchmark,$(backend)))

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

build: $(VENV)/installed
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation
	$(VENV)/bin/pip install --quiet --no-deps --target dist/installed dist/*.whl
	cd dist && PYTHONPATH=installed KERAS_BACKEND=numpy ../$(VENV)/bin/python -c "\
	import keras_logitclip; print('wheel', keras_logitclip.__version__, keras_logitclip.__file__)"

clean:
	rm -rf .venv .venv-* dist quickstart.png .pytest_cache .ruff_cache
