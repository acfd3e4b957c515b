import functools
from collections import namedtuple
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from keras_logitclip import bounds
from keras_logitclip.losses import CrossEntropy
from tests import oracle
from tests.oracle import INF

pytestmark = pytest.mark.once

ORDERS = (1, 1.05, 1.5, 2, 3, 20, INF)
reproducibly = settings(max_examples=80, deadline=None, derandomize=True)
orders = st.sampled_from(ORDERS) | st.floats(1, 50)
taus = st.floats(-3, 3).map(lambda exponent: 10**exponent)
numbers_of_classes = st.integers(2, 40)
seeds = st.integers(0, 2**32 - 1)


def cross_entropies(z):
    """The cross-entropy of each label, on the last axis."""
    return -oracle.log_softmax(z)


@given(taus, numbers_of_classes, orders, seeds)
@reproducibly
def test_no_point_of_the_ball_is_outside(tau, classes, p, seed):
    losses = cross_entropies(oracle.points_of_ball(tau, classes, p, seed))
    lower, upper = bounds.cross_entropy_bounds(tau, classes, p)
    rounding = 1e-13 * max(tau, 1)
    assert lower - rounding <= losses.min() <= losses.max() <= upper + rounding
    most_probable = bounds.max_probability(tau, classes, p)
    assert np.exp(-losses).max() <= most_probable * (1 + 1e-12 * max(tau, 1))


@given(taus, st.integers(2, 10**6), orders)
@reproducibly
def test_looser_bounds_contain_the_exact_ones(tau, classes, p):
    lower, upper = bounds.cross_entropy_bounds(tau, classes, p)
    closed_form = bounds.closed_form_upper_bound(tau, classes, p)
    paper = bounds.paper_cross_entropy_bounds(tau, classes)
    above = 1 + 1e-14
    assert paper.lower <= lower * above
    assert lower < np.log(classes) * above
    assert np.log(classes) < upper * above
    assert upper <= closed_form * above
    assert closed_form <= paper.upper * above


def test_the_papers_formula():
    lower, upper = bounds.paper_cross_entropy_bounds(1.5, 10)
    assert lower == pytest.approx(np.log(1 + 9 * np.exp(-3)), rel=1e-14)
    assert upper == pytest.approx(np.log(1 + 9 * np.exp(3)), rel=1e-14)


def optimum(tau, classes, p, sign):
    """The largest `sign * cross-entropy` of label 0 that an optimizer finds."""

    def value(direction):
        z = tau * direction / oracle.norm(direction, p)
        return -sign * cross_entropies(z)[0]

    label, other = np.eye(classes)[:2]
    starts = [-label, other - label, 0.2 - 1.2 * label, label - 0.3]
    starts = [start + 0.03 * np.sin(np.arange(classes)) for start in starts]
    return sign * max(-minimize(value, start, tol=1e-12).fun for start in starts)


@pytest.mark.parametrize("tau", [0.01, 0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("p", [1.3, 2, 4])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_both_ends_are_what_an_optimizer_attains(classes, p, tau):
    expected = [optimum(tau, classes, p, sign) for sign in (-1, 1)]
    actual = bounds.cross_entropy_bounds(tau, classes, p)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("p", [1, INF])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_both_ends_are_corners_where_the_ball_has_corners(classes, p, tau):
    signs = np.array(list(product([-1.0, 1.0], repeat=classes)))
    corners = {1: np.concatenate([np.eye(classes), -np.eye(classes)]), INF: signs}[p]
    losses = cross_entropies(tau * corners)
    actual = bounds.cross_entropy_bounds(tau, classes, p)
    expected = [losses.min(), losses.max()]
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-14)


def largest_of_three_values(tau, classes, p):
    """The largest cross-entropy where the label, one class and the rest differ."""

    def loss(logs):
        shares = np.array([0, *logs])
        norm = np.log(np.exp(p * shares) @ [1, 1, classes - 2]) / p
        label, one, rest = tau * np.exp(shares - norm)
        return label + np.logaddexp(one, rest + np.log(classes - 2))

    equal = -np.log(classes - 1) / (p - 1)
    starts = [(equal, equal), (0, equal), (0, -15), (-1, equal)]
    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 2000}
    best = max(
        -minimize(lambda x: -loss(x), x, method="Nelder-Mead", options=options).fun
        for x in starts
    )
    return np.logaddexp(0, best)


@pytest.mark.parametrize("tau", [0.001, 1.0, 8.0, 30.0, 1000.0])
@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize("classes", [10, 1000, 10**6])
def test_the_exact_maximum_for_many_classes_and_long_logits(classes, p, tau):
    upper = bounds.cross_entropy_bounds(tau, classes, p).upper
    expected = largest_of_three_values(tau, classes, p)
    assert upper == pytest.approx(expected, rel=1e-9)


@given(taus, orders)
@reproducibly
def test_two_classes_have_a_closed_form(tau, p):
    distance = 2 ** (1 - 1 / p) * tau
    expected = np.logaddexp(0, [-distance, distance])
    actual = bounds.cross_entropy_bounds(tau, 2, p)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("classes", [2, 10, 10**6])
def test_bounds_widen_with_tau(classes, p):
    rows = [
        bounds.cross_entropy_bounds(tau, classes, p) for tau in np.geomspace(0.01, 50)
    ]
    assert (np.diff(rows, axis=0) * [-1, 1] > 0).all()


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("classes", [2, 10, 10**6])
def test_limits_of_tau(classes, p):
    np.testing.assert_allclose(
        bounds.cross_entropy_bounds(1e-12, classes, p), np.log(classes), rtol=1e-11
    )
    assert bounds.cross_entropy_bounds(INF, classes, p) == (0, INF)
    assert bounds.closed_form_upper_bound(INF, classes, p) == INF
    assert bounds.max_probability(INF, classes, p) == 1
    assert bounds.max_probability(1e-12, classes, p) == pytest.approx(1 / classes)


# Probabilities and thresholds.


@given(st.floats(1e-9, 1 - 1e-9), st.integers(2, 10**6), orders)
@reproducibly
def test_a_threshold_makes_its_probability_possible(share, classes, p):
    probability = 1 / classes + share * (1 - 1 / classes)
    tau = bounds.tau_for_probability(probability, classes, p)
    actual = bounds.max_probability(tau, classes, p)
    assert actual == pytest.approx(probability, rel=1e-9)


@given(st.floats(0.01, 5), st.integers(2, 10**6), orders)
@reproducibly
def test_the_probability_gives_the_threshold_back(tau, classes, p):
    probability = bounds.max_probability(tau, classes, p)
    actual = bounds.tau_for_probability(probability, classes, p)
    assert actual == pytest.approx(tau, rel=1e-6)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("rate", [1e-3, 0.2, 0.4, 0.49])
def test_the_threshold_of_a_noise_rate_allows_the_rest(rate, p):
    tau = bounds.tau_for_noise_rate(rate, 2, p)
    assert tau == pytest.approx(bounds.tau_for_probability(1 - rate, 2, p))
    tau = bounds.tau_for_noise_rate(rate, 10, p)
    assert bounds.max_probability(tau, 10, p) == pytest.approx(1 - rate)


def test_the_threshold_of_little_noise():
    assert bounds.tau_for_noise_rate(0, 10) == INF
    expected = np.log(9e30) / np.sqrt(10 / 9)
    assert bounds.tau_for_noise_rate(1e-30, 10) == pytest.approx(expected)


# Excess risks.


def symmetric_matrix(rate, classes):
    others = 1 - np.eye(classes)
    return (1 - rate) * np.eye(classes) + rate / (classes - 1) * others


def pair_flip(rate, classes):
    return (1 - rate) * np.eye(classes) + rate * np.roll(np.eye(classes), 1, axis=1)


def sums_over_labels(z):
    return cross_entropies(z).sum(-1)


def range_of_sum(tau, classes, p):
    """Returns the range of the sum that `excess_risk_bound` uses, from its value."""
    rate = 1e-3
    bound = bounds.excess_risk_bound(tau, classes, rate, p)
    return bound * (classes - 1 - classes * rate) / rate


@given(taus, numbers_of_classes, orders, seeds)
@reproducibly
def test_no_point_of_the_ball_exceeds_the_range_of_the_sum(tau, classes, p, seed):
    sums = sums_over_labels(oracle.points_of_ball(tau, classes, p, seed))
    rounding = 1e-12 * classes * max(tau, 1)
    excess = sums.max() - classes * np.log(classes)
    assert excess <= range_of_sum(tau, classes, p) + rounding


@pytest.mark.parametrize("tau", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_range_of_the_sum_is_attained(classes, p, tau):
    one = np.eye(classes)[0]
    centered = np.sqrt(classes / (classes - 1)) * (one - 1 / classes)
    signs = np.array(list(product([-1.0, 1.0], repeat=classes)))
    extremes = {1: np.stack([one, -one]), 2: centered, INF: signs}[p]
    excess = sums_over_labels(tau * extremes).max() - classes * np.log(classes)
    assert range_of_sum(tau, classes, p) == pytest.approx(excess, rel=1e-9)


def test_the_range_of_the_sum_for_many_classes_and_short_logits():
    # Of second order: the variance of the logits, half of it for each class.
    assert range_of_sum(1e-4, 10**6, 2) == pytest.approx(1e-8 / 2, rel=1e-3)
    assert range_of_sum(1e-9, 10, 2) == pytest.approx(1e-18 / 2, rel=1e-6)
    assert range_of_sum(1e-9, 10, INF) == pytest.approx(10e-18 / 2, rel=1e-6)
    assert np.isfinite(range_of_sum(1000, 10**6, 2))


Noise = namedtuple("Noise", "matrix frequencies", defaults=(None,))
FREQUENCIES = np.array([0.5, 0.3, 0.2])
NOISES = {
    "symmetric": Noise(symmetric_matrix(0.3, 3)),
    "heavy": Noise(symmetric_matrix(0.6, 3)),
    "pair-flip": Noise(pair_flip(0.3, 3)),
    "one-class": Noise(np.array([[0.6, 0.4, 0], [0, 1, 0], [0, 0, 1]]), FREQUENCIES),
    "uneven": Noise(np.array([[0.7, 0.2, 0.1], [0.1, 0.9, 0], [0.3, 0.1, 0.6]])),
    "true-class-rare": Noise(pair_flip(0.7, 3)),
}


def excess_bound(noise, tau, p):
    bound = bounds.class_dependent_excess_risk_bound(tau, *noise[:1], p, noise[1])
    if noise is NOISES["symmetric"]:
        return min(bound, bounds.excess_risk_bound(tau, 3, 0.3, p))
    if noise is NOISES["heavy"]:
        return min(bound, bounds.excess_risk_bound(tau, 3, 0.6, p))
    return bound


@pytest.mark.parametrize("tau", [0.5, 3.0])
@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_no_pair_of_models_loses_more_clean_risk(noise, p, tau):
    """A model is one point of the ball for each class, whose inputs are the same."""
    frequencies = np.ones(3) / 3 if noise.frequencies is None else FREQUENCIES
    z = oracle.points_of_ball(tau, 3, p, seed=0, number=6000).reshape(-1, 3, 3)
    losses = cross_entropies(z)
    clean = np.einsum("nyy,y->n", losses, frequencies)
    noisy = np.einsum("nyk,yk,y->n", losses, noise.matrix, frequencies)
    better_or_equal = noisy[:, None] <= noisy[None, :]
    lost = np.where(better_or_equal, clean[:, None] - clean[None, :], 0).max()
    assert 0 < lost <= excess_bound(noise, tau, p)


# A toy problem: 8 inputs, their clean labels uncertain, and linear models, none of
# which is right everywhere.
INPUTS = np.random.default_rng(3).normal(size=(8, 2))
CLEAN = np.random.default_rng(4).dirichlet([0.3] * 3, 8)


STARTS = list(np.random.default_rng(5).normal(size=(3, 6)))


def risk(weights, labels, tau, p):
    z = oracle.clip(INPUTS @ weights.reshape(2, 3), tau, p)
    return (labels * cross_entropies(z)).sum(-1).mean()


def minimizer_of_risk(labels, tau, p, starts):
    settings = (labels, tau, p)
    found = [minimize(risk, start, settings, tol=1e-10).x for start in starts]
    return min([*found, *starts], key=lambda weights: risk(weights, *settings))


@functools.cache
def minimizer_of_clean_risk(tau, p):
    return minimizer_of_risk(CLEAN, tau, p, STARTS)


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_excess_risk_of_a_trained_toy_model(noise, p, tau):
    best = minimizer_of_clean_risk(tau, p)
    found = minimizer_of_risk(CLEAN @ noise.matrix, tau, p, [*STARTS, best])
    best = minimizer_of_risk(CLEAN, tau, p, [best, found])
    excess = risk(found, CLEAN, tau, p) - risk(best, CLEAN, tau, p)
    # The frequencies of the toy problem's classes, not those of the case.
    bound = excess_bound(noise._replace(frequencies=CLEAN.mean(0)), tau, p)
    assert 0 <= excess <= bound


@given(taus, numbers_of_classes, st.floats(0, 0.999), orders)
@reproducibly
def test_symmetric_noise_as_a_matrix(tau, classes, share, p):
    rate = share * (classes - 1) / classes
    bound = bounds.excess_risk_bound(tau, classes, rate, p)
    matrix = symmetric_matrix(rate, classes)
    of_matrix = bounds.class_dependent_excess_risk_bound(tau, matrix, p)
    assert of_matrix <= bound * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("p", ORDERS)
def test_excess_risk_grows_with_tau_and_noise(p):
    rates, few_taus = np.linspace(0, 0.89, 12), np.geomspace(0.01, 100, 12)
    table = np.array(
        [[bounds.excess_risk_bound(tau, 10, r, p) for r in rates] for tau in few_taus]
    )
    assert (table[:, 0] == 0).all()
    assert (np.diff(table, axis=1) >= 0).all()
    assert (np.diff(table[:, 1:], axis=0) > 0).all()


def test_excess_risk_is_no_more_than_the_range_of_the_loss():
    for tau in (1.0, 100.0):
        lower, upper = bounds.cross_entropy_bounds(tau, 10)
        assert bounds.excess_risk_bound(tau, 10, 0.89999) == upper - lower
        matrix = pair_flip(1.0, 10)
        actual = bounds.class_dependent_excess_risk_bound(tau, matrix)
        assert actual == pytest.approx(upper - lower)


def test_frequencies_of_the_classes_sharpen_the_bound():
    case = NOISES["one-class"]
    of_any = bounds.class_dependent_excess_risk_bound(1.0, case.matrix)
    of_these = bounds.class_dependent_excess_risk_bound(
        1.0, case.matrix, class_frequencies=[0.1, 0.5, 0.4]
    )
    assert 0 < of_these < 0.5 * of_any


def test_without_noise_or_without_clipping():
    assert bounds.excess_risk_bound(INF, 10, 0) == 0
    assert bounds.excess_risk_bound(INF, 10, 0.1) == INF
    without, some = np.eye(10), symmetric_matrix(0.1, 10)
    assert bounds.class_dependent_excess_risk_bound(1.0, without) == 0
    assert bounds.class_dependent_excess_risk_bound(INF, without) == 0
    assert bounds.class_dependent_excess_risk_bound(INF, some) == INF


# Bad input.

TAU_FUNCTIONS = {
    "cross_entropy_bounds": lambda **k: bounds.cross_entropy_bounds(**k),
    "closed_form_upper_bound": lambda **k: bounds.closed_form_upper_bound(**k),
    "max_probability": lambda **k: bounds.max_probability(**k),
    "excess_risk_bound": lambda **k: bounds.excess_risk_bound(noise_rate=0.1, **k),
    "loss_bounds": lambda **k: bounds.loss_bounds(CrossEntropy(), **k),
}
BAD = [
    ("tau", 0),
    ("tau", -1.0),
    ("tau", float("nan")),
    ("tau", "1"),
    ("num_classes", 1),
    ("num_classes", 10.0),
    ("num_classes", True),
    ("p", 0.5),
    ("p", None),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
@pytest.mark.parametrize("function", TAU_FUNCTIONS.values(), ids=TAU_FUNCTIONS)
def test_bad_arguments(function, name, value):
    arguments = {"tau": 1.0, "num_classes": 10, "p": 2, name: value}
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received: {name}="):
        function(**arguments)


@pytest.mark.parametrize("value", [0.1, 0.05, 0, 1, 1.5, -0.5, "0.5", float("nan")])
def test_probabilities_that_no_threshold_gives(value):
    with pytest.raises(
        ValueError, match=r"`probability`: expected .*\(0.1, 1\).*10 classes.*="
    ):
        bounds.tau_for_probability(value, 10)


@pytest.mark.parametrize("value", [-0.1, 0.9, 0.95, 1, None, float("nan")])
@pytest.mark.parametrize(
    "function",
    [
        bounds.tau_for_noise_rate,
        lambda rate, classes: bounds.excess_risk_bound(1.0, classes, rate),
    ],
    ids=("tau", "excess-risk"),
)
def test_noise_rates_that_hide_the_true_class(function, value):
    with pytest.raises(
        ValueError, match=r"`noise_rate`: expected .*\[0, 0.9\).*10 classes.*="
    ):
        function(value, 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tau", 0),
        ("p", 0),
        ("matrix", np.eye(3)[:2]),
        ("matrix", 0.5 * np.eye(3)),
        ("class_frequencies", [0.5, 0.5]),
        ("class_frequencies", [0.5, 0.5, 0.5]),
        ("class_frequencies", [1.5, -0.5, 0]),
        ("class_frequencies", [np.nan, 1, 0]),
        ("class_frequencies", "abc"),
    ],
    ids=str,
)
def test_bad_arguments_of_class_dependent_noise(name, value):
    arguments = {"tau": 1.0, "matrix": np.eye(3), "p": 2, "class_frequencies": None}
    with pytest.raises(ValueError, match=f"`{name}`: expected .* Received:"):
        bounds.class_dependent_excess_risk_bound(**{**arguments, name: value})
