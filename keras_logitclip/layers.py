"""The `LogitClip` layer."""

from typing import Any

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

    Place it after the layer that returns the logits. It bounds the loss that follows,
    so a wrong label has a limited influence. It does not change the predicted class.

    If you mask some classes with large negative logits, mask after clipping: a single
    -1e9 dominates the norm, and clipping would shrink the other logits to nearly zero.

    `LogitClipLoss` clips inside the loss and leaves the model unchanged. Use the layer
    if clipping is part of the model, for example in a custom training loop.

    Formula:

    ```python
    outputs = inputs * minimum(1, tau / norm(inputs, p, axis))
    ```

    Args:
        tau: Threshold of the norm, a number greater than zero;
            `float("inf")` for no clipping. Defaults to `1.5`.
        p: Order of the norm, a number of at least 1; `float("inf")` is the
            maximum norm. Defaults to `2`.
        axis: Integer, the class axis. Defaults to `-1`.
        training_only: Boolean. With `True`, evaluation and prediction return the raw
            logits. With `False`, the layer always clips, as in the paper. Defaults to
            `False`.
        normalize_gradient: Boolean, whether the gradient of the batch is divided by the
            mean of `minimum(1, tau / norm)`, as in `LogitClipLoss`. Vectors that the
            mask of the inputs hides are not in the mean. Defaults to `False`.
        **kwargs: Keyword arguments of `keras.layers.Layer`, such as `name`
            and `dtype`.

    Call arguments:
        inputs: Floating-point logits with a batch axis and a class axis.
        training: Boolean, whether the layer runs in training mode. It has an effect
            only with `training_only=True`.

    Output shape:
        The shape of the inputs.

    Raises:
        ValueError: If an argument is out of range, or if the inputs are integers, have
            no class axis besides the batch axis, or are the output of a softmax or
            sigmoid. Under JAX, that is detected only in functional and sequential
            models.

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
        tau: float = 1.5,  # Measured in docs/choosing_tau.md.
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

    def is_setting(self, name: str) -> bool:
        return name in self._settings()

    def __call__(self, inputs, *args, **kwargs) -> Any:
        # Checked before Keras casts the inputs, because a cast loses their mark.
        refuse_probabilities(
            inputs, remedy="a softmax, if you need one, comes after `LogitClip`."
        )
        self.fix_settings()
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training: bool | None = None, mask=None) -> Any:
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

    def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
        resolve_class_axis(self.axis, input_shape)
        return input_shape

    def get_config(self) -> dict:
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
