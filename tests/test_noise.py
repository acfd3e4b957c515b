import hashlib
import math
import re
import sys
import tracemalloc
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from keras_logitclip import noise
from keras_logitclip.noise import _instance_dependent
from keras_logitclip.noise._cifar100 import CIFAR100_CLASSES
from keras_logitclip.noise._cifar100 import CIFAR100_HIERARCHY
from keras_logitclip.noise._transition import apportion

pytestmark = pytest.mark.once

EXAMPLES = 60
reproducibly = settings(max_examples=EXAMPLES, deadline=None, derandomize=True)


def labels_of(num_classes, samples, seed=0):
    return np.random.default_rng(seed).integers(0, num_classes, samples)


# Noise that depends only on the class, with its expected matrix.


def some_map(num_classes):
    """Both directions between two classes, one more confusion, others alone."""
    return (1, 0, *[1] * (num_classes > 2), *range(3, num_classes))


def some_matrix(rate, num_classes):
    """Rows with zeros, other than on the diagonal, and of unequal entries."""
    matrix = np.zeros((num_classes, num_classes))
    for i in range(num_classes):
        others = [j for j in range(num_classes) if j != i][: 1 + i % 3]
        for place, j in enumerate(others):
            matrix[i, j] = rate * (place + 1) / sum(range(1, len(others) + 1))
        matrix[i, i] = 1 - rate
    return matrix


def symmetric_matrix(rate, num_classes):
    matrix = np.full((num_classes, num_classes), rate / (num_classes - 1))
    for i in range(num_classes):
        matrix[i, i] = 1 - rate
    return matrix


def asymmetric_matrix(rate, num_classes):
    matrix = np.eye(num_classes)
    for i, j in enumerate(some_map(num_classes)):
        if i != j:
            matrix[i, i], matrix[i, j] = 1 - rate, rate
    return matrix


def pair_flip_matrix(rate, num_classes):
    matrix = np.zeros((num_classes, num_classes))
    for i in range(num_classes):
        matrix[i, i], matrix[i, (i + 1) % num_classes] = 1 - rate, rate
    return matrix


Kind = namedtuple("Kind", "draw matrix")
KINDS = {
    "symmetric": Kind(noise.symmetric, symmetric_matrix),
    "true-class-included": Kind(
        lambda labels, rate, num_classes, **kwargs: noise.symmetric(
            labels, rate, num_classes, include_true_class=True, **kwargs
        ),
        lambda rate, num_classes: symmetric_matrix(
            rate * (num_classes - 1) / num_classes, num_classes
        ),
    ),
    "asymmetric": Kind(
        lambda labels, rate, num_classes, **kwargs: noise.asymmetric(
            labels, rate, some_map(num_classes), **kwargs
        ),
        asymmetric_matrix,
    ),
    "pair-flip": Kind(noise.pair_flip, pair_flip_matrix),
    "transition": Kind(
        lambda labels, rate, num_classes, **kwargs: noise.from_transition(
            labels, some_matrix(rate, num_classes), **kwargs
        ),
        some_matrix,
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

problems = st.integers(2, 12).flatmap(
    lambda num_classes: st.tuples(
        arrays("int64", st.integers(1, 80), elements=st.integers(0, num_classes - 1)),
        st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
        st.just(num_classes),
    )
)


def counts_of(noisy):
    counts = np.zeros((noisy.num_classes, noisy.num_classes), int)
    np.add.at(counts, (noisy.clean, noisy.labels), 1)
    return counts


@every_kind
@pytest.mark.parametrize("exact", [False, True], ids=("independent", "exact"))
@given(problem=problems, seed=st.integers(0, 2**40))
@reproducibly
def test_what_is_returned_is_what_was_done(kind, exact, problem, seed):
    labels, rate, num_classes = problem
    given_labels = labels.copy()
    noisy = kind.draw(labels, rate, num_classes, exact=exact, seed=seed)
    np.testing.assert_array_equal(labels, given_labels)
    np.testing.assert_array_equal(noisy.clean, labels)
    assert noisy.labels.dtype == noisy.clean.dtype == "int64"
    assert noisy.num_classes == num_classes
    matrix = kind.matrix(rate, num_classes)
    assert (matrix[noisy.clean, noisy.labels] > 0).all()
    counts = counts_of(noisy)
    np.testing.assert_array_equal(noisy.flipped, noisy.labels != labels)
    assert noisy.rate == pytest.approx(1 - np.trace(counts) / len(labels))
    for i, row in enumerate(noisy.transition):
        samples = counts[i].sum()
        expected = counts[i] / samples if samples else np.eye(num_classes)[i]
        np.testing.assert_allclose(row, expected)


@every_kind
@given(problem=problems, seed=st.integers(0, 2**40))
@reproducibly
def test_exact_counts_are_exact(kind, problem, seed):
    labels, rate, num_classes = problem
    noisy = kind.draw(labels, rate, num_classes, exact=True, seed=seed)
    counts, matrix = counts_of(noisy), kind.matrix(rate, num_classes)
    expected = np.bincount(labels, minlength=num_classes)[:, None] * matrix
    np.fill_diagonal(expected, 0)
    np.fill_diagonal(counts, 0)
    # Roundings of 1e-9 are those of the expectations themselves.
    assert abs(counts.sum() - expected.sum()) <= 0.5 + 1e-9
    flips = counts.sum(1)
    assert (abs(flips - expected.sum(1)) < 1 + 1e-9).all()
    total = np.maximum(expected.sum(1, keepdims=True), 1e-300)
    assert (abs(counts - flips[:, None] * expected / total) < 1 + 1e-9).all()


def test_exact_counts_of_whole_numbers():
    labels = np.repeat(np.arange(10), 900)
    noisy = noise.symmetric(labels, 0.4, 10, exact=True, seed=0)
    expected = 40 * np.ones((10, 10)) + 500 * np.eye(10)
    np.testing.assert_array_equal(counts_of(noisy), expected)


def test_equal_fractions_do_not_favour_low_ids():
    rng = np.random.default_rng(0)
    counts = sum(apportion(np.full(8, 0.5), rng) for _ in range(400))
    assert counts.sum() == 400 * 4
    assert stats.chisquare(counts).pvalue > 1e-3


def assert_likely(counts, samples, probabilities):
    """Checks binomial counts. All examples pass with a probability above 1 - 1e-9."""
    below = stats.binom.cdf(counts, samples, probabilities)
    above = stats.binom.sf(counts - 1, samples, probabilities)
    assert np.minimum(below, above).min() > 1e-9 / (2 * EXAMPLES * np.size(counts))


@every_kind
@given(
    num_classes=st.sampled_from([2, 3, 10, 100]),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**40),
)
@reproducibly
def test_independent_draws_are_within_binomial_bounds(kind, num_classes, rate, seed):
    labels = labels_of(num_classes, 20_000)
    counts = counts_of(kind.draw(labels, rate, num_classes, seed=seed))
    # SciPy refuses probabilities that rounding made larger than 1.
    matrix = np.minimum(kind.matrix(rate, num_classes), 1)
    assert_likely(counts, counts.sum(1, keepdims=True), matrix)


def test_wrong_labels_of_symmetric_noise_are_uniform():
    labels = labels_of(10, 50_000)
    noisy = noise.symmetric(labels, 0.6, 10, seed=2)
    shifts = (noisy.labels - labels)[noisy.flipped] % 10
    counts = np.bincount(shifts, minlength=10)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


def test_which_samples_flip_is_independent_of_their_position():
    labels = np.repeat([0, 1], 20_000)
    for exact in (False, True):
        flipped = noise.symmetric(labels, 0.5, 2, exact=exact, seed=3).flipped
        halves = flipped.reshape(4, -1).sum(1)
        assert stats.chisquare(halves).pvalue > 1e-3


def test_true_class_included_lowers_the_rate():
    labels = np.repeat(np.arange(10), 1000)
    noisy = noise.symmetric(
        labels, 0.5, 10, include_true_class=True, exact=True, seed=0
    )
    assert noisy.rate == 0.45
    assert noisy.asked_rate == 0.5
    assert "true class included" in repr(noisy)


@pytest.mark.parametrize("exact", [False, True], ids=("independent", "exact"))
def test_flips_are_drawn_from_clean_labels(exact):
    """If two classes are swapped, no label is flipped twice."""
    labels = labels_of(10, 1000)
    noisy = noise.asymmetric(labels, 1.0, noise.CIFAR10_CONFUSIONS, exact=exact, seed=0)
    expected = np.array([0, 1, 0, 5, 7, 3, 6, 7, 8, 1])[labels]
    np.testing.assert_array_equal(noisy.labels, expected)
    swapped = np.isin(labels, (3, 5))
    np.testing.assert_array_equal(noisy.flipped[swapped], True)


# Any number of classes.


def reversed_map(num_classes):
    return range(num_classes - 1, -1, -1)


# Kinds of noise without a matrix of all classes: how to draw them, the class that each
# class becomes, if there is only one, and its share of the rate.
Large = namedtuple("Large", "draw targets share")
LARGE = {
    "symmetric": Large(noise.symmetric, None, lambda num_classes: 1),
    "true-class-included": Large(
        KINDS["true-class-included"].draw,
        None,
        lambda num_classes: (num_classes - 1) / num_classes,
    ),
    "asymmetric": Large(
        lambda labels, rate, num_classes, **kwargs: noise.asymmetric(
            labels, rate, reversed_map(num_classes), **kwargs
        ),
        lambda labels, num_classes: num_classes - 1 - labels,
        lambda num_classes: 1,
    ),
    "pair-flip": Large(
        noise.pair_flip,
        lambda labels, num_classes: (labels + 1) % num_classes,
        lambda num_classes: 1,
    ),
}
every_large = pytest.mark.parametrize("kind", LARGE.values(), ids=LARGE)
sizes = st.sampled_from([2, 3, 17, 1000, 100_000]) | st.integers(2, 100_000)
rates = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
SAMPLES = 300


@every_large
@pytest.mark.parametrize("exact", [False, True], ids=("independent", "exact"))
@given(num_classes=sizes, rate=rates, seed=st.integers(0, 2**40))
@settings(reproducibly, max_examples=EXAMPLES // 2)
def test_any_number_of_classes(kind, exact, num_classes, rate, seed):
    # Few classes, because each one takes time.
    present = labels_of(num_classes, 5, seed)
    labels = present[labels_of(5, SAMPLES, seed)]
    tracemalloc.start()
    try:
        noisy = kind.draw(labels, rate, num_classes, exact=exact, seed=seed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 120 * num_classes
    flipped = noisy.labels != labels
    assert ((noisy.labels >= 0) & (noisy.labels < num_classes)).all()
    assert noisy.rate == flipped.mean()
    can_flip = np.ones(SAMPLES, bool)
    if kind.targets:
        targets = kind.targets(labels, num_classes)
        can_flip = targets != labels
        np.testing.assert_array_equal(noisy.labels[flipped], targets[flipped])
    probability = rate * kind.share(num_classes)
    if exact:
        expected = probability * can_flip.sum()
        assert abs(flipped.sum() - expected) <= 0.5 + 1e-9
    else:
        assert_likely(flipped.sum(), can_flip.sum(), min(probability, 1))
    if rate in (0, 1) and kind.share(num_classes) == 1:
        np.testing.assert_array_equal(flipped, can_flip & (rate == 1))


@every_large
@pytest.mark.parametrize("exact", [False, True], ids=("independent", "exact"))
@given(
    num_classes=sizes,
    rate=st.floats(0.3, 0.7),
    seeds=st.lists(st.integers(0, 2**40), min_size=2, max_size=2, unique=True),
)
@settings(reproducibly, max_examples=EXAMPLES // 4)
def test_only_the_same_seed_gives_the_same_labels(
    kind, exact, num_classes, rate, seeds
):
    # Classes that asymmetric noise leaves alone would be no noise at all.
    labels = np.repeat([0, num_classes - 1], SAMPLES)
    one, again, other = (
        kind.draw(labels, rate, num_classes, exact=exact, seed=seed).labels
        for seed in (seeds[0], seeds[0], seeds[1])
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_float32_matrices_are_accepted():
    matrix = some_matrix(0.3, 1000).astype("float32")
    labels = labels_of(1000, 5000)
    for exact in (False, True):
        noisy = noise.from_transition(labels, matrix, exact=exact, seed=0)
        assert noisy.asked_rate == pytest.approx(0.3, abs=1e-6)
        assert noisy.rate == pytest.approx(0.3, abs=0.05)


# Seeds.

IMAGES = np.random.default_rng(5).integers(0, 256, (2000, 6, 6), "uint8")


def instance_dependent(labels, rate, num_classes, seed, scale=1 / 1000):
    return noise.instance_dependent(
        IMAGES[: len(labels)], labels, rate, num_classes, scale=scale, seed=seed
    )


Pinned = namedtuple("Pinned", "draw sha256")
PINNED = {
    "symmetric": Pinned(KINDS["symmetric"].draw, "932c3d03cbf2385b"),
    "true-class-included": Pinned(
        KINDS["true-class-included"].draw, "9487f4ec7ac5eff9"
    ),
    "exact": Pinned(
        lambda *args, **kwargs: noise.symmetric(*args, exact=True, **kwargs),
        "6576a9bf5053e3be",
    ),
    "asymmetric": Pinned(KINDS["asymmetric"].draw, "27712eb7b70ede4e"),
    "pair-flip": Pinned(noise.pair_flip, "5a99c66dfd2bdc47"),
    "transition": Pinned(KINDS["transition"].draw, "ed024f781ac90e26"),
    "instance-dependent": Pinned(instance_dependent, "dfb5c3da7496de59"),
}


@pytest.mark.parametrize("pinned", PINNED.values(), ids=PINNED)
def test_a_seed_gives_the_same_labels_everywhere(pinned):
    noisy = pinned.draw(np.arange(2000) % 10, 0.4, 10, seed=7)
    digest = hashlib.sha256(noisy.labels.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == pinned.sha256


@pytest.mark.parametrize("pinned", PINNED.values(), ids=PINNED)
def test_seeds_and_generators(pinned):
    labels = np.arange(2000) % 10

    def draw(seed):
        return pinned.draw(labels, 0.4, 10, seed=seed)

    rng = np.random.default_rng(3)
    first, second = draw(rng), draw(rng)
    np.testing.assert_array_equal(first.labels, draw(3).labels)
    np.testing.assert_array_equal(first.labels, draw(np.int64(3)).labels)
    assert (first.labels != second.labels).any()
    assert (first.labels != draw(4).labels).any()
    assert first.seed == "Generator(PCG64)"
    assert draw(np.int64(3)).seed == 3


# Confusions.

# Superclass of each class, as in the meta file of the original data.
COARSE = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
    6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17,
    18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2,
    10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15,
    6, 0, 17, 8, 14, 13,
]  # fmt: skip


def confusions(mapping):
    return {i: j for i, j in enumerate(mapping) if i != j}


def test_published_confusions():
    assert len(noise.CIFAR10_CONFUSIONS) == len(noise.MNIST_CONFUSIONS) == 10
    assert confusions(noise.CIFAR10_CONFUSIONS) == {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
    assert confusions(noise.MNIST_CONFUSIONS) == {7: 1, 2: 7, 3: 8, 5: 6, 6: 5}
    assert len(noise.FASHION_MNIST_CONFUSIONS) == 10
    assert len(confusions(noise.FASHION_MNIST_CONFUSIONS)) == 5


def test_classes_of_cifar100():
    assert len(CIFAR100_CLASSES) == len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_HIERARCHY) == sorted(CIFAR100_HIERARCHY)
    for superclass, names in enumerate(CIFAR100_HIERARCHY.values()):
        ids = [CIFAR100_CLASSES.index(name) for name in names]
        assert ids == [i for i in range(100) if COARSE[i] == superclass]


def test_confusions_of_cifar100():
    for i, j in enumerate(noise.CIFAR100_SUPERCLASSES):
        siblings = [k for k in range(100) if COARSE[k] == COARSE[i]]
        assert j == min([k for k in siblings if k > i] or siblings)
    for i, j in enumerate(noise.CIFAR100_ALPHABETICAL_BLOCKS):
        assert j == 5 * (i // 5) + (i + 1) % 5


# Noise that depends on the sample.


def instance_dependent_reference(features, labels, rate, num_classes, scale, seed):
    """The paper's formula, sample by sample."""
    rng = np.random.default_rng(seed)
    flips = rng.random(len(labels))
    rates = rng.normal(rate, 0.1, len(labels))
    while ((rates < 0) | (rates > 1)).any():
        for i in np.flatnonzero((rates < 0) | (rates > 1)):
            rates[i] = rng.normal(rate, 0.1)
    uniform = rng.random(len(labels))
    rows = features.reshape(len(labels), -1).astype("float64")
    w = rng.standard_normal((num_classes, rows.shape[1], num_classes))
    noisy = []
    for i, y in enumerate(labels):
        a = scale * rows[i] @ w[y]
        a[y] = -np.inf
        softmax = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
        target = np.searchsorted(np.cumsum(softmax), uniform[i], side="right")
        noisy.append(target if flips[i] < rates[i] else y)
    return noisy


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255, 1 / 1000])
@pytest.mark.parametrize("rate", [0.05, 0.4, 0.97])
def test_instance_dependent_noise_equals_the_formula(rate, scale, dtype, monkeypatch):
    monkeypatch.setattr(_instance_dependent, "_CHUNK_NUMBERS", 36 * 7)
    features, labels = IMAGES[:300].astype(dtype), labels_of(7, 300)
    noisy = noise.instance_dependent(features, labels, rate, 7, scale=scale, seed=11)
    expected = instance_dependent_reference(features, labels, rate, 7, scale, 11)
    np.testing.assert_array_equal(noisy.labels, expected)
    assert noisy.kind == "instance-dependent"


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.4, 0.95])
def test_rate_of_instance_dependent_noise(rate):
    samples = 200_000
    features, labels = np.ones((samples, 1), "float32"), labels_of(2, samples)
    noisy = noise.instance_dependent(features, labels, rate, 2, scale=1.0, seed=0)
    mean = stats.truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1).mean()
    low, high = stats.binom.interval(1 - 1e-9, samples, mean) / np.array(samples)
    assert low <= noisy.rate <= high


def test_instance_dependent_noise_at_the_ends():
    labels = labels_of(10, 2000)
    assert instance_dependent(labels, 0, 10, seed=0).rate == 0
    assert instance_dependent(labels, 1, 10, seed=0).rate == 1


@pytest.mark.parametrize(("scale", "sharp"), [(1.0, True), (1 / 1000, False)])
def test_raw_pixels_leave_one_wrong_class(scale, sharp):
    """Equal images of a class, most of which flip."""
    features, labels = np.repeat(IMAGES[:1], 500, axis=0), np.zeros(500, int)
    noisy = noise.instance_dependent(features, labels, 0.9, 10, scale=scale, seed=0)
    assert (len(set(noisy.labels[noisy.flipped])) == 1) == sharp


def test_features_of_zero_flip_uniformly():
    features, labels = np.zeros((9000, 4)), np.zeros(9000, int)
    noisy = noise.instance_dependent(features, labels, 1, 10, scale=1.0, seed=0)
    assert stats.chisquare(np.bincount(noisy.labels)[1:]).pvalue > 1e-3


def test_instance_dependent_noise_converts_features_in_pieces():
    features, labels = np.ones((20_000, 3072), "uint8"), labels_of(2, 20_000)
    tracemalloc.start()
    try:
        noise.instance_dependent(features, labels, 0.9, 2, scale=1e-3, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < features.nbytes


# Inputs from outside.


@pytest.mark.parametrize("outside_count", [1, 7, 5000])
def test_open_set_noise(outside_count):
    inputs = np.arange(3000 * 4, dtype="float32").reshape(3000, 2, 2)
    outside = -1 - np.arange(outside_count * 4, dtype="float32").reshape(-1, 2, 2)
    given_inputs = inputs.copy()
    mixed = noise.open_set(inputs, outside, 0.4, seed=0)
    np.testing.assert_array_equal(inputs, given_inputs)
    np.testing.assert_array_equal(mixed.replaced, mixed.inputs[:, 0, 0] < 0)
    for i, source in enumerate(mixed.source):
        expected = inputs[i] if source < 0 else outside[source]
        np.testing.assert_array_equal(mixed.inputs[i], expected)
    low, high = stats.binom.interval(1 - 1e-9, 3000, 0.4)
    assert low <= mixed.replaced.sum() <= high
    uses = np.bincount(mixed.source[mixed.replaced], minlength=outside_count)
    assert uses.max() - uses.min() <= 1


def test_open_set_noise_says_what_it_did():
    inputs, outside = np.zeros((8, 3)), np.ones((8, 3))
    assert noise.open_set(inputs, outside, 0, seed=0).rate == 0
    mixed = noise.open_set(inputs, outside, 1, seed=0)
    assert repr(mixed) == "OpenSetInputs(asked_rate=1.0, rate=1, samples=8, seed=0)"
    np.testing.assert_array_equal(mixed.inputs, outside)
    assert sorted(mixed.source) == list(range(8))


# The result.


def test_repr_is_one_line_that_says_it_all():
    noisy = noise.symmetric(np.arange(10), 0.25, 10, exact=True, seed=3)
    assert repr(noisy) == (
        "NoisyLabels(kind='symmetric, exact counts', asked_rate=0.25, rate=0.2, "
        "samples=10, num_classes=10, seed=3)"
    )
    drawn = noise.pair_flip([0, 1], 1, 2, seed=np.random.default_rng(0))
    assert repr(drawn) == (
        "NoisyLabels(kind='pair flip', asked_rate=1.0, rate=1, samples=2, "
        "num_classes=2, seed='Generator(PCG64)')"
    )


def test_result_is_independent_of_what_was_given():
    labels, clean = np.array([0, 1, 1]), np.array([0, 1, 2])
    noisy = noise.NoisyLabels(labels, clean, 3)
    labels[:] = clean[:] = 0
    np.testing.assert_array_equal(noisy.flipped, [False, False, True])
    with pytest.raises(AttributeError):
        noisy.labels = labels


def test_more_labels_than_clean_ones():
    with pytest.raises(ValueError, match="Received: 2 labels, 3 clean"):
        noise.NoisyLabels([0, 1], [0, 1, 1], 2)


def test_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    noisy = noise.pair_flip([0, 1, 2, 2], 1, 3, seed=0)
    names = [r"$\frac{0}$", "b", "c"]  # No formula.
    ax = noisy.plot(class_names=names)
    ax.figure.canvas.draw()
    np.testing.assert_array_equal(ax.images[0].get_array(), noisy.transition)
    assert ax.get_title() == "pair flip, 100.0% flipped"
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert noisy.plot(ax=ax) is ax
    matplotlib.pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="expected 3 names. Received: 2"):
        noisy.plot(class_names=["a", "b"])


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        noise.pair_flip([0, 1], 1, 2, seed=0).plot()


# The number of classes.

INFERRED = {
    "symmetric": lambda labels, *classes: noise.symmetric(
        labels, 0.5, *classes, seed=0
    ),
    "pair-flip": lambda labels, *classes: noise.pair_flip(
        labels, 0.5, *classes, seed=0
    ),
    "instance-dependent": lambda labels, *classes: noise.instance_dependent(
        IMAGES[: len(labels)], labels, 0.5, *classes, scale=1 / 1000, seed=0
    ),
    "given": lambda labels, *classes: noise.NoisyLabels(
        labels, np.zeros(len(labels), int), *classes
    ),
    "given-clean": lambda labels, *classes: noise.NoisyLabels(
        np.zeros(len(labels), int), labels, *classes
    ),
}


@pytest.mark.parametrize("draw", INFERRED.values(), ids=INFERRED)
def test_the_number_of_classes_is_inferred(draw):
    labels = np.arange(200) % 7
    noisy, given_noisy = draw(labels), draw(labels, 7)
    assert noisy.num_classes == given_noisy.num_classes == 7
    np.testing.assert_array_equal(noisy.labels, given_noisy.labels)
    assert "num_classes=7 (largest label + 1), seed" in repr(noisy)
    assert "num_classes=7, seed" in repr(given_noisy)
    assert not noisy.num_classes_given
    assert given_noisy.num_classes_given
    with pytest.raises(ValueError, match="two classes, .* Received: only labels"):
        draw([0, 0])


@pytest.mark.parametrize("name", ["asymmetric", "transition"])
def test_a_map_or_a_matrix_tells_the_number_of_classes(name):
    noisy = GENERATORS[name]([0, 1])
    assert noisy.num_classes == 3
    assert "num_classes=3, seed" in repr(noisy)


def test_a_matrix_takes_no_more_than_its_memory():
    labels = np.arange(3000) % 1500
    noisy = noise.pair_flip(labels, 0.4, 2000, seed=0)
    tracemalloc.start()
    try:
        matrix = noisy.transition
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * matrix.nbytes
    np.testing.assert_array_equal(matrix.sum(1), 1)


# What is refused.

LABELS, NAN = [0, 1, 2], math.nan
BAD_LABELS = {
    "fractions": (
        [0.0, 0.5],
        r"integers in \[0, 3\).*dtype float64.*, 0.5 at position 1",
    ),
    "missing": (
        [0, 1, None, NAN],
        r"Received: labels of dtype object and shape \(4,\)",
    ),
    "nan": ([0, 1, NAN], "isnan.* Received: .*, nan at position 2"),
    "infinite": ([0, math.inf], "at least one label. Received: .*, inf at position 1"),
    "volume": (np.eye(3)[None], r"at least one label. Received: .* shape \(1, 3, 3\)"),
    "ragged": ([[0, 1], [2]], r"Received: .* dtype object and shape \(2,\)"),
    "several": ([[1, 1, 0], [0, 0, 0]], r"`labels\[:, 0\]`. Received: .* \(2, 3\)"),
    "empty": ([], r"at least one label. Received: .* shape \(0,\)"),
    "number": (1, "Received: labels of type int"),
    "nothing": (None, "Received: labels of type NoneType"),
    "negative": ([0, -1], "Received: -1 at position 1"),
    "too-large": ([0, 3, 4], r"\). Received: 3 at position 1 \(2 of 3 are outside\)"),
    "from-one": (
        [1, 2, 3],
        r"Count from 0 with `np.subtract\(labels, 1\)`. Received: 3",
    ),
    "huge": (np.array([2**63], "uint64"), "Received: 9223372036854775808"),
}
# Labels with the line that converts them to the ids 0, 2, 1, 0.
IDS = [0, 2, 1, 0]
NAMES = ["cat", "horse", "dog", "cat"]
MENDED = {
    "floats": (np.array(IDS) / 1, "np.array(labels, int)"),
    "objects": (np.array(IDS, "object"), "np.array(labels, int)"),
    "texts": (NAMES, "names, ids = np.unique(labels, return_inverse=True)"),
    "series": (pd.Series(NAMES), "names, ids = np.unique(labels, return_inverse=True)"),
    "column": (np.array(IDS)[:, None], "np.ravel(labels)"),
    "one-hot": (np.eye(3)[IDS].tolist(), "np.argmax(labels, -1)"),
    "table": (pd.get_dummies(NAMES)[["cat", "dog", "horse"]], "np.argmax(labels, -1)"),
    "categories": (pd.Categorical(NAMES), "labels.codes"),
    "category": (pd.Series(NAMES, dtype="category"), "labels.cat.codes"),
    "noisy": (noise.NoisyLabels(IDS, IDS, 3), "labels.labels"),
}
# For each the line that says which labels are there, and the first that is not.
GAPS = {
    "list": (
        ["a", None, "b", float("nan")],
        "[isinstance(label, str) for label in labels]",
    ),
    "numbers": ([0, None, 1, None], "[label is not None for label in labels]"),
    "floats": (np.array([0, np.nan, 1, np.nan]), "~np.isnan(labels)"),
    "strings": (pd.Series(["cat", None, "dog", None]), "labels.notna()"),
    "integers": (pd.Series([0, None, 1, None], dtype="Int64"), "labels.notna()"),
    "categories": (pd.Categorical(["cat", None, "dog", None]), "labels.notna()"),
}  # fmt: skip
TAKEN = {
    **{f"{kind}int{bits}": np.array(IDS, f"{kind}int{bits}")
       for kind in ("", "u") for bits in (8, 16, 32, 64)},
    "list": IDS,
    "tuple": tuple(IDS),
    "big-endian": np.array(IDS, ">i4"),
    "series": pd.Series(IDS, index=[7, 5, 3, 1]),
    "categories": pd.Categorical(IDS, categories=[2, 1, 0]),
}  # fmt: skip
GENERATORS = {
    "symmetric": lambda labels=LABELS, rate=0.4, seed=0: noise.symmetric(
        labels, rate, 3, seed=seed
    ),
    "asymmetric": lambda labels=LABELS, rate=0.4, seed=0: noise.asymmetric(
        labels, rate, (1, 2, 0), seed=seed
    ),
    "pair-flip": lambda labels=LABELS, rate=0.4, seed=0: noise.pair_flip(
        labels, rate, 3, seed=seed
    ),
    "transition": lambda labels=LABELS, rate=0, seed=0: noise.from_transition(
        labels, rate / 3 + np.eye(3) * (1 - rate), seed=seed
    ),
    "instance-dependent": lambda labels=LABELS, rate=0.4, seed=0: (
        noise.instance_dependent(IMAGES[:3], labels, rate, 3, scale=1.0, seed=seed)
    ),
    "open-set": lambda rate=0.4, seed=0: noise.open_set(
        IMAGES[:3], IMAGES[3:], rate, seed=seed
    ),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
@pytest.mark.parametrize("name", list(GENERATORS)[:-1])
def test_bad_labels(name, labels, message):
    with pytest.raises(ValueError, match=f"`labels`: expected class ids.*{message}"):
        GENERATORS[name](labels)


@pytest.mark.parametrize(("labels", "line"), MENDED.values(), ids=MENDED)
@pytest.mark.parametrize("name", list(GENERATORS)[:-1])
def test_the_message_says_what_makes_ids(name, labels, line):
    with pytest.raises(ValueError, match=re.escape(f"`{line}`. Received: ")):
        GENERATORS[name](labels)
    names = {"np": np, "labels": labels}
    exec(line if line.startswith("names") else f"ids = {line}", names)
    assert np.array(names["ids"]).tolist() == IDS


@pytest.mark.parametrize(("labels", "line"), GAPS.values(), ids=GAPS)
def test_the_message_says_which_labels_are_missing(labels, line):
    with pytest.raises(ValueError, match="at position 1 and 1 more") as error:
        noise.symmetric(labels, 0.4, 3, seed=0)
    assert f"`keep = {line}`. Received: " in str(error.value)
    kept = eval(line, {"np": np, "labels": labels})
    assert [*kept] == [True, False, True, False]


@pytest.mark.parametrize("labels", TAKEN.values(), ids=TAKEN)
def test_labels_are_whatever_numpy_makes_integers_of(labels):
    expected = noise.symmetric(IDS, 0.5, 3, seed=0)
    noisy = noise.symmetric(labels, 0.5, 3, seed=0)
    np.testing.assert_array_equal(noisy.labels, expected.labels)
    assert noisy.clean.dtype == "int64"
    np.testing.assert_array_equal(noise.NoisyLabels(labels, IDS, 3).labels, IDS)


@pytest.mark.parametrize("rate", [-0.1, 1.1, NAN, math.inf, "0.4", None, True])
@pytest.mark.parametrize("name", [x for x in GENERATORS if x != "transition"])
def test_bad_rates(name, rate):
    with pytest.raises(ValueError, match=r"`rate`: expected a number in \[0, 1\]"):
        GENERATORS[name](rate=rate)


@pytest.mark.parametrize("seed", [-1, 0.5, None, "0", True])
@pytest.mark.parametrize("name", GENERATORS)
def test_bad_seeds(name, seed):
    with pytest.raises(ValueError, match="`seed`: expected an integer .* Received"):
        GENERATORS[name](seed=seed)


def from_transition(matrix):
    return noise.from_transition(LABELS, matrix, seed=0)


def asymmetric(mapping):
    return noise.asymmetric(LABELS, 0.4, mapping, seed=0)


def with_features(features, scale=1.0):
    return noise.instance_dependent(features, LABELS, 1, 3, scale=scale, seed=0)


BAD_ARGUMENTS = {
    "one-class": (
        lambda: noise.symmetric([0], 0.4, 1, seed=0),
        "`num_classes`: expected an integer of at least 2. Received: num_classes=1",
    ),
    "classes-as-float": (
        lambda: noise.pair_flip([0], 0.4, 3.0, seed=0),
        "`num_classes`.*Received: num_classes=3.0",
    ),
    "exact-as-text": (
        lambda: noise.pair_flip([0], 0.4, 3, exact="yes", seed=0),
        "`exact`: expected `True` or `False`. Received: exact='yes'",
    ),
    "true-class-as-number": (
        lambda: noise.symmetric([0], 0.4, 3, include_true_class=1, seed=0),
        "`include_true_class`: expected",
    ),
    "map-above": (lambda: asymmetric((1, 2, 3)), r"Received: mapping\[2\]=3"),
    "map-below": (lambda: asymmetric((1, -1, 0)), r"Received: mapping\[1\]=-1"),
    "map-of-floats": (lambda: asymmetric((1.0, 0.0, 2.0)), "a sequence of integers"),
    "map-as-dict": (lambda: asymmetric({0: 1}), "a sequence of integers.*{0: 1}"),
    "map-of-one": (lambda: asymmetric([0]), r"two classes. Received: \[0\]"),
    "map-too-short": (
        lambda: asymmetric((1, 0)),
        "`labels`.*Received: 2 at position 2",
    ),
    "not-square": (lambda: from_transition(np.ones((2, 3)) / 3), r"shape \(2, 3\)"),
    "not-numbers": (lambda: from_transition([["a", "b"]] * 2), "dtype <U1"),
    "not-finite": (
        lambda: from_transition([[NAN, 1], [0, 1]]),
        "Received: .*0, 0.=nan",
    ),
    "negative": (lambda: from_transition([[1.5, -0.5], [0, 1]]), "Received: .*=-0.5"),
    "rows": (lambda: from_transition(np.eye(3) * 0.9), "a sum of 0.9 in row 0"),
    "columns": (
        lambda: from_transition([[0.9, 0.4], [0.1, 0.6]]),
        "transpose the matrix. Received: a sum of 1.3 in row 0",
    ),
    "matrix-too-small": (
        lambda: from_transition(np.eye(2)),
        "`labels`.*Received: 2 at position 2",
    ),
    "counts": (lambda: with_features(IMAGES[:4]), "Received: 4 rows, 3 labels"),
    "flat-features": (lambda: with_features(np.ones(3)), r"`features`.*shape \(3,\)"),
    "no-features": (lambda: with_features(np.ones((3, 0))), r"shape \(3, 0\)"),
    "batches": (lambda: with_features(iter([IMAGES])), r"zip\(\*features\)"),
    "ragged": (lambda: with_features([[1], [2, 3], [4]]), r"object, shape \(3,\)"),
    "texts": (lambda: with_features(np.full((3, 2), "a")), "dtype <U1"),
    "nan": (lambda: with_features(np.full((3, 2), NAN)), "expected finite numbers"),
    "zero-scale": (lambda: with_features(IMAGES[:3], 0), "`scale`.*Received: scale=0"),
    "infinite-scale": (lambda: with_features(IMAGES[:3], math.inf), "`scale`"),
    "other-shape": (
        lambda: noise.open_set(IMAGES, IMAGES[:, :5], 0.4, seed=0),
        r"shape \(2000, 6, 6\), outside of dtype uint8 and shape \(2000, 5, 6\)",
    ),
    "other-dtype": (
        lambda: noise.open_set(IMAGES, IMAGES / 255, 0.4, seed=0),
        "inputs of dtype uint8 .*outside of dtype float64",
    ),
    "nothing-outside": (
        lambda: noise.open_set(IMAGES, IMAGES[:0], 0.4, seed=0),
        "at least one sample each",
    ),
    "batches-from-outside": (
        lambda: noise.open_set(IMAGES, iter([IMAGES]), 0.4, seed=0),
        r"`outside`: expected arrays.*zip\(\*outside\)",
    ),
    "single-input": (lambda: noise.open_set(1, 2, 0.4, seed=0), r"shape \(\)"),
}


@given(
    num_classes=st.integers(2, 12),
    rate=st.floats(0, 1),
    place=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    wrong=st.sampled_from([NAN, math.inf, -math.inf])
    | st.floats(max_value=-1e-300)
    | st.floats(min_value=1.00001),
)
@reproducibly
def test_a_matrix_with_a_wrong_entry(num_classes, rate, place, wrong):
    matrix = some_matrix(rate, num_classes)
    row, column = (i % num_classes for i in place)
    matrix[row, column] = wrong
    said = f"a sum of .* in row {row}" if wrong >= 0 else re.escape(f"={wrong}")
    with pytest.raises(ValueError, match=f"`matrix`: expected .*Received: .*{said}"):
        noise.from_transition(labels_of(num_classes, 5), matrix, seed=0)


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
