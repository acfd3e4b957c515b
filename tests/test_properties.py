"""Properties of clipping that hold for any finite row, however extreme."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keras_logitclip import ops
from tests import oracle
from tests.conftest import BACKEND
from tests.oracle import INF
from tests.running import to_numpy

# NumPy warns of norms that float32 cannot hold.
pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")

ORDERS = (1, 1.5, 2, 3, 100, INF)


def rows_of(**limits):
    """One shape, since some backends compile for each; each number is drawn.

    None is subnormal: on TensorFlow and JAX, multiplying makes these zero.
    """
    finite = st.floats(
        allow_nan=False,
        allow_infinity=False,
        allow_subnormal=False,
        width=32,
        **limits,
    )
    return arrays("float32", (16, 4), elements=finite, fill=st.nothing())


ANY_ROWS = st.one_of(rows_of(), rows_of(min_value=-1024, max_value=1024))
# Norms above 1e33 tau may become NaN.
LONGEST = float(np.float32(1e29))
rows = st.one_of(
    rows_of(min_value=-LONGEST, max_value=LONGEST),
    rows_of(min_value=-1024, max_value=1024),
)
taus = st.floats(1e-3, 1e3)
TINY = float(np.finfo("float32").tiny)
# OpenVINO compiles for each example.
EXAMPLES = 2 if BACKEND == "openvino" else 25
reproducibly = settings(max_examples=EXAMPLES, deadline=None, derandomize=True)


@given(z=rows, tau=taus)
@reproducibly
def test_norms_never_exceed_tau_and_shorter_rows_stay(z, tau):
    for p in ORDERS:
        clipped = to_numpy(ops.logit_clip(z, tau, p))
        assert (oracle.norm(clipped, p) <= tau * (1 + 2e-6)).all(), p
        within = oracle.norm(z, p) <= tau * (1 - 2e-6)
        np.testing.assert_array_equal(clipped[within], z[within], f"p={p}")


@given(z=rows, tau=taus)
@reproducibly
def test_order_and_signs_of_the_logits_stay(z, tau):
    order = z.argsort(-1)
    for p in ORDERS:
        clipped = to_numpy(ops.logit_clip(z, tau, p))
        assert (np.diff(np.take_along_axis(clipped, order, -1)) >= 0).all(), p
        assert (clipped * np.sign(z) >= 0).all(), p


@given(z=ANY_ROWS)
@reproducibly
def test_norms_equal_the_oracle(z):
    for p in ORDERS:
        expected = oracle.norm(z, p)
        held = expected < np.finfo("float32").max
        np.testing.assert_allclose(
            to_numpy(ops.logit_norm(z, p))[held],
            expected[held],
            rtol=2e-6,
            atol=TINY,
            err_msg=f"p={p}",
        )


@given(z=rows, tau=taus)
@reproducibly
def test_clipping_twice_is_clipping_once(z, tau):
    for p in (1, 2, INF):
        once = to_numpy(ops.logit_clip(z, tau, p))
        twice = to_numpy(ops.logit_clip(once, tau, p))
        np.testing.assert_allclose(twice, once, 2e-6, TINY, err_msg=f"p={p}")
