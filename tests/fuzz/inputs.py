"""Draws the inputs of draws: logits, labels, weights and masks.

All draws of a configuration are stacked, with the rows along the last axis.
"""

from collections import namedtuple

import ml_dtypes
import numpy as np

from tests import oracle
from tests.oracle import INF

Inputs = namedtuple(
    "Inputs",
    [
        "given",  # Arrays for the library, by their names.
        "z",  # Logits, zero where they are hidden.
        "y",  # Weights of the classes.
        "upstream",
        "weights",  # Of the samples, or None.
        "mask",  # What `_keras_mask` and `ignore_class` keep together, or None.
        "hidden",  # Rows without influence.
        "invalid",  # Rows whose id is no class, which nothing hides.
    ],
)
# Values of hidden samples.
JUNK_LOGITS, JUNK_IDS = [float("nan"), INF, -INF, 6e4], [-1, -100, 255, 1_000_000]
INVALID_IDS = [-1, -100, 1_000_000]
# From just below to just above tau, in units of the last place.
STEPS = [-64, -8, -2, -1, 0, 1, 2, 8, 64]
# How a draw's rows differ from each other, and how often.
FLAVOURS = {"usual": 0.5, "of one size": 0.15, "mixed": 0.25, "close to tau": 0.1}


def draw_inputs(configuration, rng):
    c = configuration
    z, ids = _logits(rng, c), _ids(rng, c)
    given = {"logits": z, "upstream": _upstream(rng, c)}
    weights, mask = _hiding(rng, c)
    if weights is not None:
        given["weights"] = weights
    if mask is not None:
        given["mask"] = mask
    if c.ignore_class is not None:
        shown = ids != c.ignore_class
        mask = shown if mask is None else mask & shown
    hidden = _hidden(c, weights, mask)
    is_class = (ids >= 0) & (ids < c.classes) & (ids == np.floor(ids))
    y = _soft(rng, c) if c.labels == "soft" else _one_hot(ids, hidden, c)
    y = quantized(y, "float64" if c.dtype == "float64" else "float32")
    given["labels"] = ids if c.has_ids else y
    if hidden.any():
        junk = hidden & (rng.random(hidden.shape) < 0.7)
        given |= _with_junk(rng, c, given, junk)
    z = np.where(hidden[..., None], 0, z)
    invalid = c.has_ids & ~is_class & ~hidden
    return Inputs(given, z, y, given["upstream"], weights, mask, hidden, invalid)


def _hidden(c, weights, mask):
    """Rows without influence. What is clipped is so, too, where a mask hides it."""
    hidden = np.zeros((c.draws, *c.lead), bool)
    if c.kind == "loss":
        if weights is not None:
            hidden = hidden | (weights == 0)
        if mask is not None:
            hidden = hidden | ~mask
    return hidden


def _with_junk(rng, c, given, junk):
    """Logits and labels that may be anything where they are hidden."""
    rows, labels = junk[..., None], given["labels"]
    shape = given["logits"].shape
    z = np.where(rows, rng.choice(JUNK_LOGITS, shape), given["logits"])
    if not c.has_ids:
        labels = np.where(rows, np.nan, labels)
    elif c.ignore_class is None:
        labels = np.where(junk, rng.choice(JUNK_IDS, junk.shape), labels)
    return {"logits": z, "labels": labels}


def quantized(x, dtype):
    """As numbers of a dtype, none of them subnormal: some backends make these zero."""
    kind = _numpy_dtype(dtype)
    x = np.asarray(x).astype(kind).astype("float64")
    return np.where(np.abs(x) < ml_dtypes.finfo(kind).tiny, 0, x)


def _logits(rng, c):
    shape = (c.draws, *c.lead, c.classes)
    row, column = (*shape[:-1], 1), (c.draws, *(1 for _ in c.lead), 1)
    most = 15 if c.normalize_gradient else 30
    normal = rng.normal(size=shape)
    usual = normal * 10 ** rng.uniform(-1, 1.3, row)
    any_size = 10 ** rng.uniform(-most, most, row)
    largest = usual.max(-1, keepdims=True)
    place = rng.integers(0, c.classes, row) == np.arange(c.classes)
    tau = c.tau if c.tau < INF else 1.0
    unit = float(ml_dtypes.finfo(_numpy_dtype(c.dtype)).eps)
    at_tau = normal * (tau / oracle.norm(normal, c.p)[..., None])
    rows = [
        usual,
        normal * any_size,
        np.zeros(shape),
        np.broadcast_to(usual[..., :1], shape),
        np.where(place, any_size * np.sign(normal), usual),
        np.where(rng.random(shape) < 0.3, largest, usual),
        np.round(usual),
        np.where(place, tau * np.sign(normal), 0),
        at_tau * (1 + unit / 2 * rng.choice(STEPS, row)),
    ]
    flavours = list(FLAVOURS)
    flavour = rng.choice(flavours, column, p=list(FLAVOURS.values()))
    kinds = np.where(flavour == "close to tau", len(rows), len(rows) - 2)
    kind = np.where(flavour == "usual", 0, rng.integers(0, kinds, row))
    z = np.choose(kind, rows)
    z = np.where(
        flavour == "of one size", normal * 10 ** rng.uniform(-most, most, column), z
    )
    limit = 6e4 if c.dtype == "float16" else 1e31
    return quantized(np.clip(z, -limit, limit), c.dtype)


def _ids(rng, c):
    """Class ids, of which some are the ignored one, and some may be no class."""
    shape = (c.draws, *c.lead)
    ids = rng.integers(0, c.classes, shape)
    if c.ignore_class is not None:
        ids = np.where(_some(rng, c, [0.0, 0.3]), c.ignore_class, ids)
    if not c.has_invalid:
        return ids
    wrong = rng.choice([*INVALID_IDS, c.classes], shape)
    if c.labels == "float-ids":
        wrong = np.where(rng.random(shape) < 0.3, 0.5, wrong)
    return np.where(_some(rng, c, [0.0] * 9 + [0.2]), wrong, ids)


def _hiding(rng, c):
    """Weights of the samples and a mask, or None."""
    weights, mask = None, None
    shares = [0.0, 0.5, 0.9, 0.9, 1.0]
    if c.weighted:
        kept = _some(rng, c, shares)
        weights = quantized(kept * rng.uniform(0.1, 2, kept.shape), c.loss_dtype)
    if c.masked:
        mask = _some(rng, c, shares)
    return weights, mask


def _some(rng, c, shares):
    """Booleans, of which a share that differs between the draws is true."""
    share = rng.choice(shares, (c.draws, *(1 for _ in c.lead)))
    return rng.random((c.draws, *c.lead)) < share


def _one_hot(ids, hidden, c):
    return np.where(hidden, 0, ids)[..., None] == np.arange(c.classes)


def _soft(rng, c):
    """With zeros; those of the function itself do not have to add up to one."""
    y = rng.exponential(size=(c.draws, *c.lead, c.classes))
    y[..., 1:] *= rng.random(y[..., 1:].shape) < 0.8
    y = y / y.sum(-1, keepdims=True)
    if c.kind == "cross-entropy":
        y = y * rng.choice([1, 1, 1, 0.3, 0], (*y.shape[:-1], 1))
    return y


def _upstream(rng, c):
    shape = {"none": c.lead}.get(c.reduction, ())
    if c.kind in ("clip", "layer"):
        shape = (*c.lead, c.classes)
    size = 10 ** rng.uniform(-2, 1, (c.draws, *(1 for _ in shape)))
    dtype = c.loss_dtype if c.kind == "loss" else c.dtype
    return quantized(size * rng.normal(size=(c.draws, *shape)), dtype)


def of_draws(inputs, draws):
    """The inputs of some of the draws."""

    def some(x):
        if isinstance(x, dict):
            return {name: some(each) for name, each in x.items()}
        return None if x is None else x[draws]

    return Inputs(*map(some, inputs))


def largest_of(dtype):
    return float(ml_dtypes.finfo(_numpy_dtype(dtype)).max)


def _numpy_dtype(dtype):
    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
