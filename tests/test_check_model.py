"""`check_model` finds what is wrong, and accepts what is correct."""

import re
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import check_model
from keras_logitclip import losses
from keras_logitclip import noise
from keras_logitclip._check import model as checking
from tests import oracle
from tests.running import BACKEND

SPARSE = "sparse_categorical_crossentropy"
CATEGORICAL = "categorical_crossentropy"
BINARY = "binary_crossentropy"
rng = np.random.default_rng(0)
X = rng.normal(size=(60, 8)).astype("float32")
IDS = np.arange(60) % 4
ONE_HOT = np.eye(4, dtype="float32")[IDS]
SOFT = 0.9 * ONE_HOT + 0.025
SEVERAL = (X[:, :4] > 0.5).astype(int)
SIGNS = np.where(SEVERAL, 1, -1)
IMAGES = rng.normal(size=(6, 5, 3, 8)).astype("float32")
VOID = np.where(rng.random((6, 5, 3)) < 0.2, 255, rng.integers(0, 4, (6, 5, 3)))


def build(*layers, outputs=4, inputs=(8,)):
    dense = keras.layers.Dense(outputs)
    return keras.Sequential([keras.Input(inputs), dense, *layers])


class Subclassed(keras.Model):
    """Returns a model whose last activation cannot be detected."""

    def __init__(self, activation, outputs=4):
        super().__init__()
        self.dense = keras.layers.Dense(outputs)
        self.activation_function = activation

    def call(self, inputs):
        return self.activation_function(self.dense(inputs))


class WithoutGaps(keras.layers.Layer):
    """Puts zeros in the place of NaN."""

    def call(self, inputs):
        return keras.ops.where(keras.ops.isnan(inputs), 0.0, inputs)


def functional_softmax():
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.ops.softmax(keras.layers.Dense(4)(inputs)))


def with_weights(value, bias=0.0):
    model = build()
    model.set_weights([np.full((8, 4), value), np.full(4, bias)])
    return model


def channels_first():
    return build(keras.layers.Permute((3, 1, 2)), inputs=(5, 3, 8))


def clipped(loss=SPARSE, tau=1.5, **arguments):
    return LogitClipLoss(loss, tau, **arguments)


class Case(NamedTuple):
    """A model and its data, and what `check_model` finds."""

    expected: str
    build: Any = build
    x: Any = X
    y: Any = IDS
    loss: Any = None
    optimizer: Any = "sgd"

    def report(self):
        model = self.build()
        if self.loss is not None:
            model.compile(self.optimizer, self.loss)
        return check_model(model, self.x, self.y)


def one_logit(**arguments):
    return {"build": lambda: build(outputs=1), "y": IDS % 2} | arguments


PROBABILITIES = "logits. Received: one that returns probabilities. Remove the "
WRONG = {
    "softmax": Case(
        PROBABILITIES + r"softmax .*`keras.layers.Dense\(4\)`",
        lambda: build(keras.layers.Softmax()),
    ),
    "dense-sigmoid": Case(
        PROBABILITIES + "sigmoid",
        lambda: keras.Sequential([build(), keras.layers.Dense(4, "sigmoid")]),
    ),
    "nested": Case(
        PROBABILITIES + "softmax",
        lambda: keras.Sequential([build(keras.layers.Softmax())]),
    ),
    "functional": Case(PROBABILITIES + "softmax", functional_softmax),
    "softmax-of-values": Case(
        PROBABILITIES + "softmax", lambda: Subclassed(keras.ops.softmax)
    ),
    "sigmoid-of-values": Case(
        PROBABILITIES + "sigmoid", lambda: Subclassed(keras.ops.sigmoid, outputs=10)
    ),
    "softmax-with-a-loss-of-probabilities": Case(
        PROBABILITIES + "softmax", lambda: build(keras.layers.Softmax()), loss=SPARSE
    ),
    "nan-inputs": Case(
        "finite inputs. Received: NaN or infinity in 1 of 60 samples.*nan_to_num",
        x=np.where(np.arange(60)[:, None] == 7, np.nan, X),
    ),
    "nan-outputs": Case(
        "finite logits. Received: NaN or infinity in 100% of them",
        lambda: with_weights(np.nan),
    ),
    "inf-outputs": Case("finite logits.*get_weights", lambda: with_weights(np.inf)),
    "few-outputs": Case(
        r"\[0, 3\), or a model with at least 4 classes. Received: ids from 0 to 3.*more"
        " outputs",
        lambda: build(outputs=3),
    ),
    "from-one": Case(r"\[0, 4\).*ids from 1 to 4. .*begin at 0: `y - 1`", y=IDS + 1),
    "void": Case("ids from -1 to 2. .*`ignore_class=-1`", y=IDS - 1),
    "not-whole": Case("whole numbers. .*, 0.3 at position 0 and 59 more", y=IDS + 0.3),
    "not-whole-pixels": Case(
        r"whole numbers. .*, 0.5 at position \(5, 4, 2\)\.",
        lambda: build(inputs=(5, 3, 8)),
        IMAGES,
        np.where(np.arange(90).reshape(6, 5, 3) == 89, 0.5, 1),
    ),
    "missing": Case(
        "whole numbers. .*, nan at position 0 and 14 more. .*`keep = ~np.isnan",
        y=np.where(IDS, IDS, np.nan),
    ),
    "missing-names": Case(
        "as numbers. .*, None at position 3 and 14 more. .*`keep = .isinstance",
        y=["a", "b", "c", None] * 15,
    ),
    "missing-ids": Case(
        "as numbers. .*, None at position 0 and 19 more. .*`keep = .label is not None",
        y=[None, 0, 1] * 20,
    ),
    "names-and-numbers": Case(
        "as numbers. .*, 1 at position 1 and 29 more. Number the classes from 0",
        y=["a", 1] * 30,
    ),
    "names": Case(
        r"as numbers. Received: labels of dtype object and shape \(60,\). .*inverse",
        y=np.array([*"abcd"])[IDS],
    ),
    "list-of-names": Case("as numbers", y=[*"abcd"] * 15),
    "objects": Case("as numbers. .*object", y=np.array([*"abcd"], object)[IDS]),
    "one-hot-of-other-classes": Case(
        r"ids of shape `\(batch\)`, or .*`\(batch, 5\)`. Received: labels of shape "
        r"`\(batch, 4\)`. .*`y.argmax\(-1\)`",
        lambda: build(outputs=5),
        y=ONE_HOT,
    ),
    "one-hot-with-a-sparse-loss": Case(
        "class ids, because of the loss SparseCategoricalCrossentropy. Received: "
        r"one-hot labels. `y.argmax\(-1\)`",
        y=ONE_HOT,
        loss=clipped(),
    ),
    "soft-with-a-sparse-loss": Case(
        "class ids.*Received: soft labels. .*`categorical_crossentropy`",
        y=SOFT,
        loss=clipped(),
    ),
    "ids-with-a-categorical-loss": Case(
        "one-hot or soft labels.*Received: class ids. .*`sparse_categorical_cross",
        loss=clipped(CATEGORICAL),
    ),
    "unnormalized": Case(
        "whose sum is 1.*with sums from 0.5 to 0.5. Divide .*sum", y=ONE_HOT / 2
    ),
    "negative-weights": Case(
        "at least 0.*from -0.1 to 1.3", y=1.4 * ONE_HOT - 0.1, loss=clipped(CATEGORICAL)
    ),
    "several-with-a-categorical-loss": Case(
        'sum is 1.*`LogitClipLoss."binary_crossentropy", tau',
        y=SEVERAL > 0,
        loss=clipped(losses.CrossEntropy()),
    ),
    "several-with-a-sparse-loss": Case("sum is 1", y=SEVERAL, loss=clipped()),
    "several-out-of-range": Case(
        "from 0 to 1, because the loss is a binary one. Received: labels from 0 to 2",
        y=2 * SEVERAL,
        loss=clipped(BINARY, 3.0),
    ),
    "loss-of-probabilities": Case(
        "a loss that takes logits. Received: sparse_categorical_crossentropy, which "
        "takes probabilities. .*LogitClipLoss",
        loss=SPARSE,
    ),
    "instance-of-probabilities": Case(
        "logits. Received: SparseCategoricalCrossentropy, which takes probabilities",
        loss=keras.losses.SparseCategoricalCrossentropy(),
    ),
    "class-of-a-loss": Case(
        "instance of a loss. Received: the class LogitClipLoss. ", loss=LogitClipLoss
    ),
    "failing-loss": Case(
        r"labels of shape \(60, 4\) for .*error: Expected class ids as.*Try it",
        y=SOFT,
        loss=clipped(losses.CrossEntropy(ignore_class=255)),
    ),
    "loss-of-another-axis": Case(
        "Received: this error: .*axis=3", loss=clipped(axis=3)
    ),
    "loss-without-an-axis": Case(
        "Received: Dice, which takes probabilities",
        y=ONE_HOT,
        loss=keras.losses.Dice(axis=None),
    ),
    "clipped-log-probabilities": Case(
        "one that returns log-probabilities.*4 classes have.* norm of at least 2.77.*"
        r"Remove the log_softmax .*Dense\(4\)",
        lambda: build(keras.layers.Activation("log_softmax")),
        loss=clipped(),
    ),
    "infinite-loss": Case(
        "Received: NaN or infinity",
        loss=clipped(lambda y_true, y_pred: keras.ops.log(0.0 * y_pred[:, 0])),
    ),
    "minus-one-and-one": Case(
        r"\[0, 2\).*from -1 to 1. The classes are 0 and 1: `y > 0`",
        **one_logit(y=2 * (IDS % 2) - 1),
    ),
    "signs-and-zero-of-a-hinge": Case(
        r"\[0, 2\).*ids from -1 to 1",
        **one_logit(y=IDS % 3 - 1, loss=clipped(keras.losses.Hinge())),
    ),
    "many-classes-of-one-logit": Case(
        "with at least 4 classes. Received: ids from 0 to 3", **one_logit(y=IDS)
    ),
}


# NumPy warns of what it computes of NaN and infinity.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_is_wrong(case):
    report = case.report()
    (problem,) = report.problems
    assert re.search(case.expected, str(problem), re.DOTALL), str(problem)
    assert not report.ok
    assert problem.remedy in str(report)
    with pytest.raises(ValueError, match=re.escape(problem.expected)):
        report.raise_if_wrong()


FINE = {
    "class-ids": Case("class ids", loss=clipped()),
    "column": Case("class ids", y=IDS[:, None], loss=clipped()),
    "float-ids": Case("class ids", y=IDS / 1, loss=clipped()),
    "list": Case("class ids", y=IDS.tolist(), loss=clipped()),
    "tensor": Case("class ids", y=keras.ops.convert_to_tensor(IDS), loss=clipped()),
    "series": Case("class ids", y=pd.Series(IDS, index=IDS), loss=clipped()),
    "small-integers": Case("class ids", y=IDS.astype("uint8"), loss=clipped()),
    "table": Case("class ids", x=pd.DataFrame(X)),
    "own-loss-of-ids": Case(
        "class ids", loss=clipped(losses.CategoricalMeanAbsoluteError())
    ),
    "one-hot": Case("one-hot labels", y=ONE_HOT, loss=clipped(CATEGORICAL)),
    "own-loss": Case("one-hot labels", y=ONE_HOT, loss=clipped(losses.CrossEntropy())),
    "soft": Case("soft labels", y=SOFT, loss=clipped(CATEGORICAL)),
    "several": Case("several labels", y=SEVERAL, loss=clipped(BINARY)),
    "several-or-none": Case("several labels", y=SEVERAL > 0, loss=clipped(BINARY, 0.5)),
    "one-clipped-logit": Case("one logit", **one_logit(loss=clipped(BINARY))),
    "soft-answers": Case("soft labels", y=0.8 * SEVERAL, loss=clipped(BINARY, 3.0)),
    "one-logit": Case("one logit", **one_logit()),
    "one-logit-for-truth": Case("one logit", **one_logit(y=IDS > 1)),
    "soft-logit": Case(
        "one logit",
        **one_logit(y=rng.random((60, 1))),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    ),
    "hinge": Case("one logit", **one_logit(y=SIGNS[:, 0], loss=clipped("hinge"))),
    "squared-hinge": Case(
        "one logit", **one_logit(loss=clipped(keras.losses.SquaredHinge()))
    ),
    "hinge-of-several-labels": Case("several labels", y=SIGNS, loss=clipped("hinge")),
    "categorical-hinge": Case(
        "one-hot labels",
        y=2 * ONE_HOT - 1,
        loss=clipped(keras.losses.CategoricalHinge()),
    ),
    "clipped-before-log-probabilities": Case(
        "class ids",
        lambda: build(LogitClip(1.5), keras.layers.Activation("log_softmax")),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ),
    "layer": Case(
        "class ids",
        lambda: build(LogitClip(1.5)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ),
    "activation-in-the-loss": Case(
        "one-hot labels",
        y=ONE_HOT,
        loss=clipped("mae", activation="softmax"),
    ),
    "relu": Case("class ids", lambda: build(keras.layers.ReLU(0.01))),
    "zeros": Case("class ids", lambda: with_weights(0.0)),
    "small-positive-numbers": Case("class ids", lambda: with_weights(0.0, bias=0.1)),
    "numbers-that-sum-to-one": Case("class ids", lambda: with_weights(0.0, bias=0.25)),
    "segmentation": Case(
        "class ids",
        lambda: build(inputs=(5, 3, 8)),
        IMAGES,
        VOID,
        clipped(ignore_class=255),
    ),
    "channels-first": Case(
        "class ids",
        channels_first,
        IMAGES,
        VOID,
        clipped(losses.CrossEntropy(axis=1, ignore_class=255), axis=1),
    ),
    "uncompiled": Case("class ids"),
    "two-inputs": Case(
        "class ids",
        lambda: keras.Sequential([keras.layers.Concatenate(), build()]),
        [X[:, :3], X[:, 3:]],
    ),
}
HINTS_EXPECTED = {"soft-logit", "relu", "clipped-before-log-probabilities"}


@pytest.mark.parametrize("name", FINE)
def test_what_is_well(name):
    report = FINE[name].report()
    assert report.problems == []
    assert report.kind == FINE[name].expected
    assert bool(report.hints) == (name in HINTS_EXPECTED)
    assert "Nothing wrong" in str(report)
    assert report.compiled == (FINE[name].loss is not None)
    report.raise_if_wrong()


MANY = {"build": lambda: build(outputs=70), "y": np.arange(60)}
POSITIVE_MEANS = keras.layers.ReLU(), keras.layers.GlobalAveragePooling1D()
HINTS = {
    "mean-of-positive-values": Case(
        "some of which are negative. Received: outputs from 0.* to 0.*sigmoid",
        lambda: build(*POSITIVE_MEANS, outputs=10, inputs=(15, 8)),
        0.5 * IMAGES.reshape(6, 15, 8),
        np.arange(6),
    ),
    "sigmoid-of-few-values": Case(
        "some of which are negative. Received: outputs from 0.* to 0.*sigmoid",
        lambda: Subclassed(keras.ops.sigmoid),
    ),
    "relu": Case(
        "some of which are negative. Received: outputs from 0 to .*ReLU",
        lambda: build(keras.layers.ReLU()),
    ),
    "softplus-of-values": Case(
        "some of which are negative", lambda: Subclassed(keras.ops.softplus)
    ),
    "log-probabilities": Case(
        "log-probabilities, which are as good without clipping",
        lambda: Subclassed(keras.ops.log_softmax),
    ),
    "inputs-that-the-model-replaces": Case(
        "finite inputs. Received: NaN or infinity in 30 of 60 samples",
        lambda: keras.Sequential([WithoutGaps(), build()]),
        np.where(np.arange(60)[:, None] % 2, np.nan, X),
        loss=clipped(),
    ),
    "unclipped": Case(
        "clips the logits. Received: SparseCategoricalCrossentropy. Wrap it",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ),
    "rate": Case(
        "a larger learning rate for SGD, a clipped loss and 70 classes.*: 0.01",
        **MANY,
        loss=clipped(),
    ),
    "rate-of-adamw": Case(
        "for AdamW, a clipped loss and 70 classes: 0.003 to 0.03 .*: 0.001. Try 10 and",
        **MANY,
        loss=clipped(),
        optimizer=keras.optimizers.AdamW(0.001),
    ),
    "rate-with-the-layer": Case(
        "a larger learning rate",
        lambda: build(LogitClip(1.0), outputs=70),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ),
}


@pytest.mark.parametrize("case", HINTS.values(), ids=HINTS)
def test_what_could_be_better(case):
    report = case.report()
    assert report.ok
    (hint,) = report.hints
    assert re.search(case.expected, str(hint)), str(hint)
    assert hint.remedy in str(report)


schedule = keras.optimizers.schedules.CosineDecay(0.0, 9, warmup_target=1.0)
RIGHT_RATES = {
    "large": ({}, keras.optimizers.SGD(0.1)),
    "large-adam": ({}, keras.optimizers.Adam(0.003)),
    "schedule": ({}, keras.optimizers.SGD(schedule)),
    "other-optimizer": ({}, keras.optimizers.RMSprop(1e-4)),
    "normalized": ({"normalize_gradient": True}, keras.optimizers.SGD(0.01)),
    "no-clipping": ({"tau": float("inf")}, keras.optimizers.SGD(0.01)),
}


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "optimizer"), RIGHT_RATES.values(), ids=RIGHT_RATES
)
def test_rates_without_a_hint(arguments, optimizer):
    case = Case("", **MANY, loss=clipped(**arguments), optimizer=optimizer)
    assert case.report().hints == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_problems_at_once():
    report = Case(
        "",
        lambda: build(keras.layers.Softmax()),
        x=np.where(IDS[:, None], X, np.inf),
        y=IDS + 1,
        loss=clipped(CATEGORICAL),
    ).report()
    found = [problem.expected.split(",")[0] for problem in report.problems]
    assert found == [
        "finite inputs",
        "a model that returns logits",
        "class ids in [0",
        "one-hot or soft labels",
    ]
    text = str(report)
    assert [f"\n{number}. Expected" in text for number in range(1, 6)] == [True] * 4 + [
        False
    ]


@pytest.mark.parametrize("p", [2, 1])
def test_what_is_measured(p):
    model = build()
    tau = 1.9
    model.compile("sgd", clipped(tau=tau, p=p))
    report = check_model(model, X, IDS, batch_size=7)
    norms = oracle.norm(model.predict_on_batch(X), p)
    expected = np.quantile(norms, [0.05, 0.5, 0.95])
    np.testing.assert_allclose(report.logit_norms, expected, rtol=1e-4)
    assert report.clipped_fraction == pytest.approx((norms > tau).mean())
    assert 0 < report.clipped_fraction < 1
    assert (report.samples, report.tau, report.output_shape) == (60, tau, (60, 4))
    assert report.label_range == (0, 3)
    assert f"clipped at tau = 1.9: {report.clipped_fraction:.0%}" in str(report)
    assert "class ids from 0 to 3" in str(report)


def test_behind_a_layer_nothing_is_known_of_what_it_clips():
    for training_only in (False, True):
        report = check_model(build(LogitClip(0.5, training_only=training_only)), X, IDS)
        assert report.tau == 0.5
        assert (report.clipped_fraction is not None) == training_only


def test_samples_are_spread_and_labels_are_all_looked_at():
    x = np.zeros((60, 8), "float32")
    x[-1] = np.nan
    assert not check_model(build(), x, IDS, samples=2).ok
    x[-1], x[30] = 0, np.nan
    report = check_model(build(), x, IDS, samples=2)
    assert (report.ok, report.samples) == (True, 2)
    assert not check_model(build(), X, np.where(x[:, 0] == 0, IDS, 9), samples=2).ok


def test_the_model_is_not_changed():
    model = build(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    check_model(model, X, IDS)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert not model.compiled


# Labels that nothing counts may be anything, as in training.


def tagger():
    """A model whose mask hides the positions of zeros in its inputs."""
    embedding = keras.layers.Embedding(9, 8, mask_zero=True)
    return keras.Sequential([keras.Input((5,)), embedding, keras.layers.Dense(4)])


TOKENS = np.where(np.arange(5) < rng.integers(1, 6, (60, 1)), 3, 0)
TAGS = np.where(TOKENS == 0, -1, IDS[:, None])


class Hidden(NamedTuple):
    model: Any
    x: Any
    y: np.ndarray
    weights: Any = None


HIDDEN = {
    "mask": Hidden(tagger, TOKENS, TAGS),
    "weights": Hidden(build, X, np.where(IDS == 2, 99, IDS), IDS != 2),
    "one-hot": Hidden(build, X, ONE_HOT * (IDS != 2)[:, None], 1.0 * (IDS != 2)),
    "samples": Hidden(
        lambda: build(inputs=(5, 3, 8)),
        IMAGES,
        np.where((np.arange(6) < 2)[:, None, None], -1, VOID % 4),
        np.arange(6) >= 2,
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_labels_may_be_anything(name):
    case = HIDDEN[name]
    model = case.model()
    model.compile(loss=clipped(CATEGORICAL if name == "one-hot" else SPARSE))
    assert check_model(model, case.x, case.y, case.weights).problems == []
    everything = None if case.weights is None else np.ones_like(case.weights)
    shown = np.maximum(case.x, 1) if case.weights is None else case.x
    (problem,) = check_model(model, shown, case.y, everything).problems
    assert "99" in str(problem) or "-1" in str(problem) or "sums from 0" in str(problem)


def test_hidden_labels_of_a_dataset():
    batches = [(X[i::3], np.where(i, IDS[i::3], 9), np.full(20, i)) for i in range(3)]
    assert check_model(build(), iter(batches)).ok
    assert not check_model(build(), iter([batch[:2] for batch in batches])).ok


def test_large_outputs_are_bounded(monkeypatch):
    monkeypatch.setattr(checking, "_MOST_VALUES", 40)
    assert check_model(build(), X, IDS).samples == 10
    assert check_model(build(inputs=(5, 3, 8)), IMAGES, VOID % 4).samples == 1


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(20 * index, 20 * index + 20)
        return X[rows], IDS[rows], np.ones(20)


def test_datasets():
    assert check_model(build(), Batches(), samples=30).samples == 30
    assert check_model(build(), Batches()).samples == 60
    assert check_model(build(), ((X, IDS + 1) for _ in range(9))).samples == 512
    (problem,) = check_model(build(outputs=3), Batches()).problems
    assert problem.received == "ids from 0 to 3"


def test_batches_that_are_padded_to_different_lengths():
    batches = [(IMAGES[:, :length, 0], VOID[:, :length, 0]) for length in (2, 2, 5)]
    model = build(inputs=(None, 8))
    model.compile(loss=clipped(ignore_class=255))
    report = check_model(model, iter(batches))
    assert report.problems == []
    assert report.output_shape == (12, 2, 4)


@pytest.mark.skipif(BACKEND not in ("tensorflow", "torch"), reason="has none")
def test_datasets_of_the_backend():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((X, IDS)).batch(20).repeat()
    else:
        from torch.utils.data import DataLoader
        from torch.utils.data import TensorDataset

        tensors = map(keras.ops.convert_to_tensor, (X, IDS))
        dataset = DataLoader(TensorDataset(*tensors), batch_size=20)
    assert check_model(build(), dataset, samples=50).samples == 50


def two_heads():
    inputs = keras.Input((8,))
    return keras.Model(inputs, [keras.layers.Dense(4)(inputs) for _ in range(2)])


BAD_ARGUMENTS = {
    "model": (lambda: check_model("model", X, IDS), "`model`.*type str"),
    "two-heads": (
        lambda: check_model(two_heads(), X, IDS),
        r"a model with one output.*keras.Model\(.*outputs\[0\]\).*\(1, 4\), \(1, 4\)",
    ),
    "no-labels": (lambda: check_model(build(), X), "`y`.*a label.*Received: y=None"),
    "noisy": (
        lambda: check_model(build(), X, noise.symmetric(IDS, 0.2, seed=0)),
        "`y.labels`. Received: y of type NoisyLabels",
    ),
    "weights": (
        lambda: check_model(build(), X, IDS, np.ones(59)),
        r"`sample_weight`: .*\(59,\)., 60 labels",
    ),
    "weights-of-classes": (
        lambda: check_model(build(), X, IDS, np.ones((60, 4))),
        r"`sample_weight`: .*\(60, 4\) for losses of shape \(60,\)",
    ),
    "weights-beside-a-dataset": (
        lambda: check_model(build(), Batches(), sample_weight=np.ones(60)),
        "`sample_weight`: expected `None`",
    ),
    "empty": (lambda: check_model(build(), X[:0], IDS[:0]), "`y`.*at least one"),
    "lengths": (
        lambda: check_model(build(), X[1:], IDS),
        r"`x`.*\(59, 8\)., 60 labels",
    ),
    "labels-beside-a-dataset": (
        lambda: check_model(build(), Batches(), IDS),
        "`y`: expected `None`.*Received: an object of type ndarray",
    ),
    "no-batch": (lambda: check_model(build(), iter(())), "`x`.*at least one batch"),
    "no-pairs": (lambda: check_model(build(), iter([X])), "`x`.*pairs.*ndarray"),
    "single-samples": (
        lambda: check_model(build(), zip(X, IDS, strict=True)),
        r"`x`: .*array of labels.*`x.batch\(128\)`.*label of type int64",
    ),
    "samples": (lambda: check_model(build(), X, IDS, samples=0), "`samples`.*least 1"),
    "batch": (lambda: check_model(build(), X, IDS, batch_size=0), "`batch_size`"),
}


@pytest.mark.skipif(BACKEND == "tensorflow", reason="takes texts")
def test_texts():
    with pytest.raises(ValueError, match="`x`: expected numbers.*TextVectorization"):
        check_model(build(), np.full((60, 8), "a"), IDS)


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
