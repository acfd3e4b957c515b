"""Asymmetric losses: robust where most labels of each class are right."""

import math

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import expected_loss
from keras_logitclip.losses._classification import loss_of_rows
from keras_logitclip.losses._classification import one_minus_exp
from keras_logitclip.losses.generalized_cross_entropy import box_cox


def asymmetric_generalized_cross_entropy(
    y_true,
    y_pred,
    a: float = 0.6,
    q: float = 0.6,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the asymmetric generalized cross-entropy of each sample.

    See `AsymmetricGeneralizedCrossEntropy` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    a = check_positive("a", a)
    q = check_positive("q", q)

    def of_log(log_probability):
        # log((a + p) / (a + 1)), where no difference loses digits.
        rest = one_minus_exp(log_probability)
        base = -ops.log1p(rest / (a + ops.exp(log_probability)))
        return (a + 1) ** q * box_cox(base, q)

    def loss(labels, log_probabilities):
        return expected_loss(labels, log_probabilities, of_log)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def asymmetric_unhinged(
    y_true,
    y_pred,
    a: float = 5.5,
    q: float = 3.0,
    from_logits: bool = True,
    axis: int = -1,
):
    """Computes the asymmetric unhinged loss of each sample.

    See `AsymmetricUnhinged` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    a = check_point(a)
    q = check_positive("q", q)

    def of_log(log_probability):
        # Two differences from a**q, which stay apart for a small q.
        distance = (a - 1) + one_minus_exp(log_probability)
        below = box_cox(ops.log(distance / a), q)
        return a**q * (-math.expm1(q * math.log1p(-1 / a)) / q - below)

    def loss(labels, log_probabilities):
        return expected_loss(labels, log_probabilities, of_log)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def asymmetric_exponential(
    y_true, y_pred, a: float = 2.5, from_logits: bool = True, axis: int = -1
):
    """Computes the asymmetric exponential loss of each sample.

    See `AsymmetricExponential` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others.
    """
    a = check_positive("a", a)

    def loss(labels, log_probabilities):
        return expected_loss(
            labels, log_probabilities, lambda x: ops.exp(-ops.exp(x) / a)
        )

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class AsymmetricGeneralizedCrossEntropy(ClassificationLoss):
    """Is generalized cross-entropy with the probability moved away from zero.

    With `a` towards 0 it becomes generalized cross-entropy.

    Formula:

    ```python
    loss = ((a + 1) ** q - (a + p_y) ** q) / q
    ```

    Args:
        a: What is added to the probability, a number greater than 0. Defaults to
            `0.6`.
        q: Exponent, a number greater than 0. Defaults to `0.6`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"asymmetric_generalized_cross_entropy"`.
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
        ValueError: If `a` or `q` is not greater than 0, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.AsymmetricGeneralizedCrossEntropy(a=0.6, q=0.6)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.1003

    References:
        - [Zhou et al., 2021](https://arxiv.org/abs/2106.03110)
    """

    def __init__(
        self,
        a: float = 0.6,
        q: float = 0.6,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "asymmetric_generalized_cross_entropy",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.a = check_positive("a", a)
        self.q = check_positive("q", q)

    def call(self, y_true, y_pred):
        return asymmetric_generalized_cross_entropy(
            y_true, y_pred, self.a, self.q, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "a": self.a, "q": self.q}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class AsymmetricUnhinged(ClassificationLoss):
    """Is a power of the distance between `p_y` and a point beyond 1.

    With `q = 1` it is half of mean absolute error.

    Formula:

    ```python
    loss = ((a - p_y) ** q - (a - 1) ** q) / q
    ```

    Args:
        a: The point that distances are taken from, a number greater than 1.
            Defaults to `5.5`.
        q: Exponent, a number greater than 0. Defaults to `3.0`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"asymmetric_unhinged"`.
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
        ValueError: If `a` is not greater than 1 or `q` not greater than 0, or
            labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.AsymmetricUnhinged(a=5.5, q=3.0)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    2.4784

    References:
        - [Zhou et al., 2021](https://arxiv.org/abs/2106.03110)
    """

    def __init__(
        self,
        a: float = 5.5,
        q: float = 3.0,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "asymmetric_unhinged",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.a = check_point(a)
        self.q = check_positive("q", q)

    def call(self, y_true, y_pred):
        return asymmetric_unhinged(
            y_true, y_pred, self.a, self.q, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "a": self.a, "q": self.q}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class AsymmetricExponential(ClassificationLoss):
    """Falls exponentially with the probability of the label.

    Formula:

    ```python
    loss = exp(-p_y / a)
    ```

    Args:
        a: Scale of the probability, a number greater than 0. Defaults to `2.5`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"asymmetric_exponential"`.
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
        ValueError: If `a` is not greater than 0, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.AsymmetricExponential(a=2.5)
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    0.7031

    References:
        - [Zhou et al., 2021](https://arxiv.org/abs/2106.03110)
    """

    def __init__(
        self,
        a: float = 2.5,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "asymmetric_exponential",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.a = check_positive("a", a)

    def call(self, y_true, y_pred):
        return asymmetric_exponential(
            y_true, y_pred, self.a, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "a": self.a}


def check_positive(name, value) -> float:
    """Returns a parameter as a float if it is greater than 0 and finite."""
    return check_number(name, value, "(0, inf)")


def check_point(a) -> float:
    """Returns `a` as a float if it is greater than 1 and finite."""
    return check_number("a", a, "(1, inf)")
