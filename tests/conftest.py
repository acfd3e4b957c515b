import tempfile
from collections import namedtuple
from shutil import which

import keras
import pytest

from tests.running import BACKEND
from tests.running import INFERENCE_ONLY

# What PyTorch's compiler takes seconds for, where it finds a compiler of C++: for the
# tests whose subject is what a compiler makes of the arithmetic.
COMPILED = "inductor" if which("g++") or which("clang++") else "aot_eager"

# The ways each backend can run a function; the first is the plain one. What
# torch.compile traces runs with "aot_eager" without being translated to C++.
MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "jit"),
    "torch": ("eager", "aot_eager"),
    "numpy": ("eager",),
    "openvino": ("eager",),
}[BACKEND]
# The one that is done first with many functions, each of which is called once.
QUICKEST = "jit" if BACKEND == "jax" else "eager"
DTYPES = ("float16", "bfloat16") + (() if INFERENCE_ONLY else ("float64",))

Run = namedtuple("Run", "mode dtype")

# The files of what only one backend has or promises.
collect_ignore = [
    f"test_{name}.py" for name in ("jax", "tensorflow", "torch") if name != BACKEND
]


def runs(*modes):
    """Float32 in every mode, the other dtypes in the quickest one, and half precision
    in the last one, where casts are fused away."""
    all_runs = [
        *(Run(mode, "float32") for mode in modes),
        *(Run(QUICKEST, dtype) for dtype in DTYPES),
        *(Run(mode, "float16") for mode in modes[1:][-1:]),
    ]
    return list(dict.fromkeys(all_runs))


def pytest_configure(config):
    """Gives JAX an empty folder for what it compiles.

    Outside of compiled functions it compiles the same operations again for each new
    function object, and finds them there. Before JAX 0.6, what it finds there trains
    differently.
    """
    if BACKEND == "jax":
        import jax

        if tuple(map(int, jax.__version__.split(".")[:2])) < (0, 6):
            return
        folder = tempfile.TemporaryDirectory(prefix="keras-logitclip-tests-")
        config.add_cleanup(folder.cleanup)
        jax.config.update("jax_compilation_cache_dir", folder.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(config, items):
    """Leaves out what needs gradients where there are none."""
    if INFERENCE_ONLY:
        left_out = [item for item in items if item.get_closest_marker("gradients")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True, params=[BACKEND])
def backend(request):
    """The current Keras backend; being a parameter, it shows in each test's id."""
    return request.param


@pytest.fixture(params=MODES)
def mode(request):
    """A way to run a function on the current backend, for `tests.running`."""
    return request.param


@pytest.fixture(params=runs(*MODES), ids="-".join)
def run(request):
    """A mode and a dtype, for `tests.running`."""
    return request.param


@pytest.fixture(autouse=True)
def fresh_keras():
    """Undoes what a test sets globally, and makes its random numbers its own."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
