from collections import namedtuple
from shutil import which

import keras
import pytest

BACKEND = keras.config.backend()

# The mode that compiles most. Where PyTorch finds a C++ compiler, each function takes
# it seconds: for the tests whose subject is what a compiler makes of the arithmetic.
if BACKEND == "torch" and (which("g++") or which("clang++")):
    COMPILED = "inductor"
else:
    COMPILED = {"tensorflow": "xla", "jax": "jit", "torch": "aot_eager"}.get(BACKEND)

# The ways each backend can run a function; the first is the plain one. What
# torch.compile traces runs with "aot_eager" without being translated to C++.
MODES = {
    "tensorflow": ("eager", "graph", "xla"),
    "jax": ("eager", "jit"),
    "torch": ("eager", "aot_eager"),
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


def runs(*modes):
    """Float32 in every mode, the other dtypes in the plain one, and half precision
    in the last one, where casts are fused away."""
    return [
        *(Run(mode, "float32") for mode in modes),
        *(Run(modes[0], dtype) for dtype in DTYPES),
        *(Run(mode, "float16") for mode in modes[1:][-1:]),
    ]


COMPILED_MODES = (*MODES[:-1], COMPILED) if COMPILED else MODES


@pytest.fixture(params=MODES)
def mode(request):
    """A way to run a function on the current backend, for `tests.running`."""
    return request.param


@pytest.fixture(params=runs(*MODES), ids="-".join)
def run(request):
    """A mode and a dtype, for `tests.running`."""
    return request.param


@pytest.fixture(params=runs(*COMPILED_MODES), ids="-".join)
def compiled_run(request):
    """The same, with `COMPILED` as the last mode."""
    return request.param


@pytest.fixture(autouse=True)
def fresh_keras():
    """Undoes what a test sets globally, and makes its random numbers its own."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
