from collections import namedtuple
from shutil import which

import keras
import pytest

BACKEND = keras.config.backend()

# Without a C++ compiler, torch.compile traces functions but runs them eagerly.
TORCH_COMPILER = "inductor" if which("g++") or which("clang++") else "aot_eager"

# The ways each backend can run a function; the first is the plain one.
MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "jit"),
    "torch": ("eager", TORCH_COMPILER),
    "numpy": ("eager",),
    "openvino": ("eager",),
}[BACKEND]


@pytest.fixture(autouse=True, params=[BACKEND])
def backend(request):
    """The current Keras backend; being a parameter, it shows in each test's id."""
    return request.param


# Under NumPy, Keras makes float32 of float64, and OpenVINO computes in float32.
INFERENCE_ONLY = BACKEND in ("numpy", "openvino")
DTYPES = ("float16", "bfloat16") + (() if INFERENCE_ONLY else ("float64",))

Run = namedtuple("Run", "mode dtype")
# Float32 in every mode, the other dtypes in the plain one, and half precision
# in the most compiled one, where casts are fused away.
RUNS = [
    *(Run(mode, "float32") for mode in MODES),
    *(Run(MODES[0], dtype) for dtype in DTYPES),
    *(Run(mode, "float16") for mode in MODES[1:][-1:]),
]


@pytest.fixture(params=MODES)
def mode(request):
    """A way to run a function on the current backend, for `tests.running`."""
    return request.param


@pytest.fixture(params=RUNS, ids="-".join)
def run(request):
    """A mode and a dtype, for `tests.running`."""
    return request.param


@pytest.fixture(autouse=True)
def fresh_keras():
    """Undoes what a test sets globally, and makes its random numbers its own."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
