"""The temperature of probabilities, and their calibration error."""

import itertools

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from keras_logitclip import calibration
from keras_logitclip import noise
from tests import oracle
from tests.running import BACKEND

RNG = np.random.default_rng(0)
CLASSES = 5
# As a clipped model returns them, and labels of which 0.4 is the best temperature.
LOGITS = RNG.normal(size=(4000, CLASSES)) * 0.7


def drawn(probabilities, seed=1):
    """A label for each row."""
    draws = np.random.default_rng(seed).random((len(probabilities), 1))
    return (draws > probabilities.cumsum(1)).sum(1)


def probabilities(logits):
    return np.exp(oracle.log_softmax(logits))


LABELS = drawn(probabilities(LOGITS / 0.4))
SYMMETRIC = 0.6 * np.eye(CLASSES) + 0.4 / CLASSES
# With a label that no class but its own has, and zeros.
NEXT = np.array(noise.pair_flip(LABELS, 0.3, CLASSES, exact=True, seed=0).transition)
TRANSITIONS = {"clean": None, "symmetric": SYMMETRIC, "pair": NEXT}


def noisy_labels(transition):
    return LABELS if transition is None else drawn(transition[LABELS], 2)


def negative_log_likelihood(log_temperature, logits, labels, transition):
    found = probabilities(np.asarray(logits, "float64") / np.exp(log_temperature))
    if transition is not None:
        found = found @ transition
    return -np.log(found[np.arange(len(labels)), labels]).mean()


@pytest.mark.once
@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_temperature_of_the_largest_likelihood(name):
    transition = TRANSITIONS[name]
    labels = noisy_labels(transition)
    found = calibration.fit_temperature(LOGITS, labels, transition)
    expected = minimize_scalar(
        negative_log_likelihood,
        bounds=(-3, 1),
        args=(LOGITS, labels, transition),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(np.exp(expected.x), rel=1e-6)
    assert found == pytest.approx(0.4, rel=0.1)


@pytest.mark.once
def test_noisy_labels_without_their_matrix_make_it_cautious():
    labels = noisy_labels(SYMMETRIC)
    assert calibration.fit_temperature(LOGITS, labels) > 0.6


@pytest.mark.once
@pytest.mark.parametrize("transition", [None, SYMMETRIC], ids=("clean", "symmetric"))
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 100, 1e30, 1e307])
def test_the_temperature_scales_with_the_logits(factor, transition):
    expected = calibration.fit_temperature(LOGITS, LABELS, transition)
    found = calibration.fit_temperature(factor * LOGITS, LABELS, transition)
    assert found / factor == pytest.approx(expected, rel=1e-6)


SHAPES = {
    "float32": (LOGITS.astype("float32"), LABELS),
    "float16": (LOGITS.astype("float16"), LABELS.astype("uint8")),
    "lists": (LOGITS.tolist(), LABELS.tolist()),
    "shifted": (LOGITS + 1e4, LABELS),
    "masked-class": (np.where(np.arange(CLASSES) == 4, -1e3, LOGITS), LABELS % 4),
    "one-far-row": (np.where(np.arange(4000)[:, None], LOGITS, 50 * LOGITS), LABELS),
    "one-class": (LOGITS + 0.5 * np.eye(CLASSES)[2], np.full(4000, 2)),
    "two-samples": ([[1.0, 0.0], [1.0, -1.0], [2.0, 0.0]], [0, 0, 1]),
}


@pytest.mark.once
@pytest.mark.parametrize("name", SHAPES)
def test_any_logits(name):
    logits, labels = SHAPES[name]
    best = np.log(calibration.fit_temperature(logits, labels))
    at_best, *beside = (
        negative_log_likelihood(best + step, logits, labels, None)
        for step in (0, -0.01, 0.01)
    )
    assert at_best < min(beside)


BAD_TEMPERATURES = {
    "all-predicted": (LOGITS, LOGITS.argmax(1), {}, "100.00% are predicted"),
    "as-the-transition-says": (
        LOGITS,
        drawn(SYMMETRIC[LOGITS.argmax(1)]),
        {"transition": SYMMETRIC},
        r"\(with `transition`, more than it explains\)",
    ),
    "none-predicted": (LOGITS, LOGITS.argmin(1), {}, "0.00% are predicted"),
    "all-equal": (np.ones((3, 2)), [0, 1, 0], {}, "rows whose logits are all equal"),
    "nan": ([[0, 1], [np.nan, 1]], [0, 1], {}, "in 1 of 2 rows, the first at 1"),
    "one-column": (LOGITS[:, :1], LABELS, {}, r"`np.column_.*shape \(4000, 1\)"),
    "vector": (LABELS, LABELS, {}, r"`np.column_.*int64 and shape \(4000,\)"),
    "ragged": (
        [[0, 1], [1]],
        [0, 1],
        {},
        r"classes. Received: .*object and shape \(2,\)",
    ),
    "no-samples": (LOGITS[:0], LABELS[:0], {}, r"`logits`.*shape \(0, 5\)"),
    "probabilities": (
        [[0.3, 0.7], [1.0, 0.0]],
        [0, 1],
        {},
        r"logits. Received: probabilities.*`np.log\(np.maximum\(logits, 1e-12\)\)`",
    ),
    "texts": ([["a", "b"]], [0], {}, "`logits`: expected numbers.*<U1"),
    "length": (LOGITS, LABELS[1:], {}, "3999 labels, 4000 rows"),
    "one-hot": (LOGITS, np.eye(CLASSES)[LABELS], {}, r"`np.argmax\(labels, -1\)`"),
    "outside": (LOGITS, LABELS + 1, {}, r"`labels`.*\[0, 5\)"),
    "classes": (LOGITS, LABELS, {"transition": np.eye(4)}, "4 rows, 5 classes"),
    "counts": (LOGITS, LABELS, {"transition": 9 * SYMMETRIC}, "rows that sum to 1"),
    "impossible": (
        LOGITS,
        LABELS,
        {"transition": np.eye(CLASSES)[[0, 1, 2, 3, 3]]},
        "Received: the label 4 at position",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_TEMPERATURES)
def test_no_temperature(name):
    logits, labels, arguments, message = BAD_TEMPERATURES[name]
    with pytest.raises(ValueError, match=message):
        calibration.fit_temperature(logits, labels, **arguments)


def test_one_logit_as_two():
    logits = LOGITS[:, :1]
    two = np.column_stack([np.zeros(len(logits)), logits])
    probabilities = 1 / (1 + np.exp(-logits))
    right = LABELS > 2
    expected = np.where(logits > 0, probabilities, 1 - probabilities)[:, 0].mean()
    found = calibration.expected_calibration_error(two, right.astype(int), bins=1)
    accuracy = np.mean(right == (logits[:, 0] > 0))
    assert found == pytest.approx(abs(expected - accuracy))


def test_tensors():
    """As a model returns them, on PyTorch with a gradient, and as labels."""
    logits = keras.Variable(LOGITS).value
    labels = keras.ops.convert_to_tensor(LABELS)
    found = calibration.expected_calibration_error(logits, labels)
    expected = calibration.expected_calibration_error(LOGITS, LABELS)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.once
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error(bins):
    p = probabilities(LOGITS)
    confidence, right = p.max(1), p.argmax(1) == LABELS
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            distance = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * distance
    for given in (LOGITS, p):
        found = calibration.expected_calibration_error(given, LABELS, bins)
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.once
def test_the_temperature_lowers_the_calibration_error():
    temperature = calibration.fit_temperature(LOGITS, LABELS)
    before, after = (
        calibration.expected_calibration_error(logits, LABELS)
        for logits in (LOGITS, LOGITS / temperature)
    )
    assert after < 0.03 < 0.2 < before


@pytest.mark.once
def test_edges_of_the_bins():
    sure = np.eye(2)[[0, 0, 1]]
    assert calibration.expected_calibration_error(sure, [0, 0, 1]) == 0
    assert calibration.expected_calibration_error(sure, [1, 1, 0]) == 1
    # Both in the lower half, where the mean of 0.5 is half right.
    assert calibration.expected_calibration_error([[0.5, 0.5]] * 2, [0, 1], 2) == 0


@pytest.mark.once
def test_bad_bins():
    with pytest.raises(ValueError, match="`bins`: expected an integer of at least 1"):
        calibration.expected_calibration_error(LOGITS, LABELS, bins=0)


def test_a_model_that_is_served(tmp_path):
    """As docs/probabilities.md says."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)])
    served = keras.Sequential(
        [model, keras.layers.Rescaling(1 / 0.4), keras.layers.Softmax()]
    )
    served.save(tmp_path / "served.keras")
    again = keras.saving.load_model(tmp_path / "served.keras")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    logits = model.predict(x, verbose=0)
    found = again.predict(x, verbose=0)
    # On some processors, Keras's OpenVINO backend predicts in bfloat16.
    rtol = 0.1 if BACKEND == "openvino" else 1e-5
    np.testing.assert_allclose(found, probabilities(logits / 0.4), rtol)
