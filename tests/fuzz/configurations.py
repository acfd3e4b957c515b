"""Draws configurations: the computation, shape, dtype and mode of many draws."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.conftest import BACKEND
from tests.conftest import COMPILED
from tests.fuzz.subjects import Added
from tests.fuzz.subjects import Clipped
from tests.fuzz.subjects import OfKeras
from tests.fuzz.subjects import Penalized
from tests.fuzz.subjects import Table
from tests.fuzz.subjects import ValueClipped
from tests.loss_cases import CASES
from tests.oracle import INF


@dataclass(frozen=True)
class Configuration:
    kind: str  # Of `KINDS`.
    subject: Any  # A loss, or None.
    tau: float
    p: float
    lead: tuple  # The shape without the class axis.
    classes: int
    axis: int
    dtype: str  # Of the logits.
    loss_dtype: str
    labels: str  # Of `LABELS`.
    reduction: str
    normalize_gradient: bool
    ignore_class: int | None
    weighted: bool
    masked: bool
    mode: str
    unknown: str  # Which sizes TensorFlow does not know: "none", "batch" or "all".
    draws: int

    def takes(self, name):
        """Whether what is computed takes labels, weights or a mask."""
        return {
            "labels": self.kind in ("loss", "cross-entropy"),
            "weights": self.weighted,
            "mask": self.masked,
        }[name]

    @property
    def value_dtype(self):
        if self.kind in ("norm", "cross-entropy") and self.dtype != "float64":
            return "float32"
        return self.loss_dtype

    @property
    def has_ids(self):
        return self.labels in IDS

    @property
    def is_half(self):
        """Whether the loss itself is one of half precision."""
        return self.kind == "loss" and self.loss_dtype in ("float16", "bfloat16")

    @property
    def title(self):
        """What is computed, in short."""
        if self.kind != "loss":
            return self.kind
        of = " of cross-entropy" if self.subject.is_cross_entropy else ""
        return type(self.subject).__name__ + of

    @property
    def has_invalid(self):
        """Whether a class id may be none: not where only Keras says what follows."""
        if self.kind not in ("loss", "cross-entropy") or self.normalize_gradient:
            return False
        return self.has_ids and self.subject.gives_nan


# With how often each is drawn.
KINDS = {"loss": 70, "cross-entropy": 10, "clip": 9, "layer": 6, "norm": 5}
LABELS = {"ids": 50, "column": 15, "float-ids": 5, "one-hot": 10, "soft": 20}
IDS = ("ids", "column", "float-ids")
DTYPES = {"float32": 60, "float64": 15, "float16": 13, "bfloat16": 12}
ORDERS = {2: 70, 1: 6, 1.5: 6, 3: 6, 10: 6, INF: 6}
REDUCTIONS = {
    "none": 60,
    "sum_over_batch_size": 20,
    "sum": 8,
    "mean": 4,
    "mean_with_sample_weight": 8,
}
MODES = {
    "torch": {"eager": 1000, "aot_eager": 12, COMPILED: 4},
    "jax": {"jit": 100, "eager": 3},
    "tensorflow": {"graph": 60, "xla": 40, "eager": 5},
}
# Those that are made of another one are drawn around any.
TABLE = [name for name, case in CASES.items() if not case.inner]


def draw_configuration(rng):
    mode = _choice(rng, MODES[BACKEND])
    dtype = _choice(rng, DTYPES)
    kind = _choice(rng, KINDS)
    tau = INF if rng.random() < 0.05 else float(10 ** rng.uniform(-3, 3))
    p = _choice(rng, ORDERS)
    subject = None
    if kind == "loss":
        subject = _loss(rng, tau, p)
    elif kind == "cross-entropy":
        subject = Clipped(Table("CE"), tau, p)
    if isinstance(subject, Clipped):
        tau = subject.tau
    labels = _labels(rng, subject)
    lead, classes = _shape(rng, subject)
    takes_any_axis = subject is None or subject.takes_any_axis
    axis = int(rng.integers(1, len(lead) + 1)) if rng.random() < 0.15 else -1
    is_loss = kind == "loss"
    loss_dtype = dtype
    if is_loss and dtype in ("float16", "bfloat16") and rng.random() < 0.6:
        loss_dtype = "float32"
    reduction = "none"
    if is_loss and loss_dtype not in ("float16", "bfloat16"):
        reduction = _choice(rng, REDUCTIONS)
    ignore_class = None
    if is_loss and labels in IDS and rng.random() < 0.2:
        ignore_class = int(rng.choice([-1, 255, -100, 0, classes - 1]))
    normalizes = kind == "layer" or (is_loss and isinstance(subject, Clipped))
    # It does not hold what is multiplied by the factor later, or by a small weight.
    overflows = loss_dtype == "float16"
    return Configuration(
        kind=kind,
        subject=subject,
        tau=tau,
        p=p,
        lead=lead,
        classes=classes,
        axis=axis if takes_any_axis else -1,
        dtype=dtype,
        loss_dtype=loss_dtype,
        labels=labels,
        reduction=reduction,
        normalize_gradient=bool(normalizes and not overflows and rng.random() < 0.2),
        ignore_class=ignore_class,
        weighted=bool(is_loss and not overflows and rng.random() < 0.3),
        masked=bool((is_loss or kind == "layer") and rng.random() < 0.25),
        mode=mode,
        unknown=_unknown(rng, mode),
        draws=_draws(lead, classes, subject, mode),
    )


def _choice(rng, frequencies):
    names, shares = list(frequencies), np.array(list(frequencies.values()), float)
    return names[rng.choice(len(names), p=shares / shares.sum())]


def _loss(rng, tau, p):
    which = rng.random()
    if which < 0.3:  # The fused ones.
        inner = [Table("CE"), OfKeras("sparse"), OfKeras("categorical")]
        return Clipped(_one_of(rng, [*inner, OfKeras("smoothed")]), tau, p)
    inner = Table(_one_of(rng, TABLE))
    if which < 0.5:
        return inner
    if which < 0.7:
        return Clipped(inner, tau, p)
    if which < 0.75:
        # The squares of longer rows add up to more than float16 holds.
        return Clipped(OfKeras(_one_of(rng, ["binary", "squared"])), min(tau, 200), p)
    around = _around(rng, inner)
    return Clipped(around, tau, p) if which > 0.92 else around


def _around(rng, inner):
    which = rng.random()
    if which < 0.3:
        return ValueClipped(inner, _one_of(rng, [0.5, 1.5, 8.0]))
    if which < 0.6:
        weight = _one_of(rng, [0.0, 0.1, 2.0])
        return Penalized(inner, weight, _choice(rng, ORDERS))
    alpha, beta = rng.choice([0.0, 0.5, 1.0, 3.0], 2)
    return Added(inner, Table(_one_of(rng, TABLE)), float(alpha), float(beta))


def _one_of(rng, these):
    return these[rng.integers(len(these))]


def _labels(rng, subject):
    """A kind of labels that the loss takes."""
    taken = LABELS
    if subject is not None:
        taken = {
            name: share
            for name, share in LABELS.items()
            if (subject.takes_ids if name in IDS else subject.takes_weights)
        }
    return _choice(rng, taken)


def _shape(rng, subject):
    is_cheap = subject is None or subject.is_cross_entropy
    sizes = {(2, 12): 70, (12, 40): 18, (40, 150): 8}
    if is_cheap:
        sizes |= {(150, 1100): 3, (1100, 5000): 1, (40_000, 40_010): 0.5}
    else:
        sizes |= {(150, 400): 0.5}
    classes = int(rng.integers(*_choice(rng, sizes)))
    most = max(1, int(min(300, (2e5 if is_cheap else 2e6 / classes) / classes)))
    rows = int(min(most, rng.integers(1, 33) if rng.random() < 0.95 else 300))
    rank = _choice(rng, {1: 70, 2: 20, 3: 10})
    lead = [rows]
    for _ in range(rank - 1):
        inner = int(rng.integers(1, 1 + min(5, lead[0])))
        lead[:1] = [lead[0] // inner, inner]
    return tuple(lead), classes


def _unknown(rng, mode):
    if BACKEND != "tensorflow" or mode == "eager":
        return "none"
    shares = {"none": 60, "batch": 40} if mode == "xla" else {"none": 40, "batch": 40}
    return _choice(rng, {**shares, "all": 20 if mode == "graph" else 0})


def _draws(lead, classes, subject, mode):
    """How many, so that the reference takes about a quarter of a second."""
    logits = np.prod(lead) * classes
    steps = 1 if subject is None or subject.is_cross_entropy else classes * subject.cost
    at_most = 2000
    if mode == "eager":
        at_most = 500 if BACKEND == "torch" else 20
    return int(np.clip(3e6 / (logits * steps), 2, min(at_most, 4e5 / logits + 2)))
