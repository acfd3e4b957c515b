"""Losses divided by their sum over all labels."""

import keras
from keras import ops

from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import mean_over_labels
from keras_logitclip.losses.focal import check_gamma
from keras_logitclip.losses.focal import focal_of_log
from keras_logitclip.losses.generalized_cross_entropy import box_cox
from keras_logitclip.losses.generalized_cross_entropy import check_q


def normalized_cross_entropy(y_true, y_pred, from_logits: bool = True, axis: int = -1):
    """Computes the normalized cross-entropy of each sample.

    See `NormalizedCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """

    def loss(labels, log_probabilities):
        return _normalize(labels, -log_probabilities)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def normalized_focal(
    y_true, y_pred, gamma: float = 0.5, from_logits: bool = True, axis: int = -1
):
    """Computes the normalized focal loss of each sample.

    See `NormalizedFocal` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    gamma = check_gamma(gamma)

    def loss(labels, log_probabilities):
        return _normalize(labels, focal_of_log(log_probabilities, gamma))

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def normalized_generalized_cross_entropy(
    y_true, y_pred, q: float = 0.7, from_logits: bool = True, axis: int = -1
):
    """Computes the normalized generalized cross-entropy of each sample.

    See `NormalizedGeneralizedCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    q = check_q(q)

    def loss(labels, log_probabilities):
        return _normalize(labels, box_cox(log_probabilities, q))

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedCrossEntropy(ClassificationLoss):
    """Is cross-entropy divided by its sum over all labels.

    Summed over all labels it is 1: it is robust to uniform noise, and learns slowly
    by itself. It is the active part of sums such as NCE+RCE.

    Formula:

    ```python
    loss = log(p_y) / sum(log(p))
    ```

    Args:
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"normalized_cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft labels
            give the mean of the loss over the labels. An id outside of the classes
            gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedCrossEntropy()
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0563

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """

    def __init__(
        self,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "normalized_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)

    def call(self, y_true, y_pred):
        return normalized_cross_entropy(y_true, y_pred, self.from_logits, self.axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedFocal(ClassificationLoss):
    """Is focal loss divided by its sum over all labels.

    As with `Focal`, the factor has a gradient.

    Formula:

    ```python
    focal = -((1 - p) ** gamma) * log(p)
    loss = focal[y] / sum(focal)
    ```

    Args:
        gamma: Exponent of the factor, not negative. Defaults to `0.5`, as in papers
            on noisy labels; in detection, 2 is usual.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"normalized_focal"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft labels
            give the mean of the loss over the labels. An id outside of the classes
            gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `gamma` is negative, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedFocal(gamma=0.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0215

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """

    def __init__(
        self,
        gamma: float = 0.5,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "normalized_focal",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.gamma = check_gamma(gamma)

    def call(self, y_true, y_pred):
        return normalized_focal(y_true, y_pred, self.gamma, self.from_logits, self.axis)

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class NormalizedGeneralizedCrossEntropy(ClassificationLoss):
    """Is generalized cross-entropy divided by its sum over all labels.

    With `q` towards 0 it becomes normalized cross-entropy.

    Formula:

    ```python
    loss = (1 - p_y**q) / sum(1 - p**q)
    ```

    Args:
        q: Exponent in (0, 1]. The paper has 0.1 for CIFAR-10 and 0.7 for CIFAR-100.
            Defaults to `0.7`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"normalized_generalized_cross_entropy"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft labels
            give the mean of the loss over the labels. An id outside of the classes
            gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `q` is outside of (0, 1], or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.NormalizedGeneralizedCrossEntropy(q=0.7)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.0989

    References:
        - [Ma et al., 2020](https://arxiv.org/abs/2006.13554)
    """

    def __init__(
        self,
        q: float = 0.7,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "normalized_generalized_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.q = check_q(q)

    def call(self, y_true, y_pred):
        return normalized_generalized_cross_entropy(
            y_true, y_pred, self.q, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "q": self.q}


def _normalize(labels, losses):
    """Returns the mean over the labels, as a part of the sum over all classes."""
    return mean_over_labels(labels, losses) / ops.sum(losses, -1)
