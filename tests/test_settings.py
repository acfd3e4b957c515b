"""Protection of settings that a compiled step has read, and reprs."""

import keras
import numpy as np
import pytest

from keras_logitclip import LogitClip
from keras_logitclip import LogitClipLoss
from keras_logitclip import losses
from keras_logitclip import metrics
from tests.samples import CLASSES
from tests.samples import ROWS
from tests.samples import logits
from tests.samples import some_labels

Z = logits()
IDS = some_labels("sparse").given


class Change(keras.callbacks.Callback):
    """Changes a setting in the course of a training, as a schedule would."""

    def __init__(self, target, name, value):
        super().__init__()
        self.arguments = target, name, value

    def on_epoch_end(self, epoch, logs=None):
        setattr(*self.arguments)


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


CHANGES = {
    "loss": (LogitClipLoss(crossentropy(), 1.0), "tau", 2.0),
    "robust loss": (losses.ConfidenceRegularized(beta=0.0), "beta", 2.0),
    "reduction": (LogitClipLoss(crossentropy(), 1.0), "reduction", "sum"),
    "wrapped loss": (LogitClipLoss(crossentropy(), 1.0), "loss", crossentropy()),
    "layer": (LogitClip(1.0), "tau", 2.0),
    "metric": (metrics.ClippedFraction(1.0), "tau", 2.0),
}


@pytest.mark.gradients
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_in_a_callback_is_refused(change):
    target, name, _ = change
    layer = target if isinstance(target, LogitClip) else LogitClip(1.0)
    loss = target if isinstance(target, keras.losses.Loss) else crossentropy()
    metric = [target] if isinstance(target, keras.metrics.Metric) else []
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES), layer])
    model.compile("sgd", loss, metrics=metric)
    x = np.ones((ROWS, 4), "float32")
    with pytest.raises(AttributeError, match=f"`{name}`.*call `model.compile` again"):
        model.fit(x, IDS, epochs=2, verbose=0, callbacks=[Change(*change)])


@pytest.mark.once
@pytest.mark.parametrize("inner", [losses.GeneralizedCrossEntropy, losses.CrossEntropy])
def test_a_wrapped_loss_is_fixed_with_the_loss_around_it(inner):
    for wrap in (
        lambda loss: LogitClipLoss(loss, 1.0),
        lambda loss: losses.NormPenalty(loss, 0.1),
        lambda loss: losses.ActivePassive(loss, crossentropy()),
    ):
        wrapped = inner()
        wrap(wrapped)(IDS, Z)
        with pytest.raises(AttributeError, match="`from_logits`"):
            wrapped.from_logits = False


@pytest.mark.once
def test_before_the_first_call_settings_can_be_changed():
    loss, layer = LogitClipLoss(crossentropy(), 1.0), LogitClip(1.0)
    loss.tau, layer.tau = 2.0, 2.0
    expected = LogitClipLoss(crossentropy(), 2.0)(IDS, Z)
    assert float(loss(IDS, Z)) == float(expected)
    layer(Z)
    layer.trainable = False  # No setting of clipping.


@pytest.mark.once
@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (
            LogitClipLoss("sparse_categorical_crossentropy", 1.5),
            "<LogitClipLoss loss=SparseCategoricalCrossentropy, tau=1.5>",
        ),
        (
            LogitClipLoss(keras.losses.categorical_hinge, float("inf")),
            "<LogitClipLoss loss=categorical_hinge, tau=inf>",
        ),
        (
            losses.NormPenalty(losses.CrossEntropy(), 0.1),
            "<NormPenalty loss=CrossEntropy>",
        ),
        (
            losses.ActivePassive(losses.CrossEntropy(), "mse"),
            "<ActivePassive active=CrossEntropy, passive=MeanSquaredError>",
        ),
        (LogitClip(0.5, name="clip"), "<LogitClip name=clip, tau=0.5, built=False>"),
    ],
    ids=str,
)
def test_representation(made, shown):
    assert repr(made) == shown
