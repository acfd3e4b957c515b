"""The noise that cleanlab estimates, and the wrong labels that follow from it."""

import csv
import dataclasses
import io
import re
import sys

import keras
import numpy as np
import pytest

from keras_logitclip import bounds
from keras_logitclip import losses
from keras_logitclip import noise
from tests.oracle import log_softmax
from tests.subprocesses import ROOT

pytest.importorskip("cleanlab")

from keras_logitclip import cleaning

pytestmark = pytest.mark.once

CLASSES = 5
CLEAN = np.arange(3000) % CLASSES
# A model that is right in 93 of 100, and knows how sure it can be.
LOGITS = 0.3 * (
    4 * np.eye(CLASSES)[CLEAN]
    + 1.2 * np.random.default_rng(0).normal(size=(3000, CLASSES))
)
NOISES = {
    "symmetric": noise.symmetric(CLEAN, 0.3, CLASSES, seed=0),
    "pair": noise.pair_flip(CLEAN, 0.3, CLASSES, seed=0),
    "clean": noise.symmetric(CLEAN, 0.0, CLASSES, seed=0),
}
noises = pytest.mark.parametrize("noisy", NOISES.values(), ids=NOISES)


@noises
def test_the_estimate(noisy):
    found = cleaning.estimate_noise(noisy.labels, LOGITS)
    assert found.rate == pytest.approx(noisy.rate, abs=0.04)
    low, high = found.interval
    assert low <= found.rate <= high <= low + 0.06
    np.testing.assert_allclose(found.transition.sum(1), 1)
    np.testing.assert_allclose(found.transition, noisy.transition, atol=0.06)
    np.testing.assert_allclose(found.joint.sum(), 1)
    shares = np.bincount(noisy.labels) / len(noisy.labels)
    np.testing.assert_allclose(found.joint.sum(0), shares, atol=1e-3)
    losses.ForwardCorrection(found.transition)


def test_the_estimate_is_the_same_at_any_scale_and_seed():
    labels = NOISES["symmetric"].labels
    one = cleaning.estimate_noise(labels, LOGITS, draws=10)
    other = cleaning.estimate_noise(labels, (1000 * LOGITS).astype("float32"), draws=10)
    assert one.rate == pytest.approx(other.rate, abs=1e-3)
    assert one.interval == pytest.approx(other.interval, abs=1e-3)
    assert 1000 * one.temperature == pytest.approx(other.temperature, rel=1e-3)
    another = cleaning.estimate_noise(labels, LOGITS, draws=10, seed=1)
    assert another.rate == one.rate
    assert another.interval != one.interval


def test_the_interval_of_a_smaller_confidence_is_shorter():
    labels = NOISES["symmetric"].labels
    wide, narrow = (
        cleaning.estimate_noise(labels, LOGITS, confidence=confidence).interval
        for confidence in (0.95, 0.5)
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_temperature_is_that_of_the_clean_classes():
    found = cleaning.estimate_noise(NOISES["symmetric"].labels, LOGITS, draws=1)
    p = np.exp(log_softmax(LOGITS / found.temperature))
    assert p.max(1).mean() == pytest.approx(np.mean(p.argmax(1) == CLEAN), abs=0.03)


def test_rows_and_text():
    joint = np.array([[0.4, 0.1, 0.0], [0.0, 0.3, 0.0], [0.1, 0.0, 0.1]])
    found = cleaning.NoiseEstimate(0.2, (0.15, 0.25), 0.95, joint, 1.0)
    first, second, third = found.rows
    assert first == pytest.approx(
        {"label": 1, "share": 0.4, "wrong": 0.25, "class": 0, "lost": 0.0}
    )
    assert second == pytest.approx(
        {"label": 0, "share": 0.5, "wrong": 0.2, "class": 2, "lost": 0.2}
    )
    assert (third["label"], third["wrong"], third["class"]) == (2, 0, None)
    lines = str(found).splitlines()
    assert lines[0] == "20.0% of the labels are wrong (95% interval: 15.0% to 25.0%)"
    assert lines[2].split() == ["1", "40.0%", "25.0%", "0", "0.0%"]
    assert lines[4].split() == ["2", "10.0%", "0.0%", "50.0%"]
    many = dataclasses.replace(found, joint=np.eye(12) / 12)
    assert str(many).splitlines()[-1] == "  and 2 more labels"


def test_a_class_that_is_not_there():
    """A class that is neither a label nor, in one case, predicted."""
    labels = NOISES["symmetric"].labels
    with_another = np.hstack([LOGITS, np.full((3000, 1), -5.0)])
    found = cleaning.estimate_noise(labels, with_another, draws=5)
    assert found.transition[5].tolist() == [0, 0, 0, 0, 0, 1]
    assert found.rate == pytest.approx(0.3, abs=0.05)
    assert len(cleaning.find_label_errors(labels, with_another).indices) > 800


@pytest.mark.parametrize("name", ["symmetric", "clean"])
def test_a_model_that_is_always_right(name):
    noisy = NOISES[name]
    perfect = 3 * np.eye(CLASSES)[CLEAN]
    found = cleaning.estimate_noise(noisy.labels, perfect, draws=5)
    assert found.rate == pytest.approx(noisy.rate, abs=1e-3)
    errors = cleaning.find_label_errors(noisy.labels, perfect)
    np.testing.assert_array_equal(np.sort(errors.indices), noisy.flipped.nonzero()[0])


def test_no_rate_is_below_zero():
    rng = np.random.default_rng(0)
    for _ in range(10):  # Some of the sums are rounded up.
        labels = rng.integers(0, CLASSES, 300)
        found = cleaning.estimate_noise(labels, 3 * np.eye(CLASSES)[labels], draws=10)
        assert 0 <= found.rate < 1e-9
        assert found.interval[0] >= 0


@noises
def test_the_errors(noisy):
    errors = cleaning.find_label_errors(noisy.labels, LOGITS)
    estimate = cleaning.estimate_noise(noisy.labels, LOGITS, draws=1)
    assert len(errors.indices) == round(3000 * estimate.rate)
    quality = errors.quality[errors.indices]
    assert (np.diff(quality) >= 0).all()
    assert quality.max(initial=0) <= errors.quality[errors.keep].min()
    assert (errors.suggested != noisy.labels).all()
    assert sorted([*errors.indices, *errors.keep.nonzero()[0]]) == list(range(3000))
    if noisy.flipped.any():
        assert noisy.flipped[errors.indices].mean() > 0.85
        assert noisy.flipped[errors.keep].mean() < 0.06
        right = errors.suggested[errors.indices] == CLEAN[errors.indices]
        assert right.mean() > 0.8


def test_the_quality_is_the_probability_to_be_right():
    noisy = NOISES["symmetric"]
    quality = cleaning.find_label_errors(noisy.labels, LOGITS).quality
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        inside = (quality >= low) & (quality <= high)
        right = ~noisy.flipped[inside]
        assert quality[inside].mean() == pytest.approx(right.mean(), abs=0.1)


@noises
def test_the_quality_is_that_of_bayes(noisy):
    estimate = cleaning.estimate_noise(noisy.labels, LOGITS, draws=1)
    errors = cleaning.find_label_errors(noisy.labels, LOGITS)
    counts = 3000 * estimate.joint + np.where(
        np.eye(CLASSES), CLASSES * (1 - estimate.rate), estimate.rate * CLASSES / 4
    )
    transition = counts / counts.sum(1, keepdims=True)
    posterior = np.exp(log_softmax(LOGITS / estimate.temperature))
    posterior = posterior * transition[:, noisy.labels].T
    posterior = posterior / posterior.sum(1, keepdims=True)
    rows = np.arange(3000)
    np.testing.assert_allclose(errors.quality, posterior[rows, noisy.labels], 1e-9)
    posterior[rows, noisy.labels] = 0
    np.testing.assert_array_equal(errors.suggested, posterior.argmax(1))


def test_a_likely_confusion_is_more_suspicious():
    """The transition matrix finds more errors of pairs than the probability alone."""
    noisy = NOISES["pair"]
    quality = cleaning.find_label_errors(noisy.labels, LOGITS).quality
    p = np.exp(log_softmax(LOGITS))[np.arange(3000), noisy.labels]
    found, otherwise = (
        noisy.flipped[np.argsort(scores)[: noisy.flipped.sum()]].sum()
        for scores in (quality, p)
    )
    assert found > otherwise + 10


def test_errors_as_text_and_table(tmp_path):
    errors = cleaning.LabelErrors(
        np.array([2, 0]),
        np.array([0, 1, 2]),
        np.array([1, 0, 0]),
        np.array([0.2, 0.9, 0.1]),
    )
    assert str(errors) == "2 of 3 labels look wrong (66.7%), the worst at 2, 0"
    assert errors.keep.tolist() == [False, True, False]
    errors.to_csv(tmp_path / "errors.csv")
    errors.to_csv(tmp_path / "named.csv", ["a,b", 'c"', "d\n"])
    with pytest.raises(ValueError, match="`class_names`.* at least 3.*Received: 2"):
        errors.to_csv(tmp_path / "none.csv", ["a", "b"])
    assert not (tmp_path / "none.csv").exists()
    tables = [
        [*csv.reader(io.StringIO((tmp_path / name).read_bytes().decode(), newline=""))]
        for name in ("errors.csv", "named.csv")
    ]
    header = ["index", "given", "suggested", "quality"]
    assert tables[0] == [
        header,
        ["2", "2", "0", "0.100000"],
        ["0", "0", "1", "0.200000"],
    ]
    assert [row[1:3] for row in tables[1][1:]] == [["d\n", "a,b"], ["a,b", 'c"']]


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield matplotlib.pyplot
    matplotlib.pyplot.close("all")


NO_FORMULA = r"$\frac{0}$"


@pytest.mark.parametrize("names", [None, [NO_FORMULA, *"bcde"]], ids=("ids", "names"))
def test_plot_of_the_estimate(pyplot, names):
    found = cleaning.estimate_noise(NOISES["pair"].labels, LOGITS, draws=5)
    ax = found.plot(class_names=names)
    assert ax.get_title() == f"{found.rate:.1%} of the labels are wrong"
    np.testing.assert_array_equal(ax.images[0].get_array(), found.transition)
    if names:
        assert [text.get_text() for text in ax.get_yticklabels()] == names
    ax.figure.canvas.draw()
    assert found.plot(pyplot.subplots()[1]).figure is not ax.figure
    with pytest.raises(ValueError, match="`class_names`: expected 5 names.*: 2"):
        found.plot(class_names=["a", "b"])


IMAGES = {
    "gray": np.random.default_rng(0).integers(0, 17, (3000, 8, 8)).astype("uint8"),
    "one-channel": np.random.default_rng(0).normal(size=(3000, 8, 8, 1)),
    "color": np.zeros((3000, 4, 4, 3)),
}


@pytest.mark.parametrize("x", IMAGES.values(), ids=IMAGES)
def test_plot_of_the_errors(pyplot, x):
    errors = cleaning.find_label_errors(NOISES["pair"].labels, LOGITS)
    names = [NO_FORMULA, *"bcde"]
    figure = errors.plot(x, count=10, columns=4, class_names=names)
    assert len(figure.axes) == 12
    titles = [ax.get_title() for ax in figure.axes]
    first = errors.indices[0]
    given, suggested = names[errors.labels[first]], names[errors.suggested[first]]
    assert titles[0] == f"{given}\n→ {suggested}"
    assert titles[9]
    assert titles[10:] == ["", ""]
    figure.canvas.draw()


def test_plot_without_errors(pyplot):
    nothing = np.array([], int)
    errors = cleaning.LabelErrors(
        nothing, np.zeros(2, int), np.ones(2, int), np.ones(2)
    )
    errors.plot(np.zeros((2, 4, 4))).canvas.draw()
    assert str(errors) == "0 of 2 labels look wrong (0.0%)"


def run_blocks(page, names):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    return names


@pytest.mark.gradients
def test_the_pages_run(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    noisy = noise.symmetric(CLEAN[:400], 0.3, CLASSES, exact=True, seed=0)
    x = LOGITS[:400].astype("float32")
    names = {
        "build_model": lambda: keras.Sequential(
            [keras.Input((CLASSES,)), keras.layers.Dense(CLASSES)]
        ),
        "x_train": x,
        "y_train": noisy.labels,
    }
    names = run_blocks("cleaning.md", names)
    assert noisy.flipped[names["errors"].indices].mean() > 0.7
    model = names["model"]
    names |= {"held_out": names["logits"], "x_clean": x, "y_clean": noisy.clean}
    names = run_blocks("probabilities.md", names)
    logits = model.predict(x, verbose=0)
    served = np.exp(log_softmax(logits / names["temperature"]))
    again = keras.saving.load_model("served.keras").predict(x, verbose=0)
    np.testing.assert_allclose(again, served, rtol=1e-4, atol=1e-6)


def test_the_table_of_the_largest_probabilities():
    text = (ROOT / "docs" / "probabilities.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `tau` = ([\d.]+) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for tau, cells in rows:
        found = [bounds.max_probability(float(tau), k) for k in (2, 10, 77, 100, 1000)]
        assert cells.split(" | ") == [f"{probability:.3f}" for probability in found]


BAD_ARGUMENTS = {
    "lengths": ({"y": CLEAN[1:]}, "`y`: .*2999 labels, 3000 rows"),
    "one-hot": ({"y": np.eye(5)[CLEAN]}, r"`np.argmax\(y, -1\)`"),
    "outside": ({"y": CLEAN + 1}, r"`y`.*\[0, 5\).*Received: 5 at position 4"),
    "nan": ({"logits": np.where(CLEAN == 3, np.nan, LOGITS.T).T}, "in 600 of 3000"),
    "probabilities": (
        {"logits": np.exp(log_softmax(LOGITS))},
        r"`np.log\(np.maximum\(logits, 1e-12\)\)`",
    ),
    "vector": ({"logits": LOGITS[:, 0]}, r"`logits`.*shape \(3000,\)"),
    "other-order": (
        {"logits": np.roll(LOGITS, 1, 0)},
        "learning rate.*less than at random",
    ),
    "equal": ({"logits": np.ones((3000, 5))}, "logits are all equal"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
@pytest.mark.parametrize(
    "function", [cleaning.estimate_noise, cleaning.find_label_errors]
)
def test_bad_arguments(function, name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        function(**{"y": CLEAN, "logits": LOGITS, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 1}, "`confidence`"),
        ({"draws": 0}, "`draws`"),
        ({"seed": -1}, "`seed`"),
    ],
    ids=("confidence", "draws", "seed"),
)
def test_bad_draws(arguments, message):
    with pytest.raises(ValueError, match=message):
        cleaning.estimate_noise(CLEAN, LOGITS, **arguments)


def test_bad_images():
    errors = cleaning.find_label_errors(NOISES["pair"].labels, LOGITS)
    pytest.importorskip("matplotlib")
    for x in (LOGITS, np.zeros((2, 8, 8)), np.zeros((3000, 3, 8, 8))):
        with pytest.raises(ValueError, match="`x`: expected an image for each label"):
            errors.plot(x)


def test_cleanlab_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(ImportError, match=r'pip install "keras-logitclip\[cleaning\]"'):
        cleaning.estimate_noise(CLEAN, LOGITS)
