"""Forward and backward correction with a known matrix of label noise."""

import keras
import numpy as np
from keras import ops

from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import nan_without_class
from keras_logitclip.losses._classification import ClassificationLoss
from keras_logitclip.losses._classification import loss_of_rows

# Stands for log 0. Finite, for otherwise 0 * inf, as in the gradient, were NaN.
_LOG_ZERO = -1e30


def forward_correction(
    y_true, y_pred, transition, from_logits: bool = True, axis: int = -1
):
    """Computes the forward-corrected cross-entropy of each sample.

    See `ForwardCorrection` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others. To compile it with torch, use
        the class: this function prepares the matrix with NumPy.
    """
    y_pred = ops.convert_to_tensor(y_pred)
    log_transition = log_of_matrix(check_transition(transition), y_pred.dtype)
    return _forward(y_true, y_pred, log_transition, from_logits, axis)


def backward_correction(
    y_true, y_pred, transition, from_logits: bool = True, axis: int = -1
):
    """Computes the backward-corrected cross-entropy of each sample.

    See `BackwardCorrection` for the arguments.

    Returns:
        The losses: the shape of `y_pred` without `axis`, float64 for float64
        predictions and float32 for all others. To compile it with torch, use
        the class: this function prepares the matrix with NumPy.
    """
    y_pred = ops.convert_to_tensor(y_pred)
    inverse = inverse_of_matrix(check_transition(transition), y_pred.dtype)
    return _backward(y_true, y_pred, inverse, from_logits, axis)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ForwardCorrection(ClassificationLoss):
    """Cross-entropy of the probabilities that the *given* labels should have.

    The model predicts the true class; the matrix of the noise turns this into
    probabilities of the labels that are given, which are compared with them. The
    minimizer is that of the cross-entropy of clean labels.

    Class ids take memory for `N * K` numbers, `N` samples of `K` classes; one-hot
    and soft labels for `N * K * K`.

    Formula:

    ```python
    loss = -log(sum(transition[:, y] * p))
    ```

    Args:
        transition: Matrix of the noise, nested lists or an array: row `i` holds
            the probabilities of the given labels where the true class is `i`. A
            label that it never gives has a loss of about 1e30.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"forward_correction"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft
            labels give the mean of the loss over the labels.
            An id outside of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `transition` is no square matrix of probabilities whose rows
            sum to 1, if its size is not the number of classes, or labels do not
            fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.ForwardCorrection(transition=[[0.8, 0.2], [0.4, 0.6]])
    >>> print(round(float(loss([1], keras.ops.array([[2.0, 0.0]]))), 4))
    1.3956

    References:
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """

    def __init__(
        self,
        transition,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "forward_correction",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.transition = check_transition(transition)
        self._log_transition = log_of_matrix(self.transition, self.dtype)

    def call(self, y_true, y_pred):
        return _forward(
            y_true, y_pred, self._log_transition, self.from_logits, self.axis
        )

    def get_config(self):
        return {**super().get_config(), "transition": self.transition.tolist()}


@keras.saving.register_keras_serializable(package="keras_logitclip")
class BackwardCorrection(ClassificationLoss):
    """Cross-entropies of all labels, weighted by the inverse of the noise.

    The mean of the loss over the noise is the cross-entropy of the clean label.
    Entries of the inverse are negative, so the loss can be, too, and it has no
    lower bound; the closer the matrix is to a singular one, the more it varies.

    Class ids take memory for `N * K` numbers, `N` samples of `K` classes; one-hot
    and soft labels for `N * K * K`.

    Formula:

    ```python
    loss = sum(inverse(transition)[y] * -log(p))
    ```

    Args:
        transition: Matrix of the noise, nested lists or an array: row `i` holds
            the probabilities of the given labels where the true class is `i`.
        from_logits: Whether `y_pred` are logits, not probabilities. Defaults to
            `True`.
        axis: Integer, the class axis. Defaults to `-1`.
        reduction: As in `keras.losses.Loss`. Defaults to
            `"sum_over_batch_size"`.
        name: Name of the loss. Defaults to `"backward_correction"`.
        dtype: The dtype of the loss's computations, as in
            `keras.losses.Loss`. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Class ids, of the shape of `y_pred` without `axis` or with size 1
            there, or one-hot or soft labels of the shape of `y_pred`. Soft
            labels give the mean of the loss over the labels.
            An id outside of the classes gives NaN.
        y_pred: Logits of shape `(batch, ..., classes)`.

    Raises:
        ValueError: If `transition` is no square matrix of probabilities whose rows
            sum to 1, if it has no inverse, if its size is not the number of
            classes, or labels do not fit.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.BackwardCorrection(transition=[[0.8, 0.2], [0.4, 0.6]])
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    -0.8731

    References:
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """

    def __init__(
        self,
        transition,
        from_logits: bool = True,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "backward_correction",
        dtype=None,
    ):
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.transition = check_transition(transition)
        self._inverse = inverse_of_matrix(self.transition, self.dtype)

    def call(self, y_true, y_pred):
        return _backward(y_true, y_pred, self._inverse, self.from_logits, self.axis)

    def get_config(self):
        return {**super().get_config(), "transition": self.transition.tolist()}


def check_transition(transition) -> np.ndarray:
    """Returns the matrix as a float64 array if its rows are distributions."""
    try:
        matrix = np.array(transition, "float64")
    except (TypeError, ValueError):
        raise _invalid(
            f"something that is no array, of type {type(transition).__name__}"
        ) from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise _invalid(f"an array of shape {matrix.shape}")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise _invalid(f"a matrix with entries from {matrix.min()} to {matrix.max()}")
    error = matrix.sum(1) - 1
    worst = np.abs(error).argmax()
    if abs(error[worst]) > 1e-6:
        raise _invalid(f"a matrix whose row {worst} sums to {1 + error[worst]}")
    return matrix


def log_of_matrix(matrix: np.ndarray, dtype: str):
    """Returns the logarithms of non-negative entries, finite ones also of zeros."""
    logarithms = np.full_like(matrix, _LOG_ZERO)
    np.log(matrix, where=matrix > 0, out=logarithms)
    return _to_constant(logarithms, dtype)


def inverse_of_matrix(matrix: np.ndarray, dtype: str):
    """Returns the inverse of the matrix of the noise."""
    rank = np.linalg.matrix_rank(matrix)
    if rank < len(matrix):
        raise ValueError(
            "Invalid value for argument `transition`: expected a matrix that has an "
            "inverse; use `ForwardCorrection`, which needs none. Received: "
            f"transition=a matrix of shape {matrix.shape} and rank {rank}"
        )
    return _to_constant(np.linalg.inv(matrix), dtype)


def _forward(y_true, y_pred, log_transition, from_logits, axis):
    def loss(labels, log_probabilities):
        log_noise = _fitting(log_transition, log_probabilities)
        if are_class_ids(labels):
            columns = _rows_of_ids(ops.transpose(log_noise), labels)
            log_given = ops.logsumexp(log_probabilities + columns, -1)
            return nan_without_class(labels, -log_given)
        log_joint = log_probabilities[:, :, None] + log_noise
        return -ops.sum(labels * ops.logsumexp(log_joint, 1), -1)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def _backward(y_true, y_pred, inverse, from_logits, axis):
    def loss(labels, log_probabilities):
        weights = _fitting(inverse, log_probabilities)
        if are_class_ids(labels):
            weights = _rows_of_ids(weights, labels)
            losses = -ops.sum(weights * log_probabilities, -1)
            return nan_without_class(labels, losses)
        # Not a product of matrices, which some devices compute in less precision.
        weights = ops.sum(labels[:, :, None] * weights, 1)
        return -ops.sum(weights * log_probabilities, -1)

    return loss_of_rows(loss, y_true, y_pred, from_logits, axis)


def _rows_of_ids(matrix, ids):
    return ops.take(matrix, ops.maximum(ids, 0), axis=0)


def _to_constant(matrix, dtype):
    """Returns a matrix as a tensor, before anything is compiled.

    What compiles a loss for torch cannot turn NumPy's arrays into tensors.
    """
    double = keras.backend.standardize_dtype(dtype) == "float64"
    return ops.convert_to_tensor(matrix, dtype="float64" if double else "float32")


def _fitting(matrix, log_probabilities):
    """Returns the matrix in the dtype to compute in, if it has the right size."""
    classes = log_probabilities.shape[-1]
    if classes not in (None, matrix.shape[0]):
        raise ValueError(
            "Expected a transition matrix with one row and one column for each "
            f"class. Received: transition of shape {tuple(matrix.shape)}, {classes} "
            "classes"
        )
    return ops.cast(matrix, log_probabilities.dtype)


def _invalid(received: str) -> ValueError:
    return ValueError(
        "Invalid value for argument `transition`: expected a square matrix of "
        "probabilities, one row for each true class, whose rows sum to 1. "
        f"Received: transition={received}"
    )
