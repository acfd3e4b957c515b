"""Mean absolute error of the probabilities."""

import keras
from keras import ops

from keras_logitclip._labels import are_class_ids
from keras_logitclip._numerics import one_minus_exp
from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class CategoricalMeanAbsoluteError(ClassificationLoss):
    """Computes the sum of the absolute errors of the probabilities.

    It is bounded, and its sum over all labels is constant, so uniform noise does not
    move its minimum. Its gradient is the gradient of cross-entropy times `2 * p_y`, so
    a model learns improbable labels slowly.

    Some papers use half of it, `1 - p_y`, under the same name. Halve their weights for
    this loss.

    Formula:

    ```python
    loss = sum(abs(p - y))  # 2 * (1 - p_y) for a class id
    ```

    Args:
        **kwargs: The arguments of `ClassificationLoss`. The formula also holds for soft
            labels.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.CategoricalMeanAbsoluteError()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.2384

    References:
        - [Ghosh et al., 2017](https://arxiv.org/abs/1712.09482)
    """

    treats_other_classes_alike = True
    falls_with_probability = True
    is_symmetric = True

    def of_label(self, log_probability):
        return 2 * one_minus_exp(log_probability)

    def of_rows(self, labels, log_probabilities):
        if are_class_ids(labels):
            return super().of_rows(labels, log_probabilities)
        # If both sum to 1, p exceeds y by as much as y exceeds p. Only the latter is
        # summed, so that classes with the label weight 0 have no gradients that would
        # have to cancel.
        missing = ops.relu(labels - ops.exp(log_probabilities))
        return 2 * ops.sum(missing, -1) + (1 - ops.sum(labels, -1))
