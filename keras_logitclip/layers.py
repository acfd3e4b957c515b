"""The `LogitClip` layer."""

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_axis
from keras_logitclip._arguments import check_flag
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import counted_values
from keras_logitclip._labels import refuse_probabilities
from keras_logitclip._labels import without_axis
from keras_logitclip._settings import FixedOnceCalled

__all__ = ["LogitClip"]


def __dir__():
    return __all__


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitClip(FixedOnceCalled, keras.layers.Layer):
    """Clips the norm of the logits at `tau`.

    Place it after the layer that returns the logits. Whatever loss follows is
    bounded, so a wrong label cannot pull without limit; the predicted class
    is the same with and without it.

    Where some classes are masked by large negative logits, mask after clipping: a
    single -1e9 is nearly the whole norm, and the other logits would be squeezed to
    nothing.

    `LogitClipLoss` does the same inside the loss and leaves the model as it
    is. Use the layer when clipping is part of the model: for a custom
    training loop, or when served probabilities should be the clipped ones.

    Formula:

    ```python
    outputs = inputs * minimum(1, tau / norm(inputs, p, axis))
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        training_only: Boolean. With `False`, the layer always clips, as in
            the paper, where clipping belongs to the model's link function.
            With `True`, evaluation and prediction see the raw logits.
            Defaults to `False`.
        normalize_gradient: Boolean, as in `LogitClipLoss`: whether the gradient of
            the batch is divided by the mean of `minimum(1, tau / norm)`, over what
            the mask of the inputs does not hide. Defaults to `False`.
        **kwargs: Keyword arguments of `keras.layers.Layer`, such as `name`
            and `dtype`.

    Call arguments:
        inputs: Floating-point logits with a batch axis and a class axis.
        training: Boolean, whether the layer runs in training mode. It matters
            only with `training_only=True`.

    Output shape:
        The shape of the inputs.

    Raises:
        ValueError: If an argument is out of range, or if the inputs are
            integers, have no class axis besides the batch, or came out of a
            softmax or sigmoid (under JAX noticed in functional and sequential
            models only, because its tensors take no mark).

    Example:

    >>> import keras
    >>> from keras_logitclip import LogitClip
    >>> model = keras.Sequential(
    ...     [keras.Input((64,)), keras.layers.Dense(10), LogitClip(tau=1.0)]
    ... )
    >>> model.compile(
    ...     optimizer="sgd",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )

    References:
        - [Wei et al., 2023](https://arxiv.org/abs/2212.04055)
    """

    def __init__(
        self,
        tau: float,
        p: float = 2,
        axis: int = -1,
        training_only: bool = False,
        normalize_gradient: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tau = check_tau(tau)
        self.p = check_p(p)
        self.axis = check_axis(axis)
        self.training_only = check_flag("training_only", training_only)
        self.normalize_gradient = check_flag("normalize_gradient", normalize_gradient)
        self.supports_masking = True

    def is_setting(self, name):
        return name in self._settings()

    def __call__(self, inputs, *args, **kwargs):
        # Before Keras casts the inputs, which takes the mark from them.
        refuse_probabilities(
            inputs, remedy="a softmax, where one is needed, comes after `LogitClip`."
        )
        self.fix_settings()
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        axis = resolve_class_axis(self.axis, inputs.shape)
        if self.training_only and not training:
            return inputs
        outputs = ops.compute_clip(inputs, self.tau, self.p, axis)
        if not self.normalize_gradient:
            return outputs
        shape = without_axis(keras.ops.shape(inputs), axis)
        counted = counted_values(shape, mask, None)
        if counted is None:
            counted = True
        return ops.normalize_gradient(outputs, inputs, self.tau, self.p, axis, counted)

    def compute_output_shape(self, input_shape):
        resolve_class_axis(self.axis, input_shape)
        return input_shape

    def get_config(self):
        return {**super().get_config(), **self._settings()}

    def __repr__(self):
        return f"<LogitClip name={self.name}, tau={self.tau:g}, built={self.built}>"

    def _settings(self):
        return {
            "tau": self.tau,
            "p": self.p,
            "axis": self.axis,
            "training_only": self.training_only,
            "normalize_gradient": self.normalize_gradient,
        }
