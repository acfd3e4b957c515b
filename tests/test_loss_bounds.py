"""Bounds of losses that are computed by the backend."""

from collections import namedtuple
from functools import partial

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import bounds
from keras_logitclip import losses
from tests import loss_cases
from tests import oracle
from tests.conftest import BACKEND
from tests.oracle import INF
from tests.running import to_numpy


def plain_cross_entropy(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True
    )


def times(factor, pair):
    return bounds.Bounds(*(factor * value for value in pair))


CE, MAE = losses.CrossEntropy(), losses.CategoricalMeanAbsoluteError()
OF_CE = bounds.cross_entropy_bounds(2.0, 5)
OF_MAE = [2 - 2 * np.exp(-value) for value in OF_CE]
Known = namedtuple("Known", "loss expected")
KNOWN = {
    "cross-entropy": Known(CE, OF_CE),
    "mean-absolute-error": Known(MAE, OF_MAE),
    "sum": Known(
        losses.ActivePassive(CE, MAE, alpha=0.5, beta=3.0),
        [0.5 * ce + 3 * mae for ce, mae in zip(OF_CE, OF_MAE, strict=True)],
    ),
    # From here on, found by searching.
    "function": Known(plain_cross_entropy, OF_CE),
    "name": Known("sparse_categorical_crossentropy", OF_CE),
    "no-bootstrap": Known(losses.Bootstrap(beta=1.0), OF_CE),
    "no-regularizer": Known(losses.ConfidenceRegularized(beta=0.0), OF_CE),
    # The loss of the most probable class.
    "only-bootstrap": Known(
        losses.Bootstrap(beta=0.0, hard=True), [OF_CE[0], np.log(5)]
    ),
    "searched-sum": Known(
        losses.ActivePassive(losses.Bootstrap(beta=1.0), CE, alpha=1.0, beta=2.0),
        times(3, OF_CE),
    ),
    "no-correction": Known(losses.ForwardCorrection(np.eye(5)), OF_CE),
    "nothing-to-invert": Known(losses.BackwardCorrection(np.eye(5)), OF_CE),
    "no-penalty": Known(losses.NormPenalty(CE, weight=0.0), OF_CE),
    "clipped-before": Known(
        LogitClipLoss(CE, tau=0.5), bounds.cross_entropy_bounds(0.5, 5)
    ),
    "values-unclipped": Known(losses.LogitValueClip(CE, limit=3.0), OF_CE),
    "unit-norm": Known(
        losses.LogitNormCrossEntropy(temperature=0.25),
        bounds.cross_entropy_bounds(4.0, 5),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN)
def test_bounds_that_are_known(case):
    actual = bounds.loss_bounds(case.loss, tau=2.0, num_classes=5)
    np.testing.assert_allclose(actual, case.expected, rtol=1e-5, atol=1e-6)


@pytest.mark.once
def test_clipped_values_in_the_cube():
    loss = losses.LogitValueClip(CE, limit=0.5)
    actual = bounds.loss_bounds(loss, tau=2.0, num_classes=5, p=INF)
    expected = bounds.cross_entropy_bounds(0.5, 5, INF)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.once
def test_a_penalty_of_the_norm_is_smallest_inside_of_the_ball():
    actual = bounds.loss_bounds(
        losses.NormPenalty(CE, weight=0.1), tau=100.0, num_classes=5
    )

    def on_sphere(radius):
        return bounds.cross_entropy_bounds(radius, 5).lower + 0.1 * radius

    expected = min(map(on_sphere, np.linspace(1, 10, 300)))
    assert actual.lower == pytest.approx(expected, abs=1e-5)


EXACT = {
    "CE": loss_cases.cross_entropy,
    "Focal": partial(loss_cases.focal, gamma=0.5),
    "MAE": loss_cases.mean_absolute_error,
    "GCE": partial(loss_cases.generalized_cross_entropy, q=0.7),
    "RCE": loss_cases.reverse_cross_entropy,
    "SCE": partial(loss_cases.symmetric_cross_entropy, alpha=0.1, beta=1.0),
    "PHuber-CE": partial(loss_cases.phuber_cross_entropy, threshold=2.0),
    "PHuber-GCE": partial(
        loss_cases.phuber_generalized_cross_entropy, q=0.7, threshold=10.0
    ),
    "Taylor-CE": partial(loss_cases.taylor_cross_entropy, order=2),
    "AGCE": partial(loss_cases.asymmetric_generalized_cross_entropy, a=0.6, q=0.6),
    "AUL": partial(loss_cases.asymmetric_unhinged, a=5.5, q=3.0),
    "AEL": partial(loss_cases.asymmetric_exponential, a=2.5),
}


@pytest.mark.parametrize("tau", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("name", EXACT)
def test_exact_bounds_for_many_classes(name, tau):
    cross_entropy = np.linspace(*bounds.cross_entropy_bounds(tau, 10**6), 1000)
    p_label = np.exp(-cross_entropy)
    # The label's class, and all others as one.
    z = np.stack([-cross_entropy, np.log1p(-p_label)], -1)
    values = EXACT[name](np.array([1.0, 0.0]), z)
    actual = bounds.loss_bounds(losses.preset(name, 10), tau, 10**6)
    expected = [values.min(), values.max()]
    # Float32, for most backends: relative to the largest loss.
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=3e-7 * values.max())


# All where that is quick: some backends compile each operation of each loss.
SAMPLED = losses.PRESETS if BACKEND in ("numpy", "torch") else ("JS",)


@pytest.mark.parametrize(
    ("name", "p"), [*((name, 2) for name in SAMPLED), ("NCE", INF)]
)
def test_no_sampled_loss_is_outside(name, p):
    loss = losses.preset(name, 6)
    lower, upper = bounds.loss_bounds(loss, tau=3.0, num_classes=6, p=p)
    z = np.concatenate(
        [oracle.points_of_ball(3.0, 6, p, seed, 2000) for seed in range(4)]
    )
    labels = np.random.default_rng(0).integers(0, 6, len(z)).astype("int32")
    values = to_numpy(loss.call(labels, keras.ops.convert_to_tensor(z)))
    allowed = 1e-4 * (upper - lower)
    assert lower - allowed <= values.min() <= values.max() <= upper + allowed
    # The bounds are no wider than what a sample comes close to.
    assert values.max() - values.min() > 0.7 * (upper - lower)


@pytest.mark.once
def test_many_classes_with_few_values():
    actual = bounds.loss_bounds(losses.Bootstrap(beta=1.0), tau=5.0, num_classes=2000)
    expected = bounds.cross_entropy_bounds(5.0, 2000)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.once
def test_losses_of_very_long_logits_are_finite():
    for loss in (CE, losses.GeneralizedCrossEntropy(), losses.Bootstrap()):
        lower, upper = bounds.loss_bounds(loss, tau=1e4, num_classes=10)
        assert 0 <= lower < 1e-6 < upper < INF


BAD_LOSSES = {
    "probabilities": (losses.CrossEntropy(from_logits=False), "takes probabilities"),
    "no-loss": (3.0, "`loss`: expected"),
    "not-a-number": (lambda y, z: z[:, 0] * np.nan, "Received: NaN for class 0"),
}


@pytest.mark.parametrize(("loss", "message"), BAD_LOSSES.values(), ids=BAD_LOSSES)
def test_losses_without_bounds(loss, message):
    with pytest.raises(ValueError, match=message):
        bounds.loss_bounds(loss, tau=1.0, num_classes=3)


IGNORING = {
    "of-keras": keras.losses.SparseCategoricalCrossentropy(True, ignore_class=0),
    "wrapped": losses.NormPenalty(
        keras.losses.SparseCategoricalCrossentropy(True, ignore_class=0), 0.1
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("loss", IGNORING.values(), ids=IGNORING)
def test_losses_that_ignore_a_class(loss):
    with pytest.raises(ValueError, match="counts all classes. Received: .*ignore"):
        bounds.loss_bounds(loss, tau=1.0, num_classes=3)


@pytest.mark.once
@pytest.mark.parametrize("ignored", [0, 255])
@pytest.mark.parametrize("loss", [losses.GeneralizedCrossEntropy, losses.Bootstrap])
def test_bounds_are_those_of_what_is_not_ignored(loss, ignored):
    actual = bounds.loss_bounds(loss(ignore_class=ignored), tau=1.0, num_classes=3)
    assert actual == bounds.loss_bounds(loss(), tau=1.0, num_classes=3)


def test_losses_without_clipping():
    with pytest.raises(ValueError, match="`tau`: expected a finite number.*tau=inf"):
        bounds.loss_bounds(CE, tau=INF, num_classes=3)
