"""The `LogitClip` layer."""

import keras

from keras_logitclip import ops
from keras_logitclip._arguments import check_axis
from keras_logitclip._arguments import check_p
from keras_logitclip._arguments import check_tau
from keras_logitclip._arguments import resolve_class_axis
from keras_logitclip._labels import refuse_probabilities


@keras.saving.register_keras_serializable(package="keras_logitclip")
class LogitClip(keras.layers.Layer):
    """Clips the norm of the logits at `tau`.

    Place it after the layer that returns the logits. Whatever loss follows is
    bounded, so a wrong label cannot pull without limit; the predicted class
    is the same with and without it.

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
            softmax or sigmoid (unnoticed under JAX, where Keras leaves no
            mark of it).

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tau = check_tau(tau)
        self.p = check_p(p)
        self.axis = check_axis(axis)
        if not isinstance(training_only, bool):
            raise ValueError(
                "Invalid value for argument `training_only`: expected a boolean. "
                f"Received: training_only={training_only!r}"
            )
        self.training_only = training_only
        self.supports_masking = True

    def call(self, inputs, training=None):
        resolve_class_axis(self.axis, inputs.shape)
        refuse_probabilities(
            inputs, remedy="a softmax, where one is needed, comes after `LogitClip`."
        )
        if self.training_only and not training:
            return inputs
        return ops.logit_clip(inputs, self.tau, self.p, self.axis)

    def compute_output_shape(self, input_shape):
        resolve_class_axis(self.axis, input_shape)
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "tau": self.tau,
                "p": self.p,
                "axis": self.axis,
                "training_only": self.training_only,
            }
        )
        return config
