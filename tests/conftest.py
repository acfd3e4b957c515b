import tempfile
from collections import namedtuple
from shutil import which

import keras
import pytest

from tests.running import BACKEND
from tests.running import INFERENCE_ONLY

# The mode of tests that check compiled arithmetic. It takes seconds, and needs a C++
# compiler.
COMPILED = "inductor" if which("g++") or which("clang++") else "aot_eager"

# The modes of each backend, the plain one first. With "aot_eager", torch.compile traces
# a function but does not translate it to C++.
MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "jit"),
    "torch": ("eager", "aot_eager"),
    "numpy": ("eager",),
    "openvino": ("eager",),
}[BACKEND]
# The quickest mode for many functions that are each called once.
QUICKEST = "jit" if BACKEND == "jax" else "eager"
DTYPES = ("float16", "bfloat16") + (() if INFERENCE_ONLY else ("float64",))

Run = namedtuple("Run", "mode dtype")

# Test files for a single backend.
collect_ignore = [
    f"test_{name}.py" for name in ("jax", "tensorflow", "torch") if name != BACKEND
]


def runs(*modes):
    """Returns float32 in every mode, other dtypes in the quickest mode, and half
    precision in the last mode, where casts are fused away."""
    all_runs = [
        *(Run(mode, "float32") for mode in modes),
        *(Run(QUICKEST, dtype) for dtype in DTYPES),
        *(Run(mode, "float16") for mode in modes[1:][-1:]),
    ]
    return list(dict.fromkeys(all_runs))


def pytest_configure(config):
    """Gives JAX an empty folder for compiled functions.

    In eager mode, JAX compiles the same operations again for each new function object,
    unless it finds them there. Before JAX 0.6, functions from there train differently.
    """
    if BACKEND == "jax":
        import jax

        if jax.__version_info__ < (0, 6):
            return
        folder = tempfile.TemporaryDirectory(prefix="keras-logitclip-tests-")
        config.add_cleanup(folder.cleanup)
        jax.config.update("jax_compilation_cache_dir", folder.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(config, items):
    """Deselects tests that need gradients on backends without gradients."""
    if INFERENCE_ONLY:
        left_out = [item for item in items if item.get_closest_marker("gradients")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True, params=[BACKEND])
def backend(request):
    """Returns the current backend. As a parameter, it is part of each test's id."""
    return request.param


@pytest.fixture(params=MODES)
def mode(request):
    """Returns a mode of the current backend, for `tests.running`."""
    return request.param


@pytest.fixture(params=runs(*MODES), ids="-".join)
def run(request):
    """Returns a mode and a dtype, for `tests.running`."""
    return request.param


@pytest.fixture(autouse=True)
def fresh_keras():
    """Resets global settings after a test, and seeds its random numbers."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
