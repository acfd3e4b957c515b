"""Cross-entropy with the regularizer of CORES."""

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip.losses._base import ClassificationLoss
from keras_logitclip.losses._base import mean_over_labels


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ConfidenceRegularized(ClassificationLoss):
    """Computes cross-entropy minus `beta` times its mean over all classes.

    The subtracted term rewards confident predictions of any class. So the model does
    not settle between a label and the classes that it is mistaken for. This is the
    regularizer of CORES. The paper combines it with a selection of samples (a sieve),
    which is not part of a loss.

    The paper trains 10 epochs with `beta = 0`, then raises it up to 2. A callback
    cannot change `beta`, because it is part of the compiled training step. Train in
    phases instead: call `compile` with a new loss and the same optimizer instance.

    For `beta > 1`, the loss has no lower bound, and the logits grow. The authors add
    1e-8 to the probabilities. A `LogitClipLoss` around the loss bounds it.

    Formula:

    ```python
    loss = -log(p_y) - beta * mean(-log(p))
    ```

    Args:
        beta: Weight of the regularizer, a number of at least 0.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.ConfidenceRegularized(beta=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    -0.4365

    References:
        - [Cheng et al., 2020](https://arxiv.org/abs/2010.02347)
    """

    treats_other_classes_alike = True

    def __init__(self, beta: float, **kwargs):
        super().__init__(**kwargs)
        self.beta = check_number("beta", beta, "[0, inf)")

    def of_rows(self, labels, log_probabilities):
        given = -mean_over_labels(labels, log_probabilities)
        return given + self.beta * _mean(log_probabilities)

    def get_config(self) -> dict:
        return {**super().get_config(), "beta": self.beta}


def _mean(log_probabilities):
    # Not `ops.mean`, which on torch computes float64 in float32.
    classes = ops.cast(ops.shape(log_probabilities)[-1], log_probabilities.dtype)
    return ops.sum(log_probabilities, -1) / classes
