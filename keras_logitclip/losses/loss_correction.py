"""Forward and backward correction with a known transition matrix."""

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_logitclip._arguments import check_transition_matrix
from keras_logitclip._labels import are_class_ids
from keras_logitclip._labels import nan_without_class
from keras_logitclip.losses._base import ClassificationLoss

# Replaces log 0. It is finite because 0 * inf in the gradient would be NaN.
_LOG_ZERO = -1e30


class _Correction(ClassificationLoss):
    """Base of the corrections: holds the transition matrix, and weights as a tensor."""

    def __init__(self, transition: ArrayLike, **kwargs):
        super().__init__(**kwargs)
        self.transition = check_transition_matrix("transition", transition)
        # Made before anything is compiled, because torch's compiler cannot convert
        # NumPy arrays to tensors.
        double = keras.backend.standardize_dtype(self.dtype) == "float64"
        self._weights = ops.convert_to_tensor(
            self._prepare(self.transition), dtype="float64" if double else "float32"
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "transition": self.transition.tolist()}

    def _prepare(self, matrix: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _weights_for(self, log_probabilities):
        """Returns the weights in the dtype of the computation if their size fits."""
        classes, expected = log_probabilities.shape[-1], len(self.transition)
        if classes not in (None, expected):
            raise ValueError(
                "Expected a transition matrix with one row and one column for each "
                f"class. Received: transition of shape {(expected, expected)}, "
                f"{classes} classes"
            )
        return ops.cast(self._weights, log_probabilities.dtype)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class ForwardCorrection(_Correction):
    """Computes cross-entropy of the probabilities of the noisy labels.

    The model predicts probabilities of the true class. The transition matrix turns them
    into probabilities of the noisy labels. The minimizer is the same as that of
    cross-entropy with clean labels.

    With `N` samples of `K` classes, class ids take memory for `N * K` numbers, and
    one-hot and soft labels for `N * K * K`.

    Formula:

    ```python
    loss = -log(sum(transition[:, y] * p))
    ```

    Args:
        transition: Transition matrix as nested lists or an array: `transition[i][j]` is
            the probability of label `j` for class `i`. A label with probability 0 for
            all classes has a loss of about 1e30.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.ForwardCorrection(transition=[[0.8, 0.2], [0.4, 0.6]])
    >>> print(round(float(loss([1], keras.ops.array([[2.0, 0.0]]))), 4))
    1.3956

    References:
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """

    def of_rows(self, labels, log_probabilities):
        log_noise = self._weights_for(log_probabilities)
        if are_class_ids(labels):
            columns = _rows_of_ids(ops.transpose(log_noise), labels)
            log_given = ops.logsumexp(log_probabilities + columns, -1)
            return nan_without_class(labels >= 0, -log_given)
        log_joint = log_probabilities[:, :, None] + log_noise
        return -ops.sum(labels * ops.logsumexp(log_joint, 1), -1)

    def _prepare(self, matrix):
        logarithms = np.full_like(matrix, _LOG_ZERO)
        return np.log(matrix, where=matrix > 0, out=logarithms)


@keras.saving.register_keras_serializable(package="keras_logitclip")
class BackwardCorrection(_Correction):
    """Computes cross-entropy corrected by the inverse of the transition matrix.

    Its expectation over the noise is the cross-entropy of the clean label. The inverse
    has negative entries, so the loss can be negative and has no lower bound. The closer
    the matrix is to a singular one, the larger is the variance.

    With `N` samples of `K` classes, class ids take memory for `N * K` numbers, and
    one-hot and soft labels for `N * K * K`.

    Formula:

    ```python
    loss = sum(inverse(transition)[y] * -log(p))
    ```

    Args:
        transition: Transition matrix as in `ForwardCorrection`, which has to be
            invertible.
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.BackwardCorrection(transition=[[0.8, 0.2], [0.4, 0.6]])
    >>> print(round(float(loss([0], keras.ops.array([[2.0, 0.0]]))), 4))
    -0.8731

    References:
        - [Patrini et al., 2017](https://arxiv.org/abs/1609.03683)
    """

    def of_rows(self, labels, log_probabilities):
        weights = self._weights_for(log_probabilities)
        if are_class_ids(labels):
            weights = _rows_of_ids(weights, labels)
            losses = -ops.sum(weights * log_probabilities, -1)
            return nan_without_class(labels >= 0, losses)
        # Not a matrix product, which some devices compute with lower precision.
        weights = ops.sum(labels[:, :, None] * weights, 1)
        return -ops.sum(weights * log_probabilities, -1)

    def _prepare(self, matrix):
        rank = np.linalg.matrix_rank(matrix)
        if rank < len(matrix):
            raise ValueError(
                "Invalid value for argument `transition`: expected an invertible "
                "matrix. `ForwardCorrection` does not need an inverse. Received: "
                f"transition of shape {matrix.shape} and rank {rank}"
            )
        return np.linalg.inv(matrix)


def _rows_of_ids(matrix, ids):
    return ops.take(matrix, ops.maximum(ids, 0), axis=0)
