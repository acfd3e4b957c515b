"""The arguments of the losses: refused ones, and saving.

Nothing here depends on a backend, except what is computed.
"""

import inspect

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from tests.loss_cases import CASES
from tests.loss_cases import arguments
from tests.loss_cases import build
from tests.loss_cases import takes_probabilities
from tests.oracle import INF
from tests.running import to_numpy
from tests.running import to_tensor
from tests.samples import logits
from tests.samples import some_labels

pytestmark = pytest.mark.once

# Values other than the defaults, of what the table leaves at its default.
OTHER_ARGUMENTS = {
    "RCE": {"min_label": 1e-3},
    "SCE": {"alpha": 6.0, "beta": 0.2, "min_label": 1e-3},
    "GCE": {"q": 0.3},
    "PHuber-CE": {"threshold": 3.0},
    "PHuber-GCE": {"q": 0.4, "threshold": 3.0},
    "Taylor-CE": {"order": 5},
    "Focal": {"gamma": 1.5},
    "AGCE": {"a": 2.0, "q": 1.5},
    "AUL": {"a": 2.0, "q": 1.5},
    "AEL": {"a": 1.5},
    "NFL": {"gamma": 1.5},
    "NGCE": {"q": 0.3},
    "NNCE": {"min_probability": 1e-3},
    "NNFL": {"gamma": 1.5, "min_probability": 1e-3},
    "JS": {"weight": 0.3},
    "CORES": {"beta": 1.5},
    "Bootstrap-soft": {"beta": 0.5, "hard": True},
    "Bi-tempered": {"t1": 0.3, "t2": 2.5},
    "LogitNorm": {"temperature": 0.5},
    "Logit-clip": {"tau": 0.7, "p": 3.0},
    "Value-clip": {"limit": 0.7},
    "Norm-penalty": {"weight": 0.7, "p": 3.0},
    "Sum": {"alpha": 3.0, "beta": 0.2},
}
OF_KERAS = {"reduction": "sum", "name": "mine", "dtype": "float32"}


@pytest.mark.parametrize("name", CASES)
def test_saving(name):
    given = {**arguments(name), **OTHER_ARGUMENTS.get(name, {}), **OF_KERAS}
    loss = build(name, **given)
    config = loss.get_config()
    # `inner` losses are saved as configurations of their own.
    own = inspect.signature(CASES[name].loss).parameters.keys() - {"kwargs"}
    assert own <= config.keys()
    for key, value in given.items():
        np.testing.assert_array_equal(config[key], value, err_msg=key)
    assert_equal_when_saved(loss)
    inner = build(
        name, reduction="sum_over_batch_size", **OTHER_ARGUMENTS.get(name, {})
    )
    assert_equal_when_saved(LogitClipLoss(inner, 0.7))


def assert_equal_when_saved(loss):
    z, labels = to_tensor(logits()), some_labels("sparse").given
    clone = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(clone) is type(loss)
    assert clone.get_config() == loss.get_config()
    np.testing.assert_array_equal(to_numpy(clone(labels, z)), to_numpy(loss(labels, z)))


@pytest.mark.parametrize("name", CASES)
def test_arguments_of_all_losses_are_saved(name):
    saved = build(name).get_config()
    given = {"axis": 1}
    if "from_logits" in saved:
        given["from_logits"] = False
    if "ignore_class" in saved:
        given["ignore_class"] = 255
    if "activation" in saved:
        given["activation"] = "sigmoid"
        given["loss"] = "mse"
    loss = build(name, **given)
    clone = keras.losses.deserialize(keras.losses.serialize(loss))
    for key in given.keys() - {"loss"}:
        assert getattr(clone, key) == given[key], key


def test_every_loss_is_in_the_table():
    public = [getattr(losses, name) for name in losses.__all__]
    classes = {each for each in public if inspect.isclass(each)}
    bases = {losses.LogitsLoss, losses.ClassificationLoss}
    assert classes - bases - {losses.Preset} == {case.loss for case in CASES.values()}


SINGULAR = [[0.5, 0.5], [0.5, 0.5]]
NAN = float("nan")
BAD_ARGUMENTS = {
    "CE": {"from_logits": (1, None), "axis": (None,), "ignore_class": (1.5, True, "a")},
    "RCE": {"min_label": (0, 1, None)},
    "SCE": {"alpha": (-0.1, INF, "1"), "beta": (-1,), "min_label": (0,)},
    "GCE": {"q": (0, 1.1, None)},
    "PHuber-CE": {"threshold": (1, 0.5, INF)},
    "PHuber-GCE": {"q": (0, 1), "threshold": (1,)},
    "Taylor-CE": {"order": (0, -1, 2.5, 2.0, True, INF)},
    "Focal": {"gamma": (-0.1, INF, NAN)},
    "AGCE": {"a": (0, INF), "q": (0,)},
    "AUL": {"a": (1, 0.5, INF), "q": (0,)},
    "AEL": {"a": (0, -1, INF)},
    "NFL": {"gamma": (-1,)},
    "NGCE": {"q": (0, 1.1)},
    "NNCE": {"min_probability": (0, 1)},
    "NNFL": {"gamma": (-1,), "min_probability": (1,)},
    "JS": {"weight": (0, 1, None)},
    "CORES": {"beta": (-1, INF, True)},
    "Bootstrap-soft": {"beta": (-0.1, 1.1, "1"), "hard": (1, None), "axis": (0.5,)},
    "Bi-tempered": {"t1": (-0.1, 1.1, "0"), "t2": (0.9, 5.1, INF)},
    "LogitNorm": {"temperature": (0, -1, INF, None)},
    "Forward": {
        "transition": (
            None, 1.0, "abc", [], [[1.0]] * 2, [[0.5, 0.5]], [[1.5, -0.5], [0, 1]],
            [[NAN, 0], [0, 1]], [[0.9, 0.2], [0, 1]], [[1, 0], [1]],
        )
    },
    "Backward": {"transition": (SINGULAR, [[0.5, 0.4], [0, 1]])},
    "Value-clip": {"limit": (0, -1, None), "activation": ("relu",)},
    "Norm-penalty": {"weight": (-1, INF, None), "p": (0.5,)},
    "Sum": {"alpha": (-1, None), "beta": (-1, INF)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "argument", "value"),
    [
        (loss, argument, value)
        for loss, given in BAD_ARGUMENTS.items()
        for argument, values in given.items()
        for value in values
    ],
    ids=str,
)
def test_bad_arguments(loss, argument, value):
    message = f"`{argument}`: expected .* Received: ({argument}|a sum of)"
    with pytest.raises(ValueError, match=message):
        build(loss, **{argument: value})


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_of_all_losses(name):
    given, case = {"axis": 1.0}, CASES[name]
    if takes_probabilities(name):
        given["from_logits"] = 1
    inner = {role: loss() for role, loss in case.inner.items()}
    for key, value in given.items():
        with pytest.raises(ValueError, match=f"`{key}`: expected .* Received: {key}="):
            case.loss(**{**arguments(name), **inner, key: value})


# Errors that depend on the logits.


@pytest.mark.parametrize("name", CASES)
def test_a_single_class_is_refused(name):
    loss = build(name)
    for labels in (np.zeros(3), np.zeros((3, 1)), np.ones((3, 1), "float32")):
        with pytest.raises(ValueError, match="at least two classes"):
            loss(labels, to_tensor(np.zeros((3, 1))))


@pytest.mark.parametrize("name", ["NNCE", "NNFL"])
def test_too_many_classes_for_the_least_probability(name):
    loss, labels = build(name, min_probability=0.1), np.zeros(6)
    with pytest.raises(ValueError, match="min_probability=0.1 for 10 classes"):
        loss(labels, logits())
    assert np.isfinite(to_numpy(loss(labels, logits(6, 9)))).all()


@pytest.mark.parametrize("name", ["Forward", "Backward"])
@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_a_transition_of_another_size(name, kind):
    loss = build(name, transition=np.eye(9))
    with pytest.raises(ValueError, match=r"for each class. Received: .*\(9, 9\), 10"):
        loss(some_labels(kind).given, logits())


def test_rows_of_a_transition_may_be_rounded():
    losses.ForwardCorrection(np.full((3, 3), 1 / 3, "float32"))
    losses.BackwardCorrection([[1 + 1e-7, 0], [0.1, 0.9]])


@pytest.mark.parametrize("name", ["Forward", "Backward"])
def test_a_transition_whose_rows_are_the_given_labels(name):
    """As in cleanlab."""
    with pytest.raises(ValueError, match="columns sum to 1: transpose the matrix"):
        build(name, transition=[[0.9, 0.4], [0.1, 0.6]])


@pytest.mark.parametrize(("hard", "beta"), [(False, 0.95), (True, 0.8)])
def test_the_weight_of_bootstrapping_goes_by_its_form(hard, beta):
    loss = losses.Bootstrap(hard=hard)
    assert loss.get_config()["beta"] == loss.beta == beta
    assert losses.Bootstrap(0.5, hard=hard).beta == 0.5
