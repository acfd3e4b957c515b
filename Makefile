# Minutes are those of two cores after the installation.
#
# make test               what every change has to pass (15 minutes)
# make test BACKEND=jax   the same on one backend, and what depends on none (8)
# make test-all           all that follows, too (an hour)
# make test-groups        the groups, each of which can be run alone (13):
# make test-openvino        inference on Keras's OpenVINO backend (3)
# make test-export          checkpoints, exported and quantized models (2)
# make test-tools           scikit-learn, KerasTuner, cleanlab, KerasHub, type checkers, the site (5)
# make test-distribution    several devices and processes; all backends agree (3)
# make test-processes       searches and studies that are killed and go on (8)
# make test-examples        the examples, the README's code, the benchmarks' command (4)
# make test-oldest        test and test-groups with the oldest supported versions (20)
# make test-newest        test and test-groups with the newest Keras (20)
# make faults             whether the tests catch planted faults (three quarters of an hour)
# make kills              studies that are killed a hundred times (20 minutes)
# make fuzz SECONDS=600   random draws against the float64 reference, on each backend
# make demo               the quickstart (BACKEND=jax or torch instead of tensorflow)
# make bench              speed and memory against plain cross-entropy (half an hour)
# make docs               the documentation as a site, in the folder site
# make docs-serve         the same at http://localhost:8000, built anew after each change
# make lint               style, and the files of the public CI; make format repairs style
# make build              the wheel, installed and imported from another folder
# make release            the same, its metadata, and the README's code with it on each backend
# make clean              removes what these create

PYTHON ?= python3
VENV := .venv
# Those that train.
BACKENDS := tensorflow jax torch
# In the order in which two at a time end first.
TESTS := $(if $(BACKEND),test-$(BACKEND) test-once,\
	test-jax test-tensorflow test-once test-torch test-numpy)
GROUPS := $(addprefix test-,processes tools examples distribution openvino export)
SECONDS := 600
DEMO_BACKEND := $(or $(BACKEND),tensorflow)
DEMO_VENV := .venv-demo-$(DEMO_BACKEND)

export TF_CPP_MIN_LOG_LEVEL ?= 2
# The tests' tensors are small; more threads only wait for each other there.
test% fuzz: export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help test test-all test-groups test-once test-numpy $(BACKENDS:%=test-%)
.PHONY: $(GROUPS) test-oldest test-newest faults fuzz kills demo bench lint format
.PHONY: docs docs-serve build release clean
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
KERAS_BACKEND=$(1) $(VENV)/bin/python -m benchmarks.clipped_cross_entropy --cores 1 --no-memory
KERAS_BACKEND=$(1) $(VENV)/bin/python -m benchmarks.fit_step --cores 1

endef

# Without the groups, which are folders of tests.
CORE := tests --ignore-glob='tests/*/*'

# Two targets at a time, because a test takes one core.
IN_PAIRS = $(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going

test: $(VENV)/installed
	@echo "Two backends are tested at a time. Each prints its results at its end."
	@$(IN_PAIRS) $(TESTS)

test-all: test test-groups test-oldest test-newest

test-groups: $(VENV)/installed
	@echo "Two groups are tested at a time. Each prints its results at its end."
	@$(IN_PAIRS) $(GROUPS)

$(BACKENDS:%=test-%) test-numpy test-openvino: test-%: $(VENV)/installed
	KERAS_BACKEND=$* $(PYTEST) $(CORE) -m 'not once'

# What depends on no backend, on one that trains without compiling.
test-once: $(VENV)/installed
	KERAS_BACKEND=torch $(PYTEST) $(CORE) -m once

# Runs a folder of tests under each backend in turn, also after a failure.
define on_backends
@failed=; for backend in $(or $(BACKEND),$(1)); do \
	echo "$@, $$backend"; \
	if [ $$backend = torch ]; then marks=; else marks='not once'; fi; \
	KERAS_BACKEND=$$backend $(PYTEST) $(@:test-%=tests/%) -m "$$marks" || failed=1; \
done; test -z "$$failed"
endef

test-export: $(VENV)/installed
	$(call on_backends,$(BACKENDS) numpy openvino)

test-tools test-examples: $(VENV)/installed
	$(call on_backends,$(BACKENDS))

# These start processes of every backend.
test-distribution test-processes: $(VENV)/installed
	KERAS_BACKEND=torch $(PYTEST) $(@:test-%=tests/%)

# The oldest versions that pyproject.toml allows, as far as their files are still
# offered. Together, they warn of much. OpenVINO is not among them, and several
# devices need a newer JAX, the file of another backend a newer Keras on PyTorch.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --constraint constraints-oldest.txt --upgrade pip
	.venv-oldest/bin/pip install --quiet --constraint constraints-oldest.txt \
	--group tensorflow --group jax --group torch --group test --editable '.[demo]'
	touch .venv-oldest/installed
	PYTEST_ADDOPTS='-W default' $(MAKE) test test-groups VENV=.venv-oldest \
	GROUPS='$(filter-out test-openvino test-distribution,$(GROUPS))'

# The newest Keras, with the pinned versions of all else.
test-newest:
	$(PYTHON) -m venv .venv-newest
	grep -v '^keras==' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/pip install --quiet --constraint .venv-newest/constraints.txt --upgrade pip
	.venv-newest/bin/pip install --quiet --constraint .venv-newest/constraints.txt \
	--upgrade keras --group dev --editable '.[demo]'
	touch .venv-newest/installed
	PYTEST_ADDOPTS='-W default' $(MAKE) test test-groups VENV=.venv-newest

# Those that have a result for the same source are not run again.
faults: $(VENV)/installed
	$(VENV)/bin/python -m tests.faults

# Under each backend in turn, also after a failure.
fuzz: $(VENV)/installed
	@failed=; for backend in $(or $(BACKEND),$(BACKENDS)); do \
	KERAS_BACKEND=$$backend $(VENV)/bin/python -m tests.fuzz --seconds $(SECONDS) \
	|| failed=1; done; test -z "$$failed"

demo: $(DEMO_VENV)/installed
	KERAS_BACKEND=$(DEMO_BACKEND) $(DEMO_VENV)/bin/python examples/quickstart.py

bench: $(VENV)/installed
	$(foreach backend,$(or $(BACKEND),$(BACKENDS)),$(call one_benchmark,$(backend)))

kills: $(VENV)/installed
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.processes.kills

# Material advertises its successor otherwise.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/installed
	$(VENV)/bin/python -m mkdocs build --strict

docs-serve: $(VENV)/installed
	$(VENV)/bin/python -m mkdocs serve

SCHEMA := $(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.
FORMS := .github/ISSUE_TEMPLATE/
lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)github-issue-forms $(filter-out $(FORMS)config.yml,$(wildcard $(FORMS)*.yml))
	$(SCHEMA)github-issue-config $(FORMS)config.yml
	$(SCHEMA)citation-file-format CITATION.cff

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

build: $(VENV)/installed
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation
	$(VENV)/bin/pip install --quiet --no-deps --target dist/installed dist/*.whl
	cd dist && PYTHONPATH=installed KERAS_BACKEND=numpy ../$(VENV)/bin/python -c "\
	import keras_logitclip; print('wheel', keras_logitclip.__version__, keras_logitclip.__file__)"
	cd dist && PYTHONPATH=installed KERAS_BACKEND=numpy installed/bin/keras-logitclip --version

# In an environment of its own, first as small as users may have it, then with what the
# test needs. The sources there have no package, so that the one of the wheel is tested.
define wheel_on
$(PYTHON) -m venv --clear .venv-release-$(1)
.venv-release-$(1)/bin/pip install --quiet --constraint constraints.txt --upgrade pip
.venv-release-$(1)/bin/pip install --quiet --constraint constraints.txt --group $(1) dist/*.whl
KERAS_BACKEND=$(1) .venv-release-$(1)/bin/keras-logitclip --version
.venv-release-$(1)/bin/pip install --quiet --constraint constraints.txt --group test \
"$$(ls dist/*.whl)[cleaning,study]"
cd dist/sources && KERAS_BACKEND=$(1) ../../.venv-release-$(1)/bin/python -m pytest --quiet \
-p no:cacheprovider tests/examples -k README

endef

release: build
	$(VENV)/bin/python -m twine check --strict dist/*.tar.gz dist/*.whl
	mkdir dist/sources
	tar -xzf dist/*.tar.gz -C dist/sources --strip-components 1
	rm -r dist/sources/keras_logitclip
	$(foreach backend,$(or $(BACKEND),$(BACKENDS)),$(call wheel_on,$(backend)))
	@version=$$($(VENV)/bin/python -m hatchling version); \
	echo "The two files in dist are ready. Nothing is tagged or uploaded. Next:"; \
	echo "  git tag v$$version && git push origin v$$version"; \
	echo "  $(VENV)/bin/python -m twine upload dist/*.tar.gz dist/*.whl"

clean:
	rm -rf .venv .venv-* .cache dist site quickstart.png .pytest_cache .ruff_cache
