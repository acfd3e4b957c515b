"""Normalized losses: losses divided by their sum over all labels."""

import keras
from keras import ops

from keras_logitclip.losses._base import ClassificationLoss
from keras_logitclip.losses._base import mean_over_labels
from keras_logitclip.losses.cross_entropy import CrossEntropy
from keras_logitclip.losses.focal import Focal
from keras_logitclip.losses.generalized_cross_entropy import GeneralizedCrossEntropy


class _Normalized(ClassificationLoss):
    """Divides the loss of a second base class by its sum over all labels.

    So its sum over all labels is 1.
    """

    treats_other_classes_alike = True
    falls_with_probability = False
    is_symmetric = True

    def of_rows(self, labels, log_probabilities):
        losses = self.of_label(log_probabilities)
        return mean_over_labels(labels, losses) / ops.sum(losses, -1)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedCrossEntropy(_Normalized, CrossEntropy):
    """Computes cross-entropy divided by its sum over all labels.

    Its sum over all labels is 1, so it is robust to uniform noise. Alone, it learns
    slowly. It is the active part of sums such as NCE+RCE.

    Formula:

    ```python
    loss = log(p_y) / sum(log(p))
    ```

    Args:
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0563

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedFocal(_Normalized, Focal):
    """Computes focal loss divided by its sum over all labels.

    As with `Focal`, the factor has a gradient.

    Formula:

    ```python
    focal = -((1 - p) ** gamma) * log(p)
    loss = focal[y] / sum(focal)
    ```

    Args:
        gamma: Exponent of the factor, not negative. Defaults to `0.5`, as in papers
            on noisy labels; in detection, 2 is usual.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedFocal(gamma=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0215

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedGeneralizedCrossEntropy(_Normalized, GeneralizedCrossEntropy):
    """Computes generalized cross-entropy divided by its sum over all labels.

    In the limit `q = 0`, it is normalized cross-entropy.

    Formula:

    ```python
    loss = (1 - p_y**q) / sum(1 - p**q)
    ```

    Args:
        q: Exponent in (0, 1]. The paper uses 0.1 for CIFAR-10 and 0.7 for CIFAR-100.
            Defaults to `0.7`.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedGeneralizedCrossEntropy(q=0.7)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0989

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """
