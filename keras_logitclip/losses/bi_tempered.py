"""The bi-tempered logistic loss."""

import keras
from keras import ops

from keras_logitclip._arguments import check_number
from keras_logitclip._labels import are_class_ids
from keras_logitclip._numerics import nonzero
from keras_logitclip._numerics import one_minus_exp
from keras_logitclip._numerics import power
from keras_logitclip._numerics import row_maximum
from keras_logitclip.losses._base import LogitsLoss
from keras_logitclip.losses._base import mean_over_labels

# Newton's steps towards the normalizer of the tempered softmax, before two steps with a
# gradient. For rows of up to 128,000 logits with differences of up to 20,000 and t2 up
# to 5, the largest error of the gradient is 1e-13 after 8 steps, 5e-7 after 7 and 1e-3
# after 6.
_STEPS = 8


@keras.saving.register_keras_serializable(package="keras_logitclip")
class BiTempered(LogitsLoss):
    """Computes cross-entropy with a tempered logarithm and a tempered softmax.

    With `t1 < 1`, the logarithm is bounded, so the loss of a sample far on the wrong
    side is bounded. With `t2 > 1`, the softmax has heavy tails, so wrong labels near
    the decision boundary have less influence. At `t1 = t2 = 1`, it is cross-entropy,
    minus the entropy of soft labels.

    Formula:

    ```python
    log_t(x) = (x ** (1 - t) - 1) / (1 - t)
    p = maximum(0, 1 + (1 - t2) * (y_pred - normalizer)) ** (1 / (1 - t2))
    loss = sum(
        y_true * (log_t1(y_true) - log_t1(p))
        - (y_true ** (2 - t1) - p ** (2 - t1)) / (2 - t1)
    )
    ```

    The normalizer makes the sum of `p` equal to 1.

    Args:
        t1: Temperature of the logarithm in [0, 1]. Defaults to `0.8`.
        t2: Temperature of the softmax in [1, 5]. Defaults to `1.2`.
        **kwargs: The arguments of `LogitsLoss`. The formula also holds for soft labels.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.BiTempered(t1=0.5, t2=2.0)
    >>> print(round(float(loss([0], keras.ops.array([[1.5, 0.0]]))), 4))
    0.1915

    References:
        - [Amid et al., 2019](https://arxiv.org/abs/1906.03361)
    """

    treats_other_classes_alike = True

    def __init__(self, t1: float = 0.8, t2: float = 1.2, **kwargs):
        super().__init__(**kwargs)
        self.t1 = check_number("t1", t1, "[0, 1]")
        self.t2 = check_number("t2", t2, "[1, 5]")

    def of_rows(self, labels, logits):
        return _bregman_divergence(
            labels, _log_tempered_softmax(logits, self.t2), self.t1
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "t1": self.t1, "t2": self.t2}


def _log_tempered_softmax(logits, t2: float):
    """Returns the logarithm of each row's tempered softmax.

    Let d be the depth of a logit below the largest one, and s = t2 - 1. The
    probabilities are (1 + s (normalizer + d)) ** (-1 / s).
    """
    if t2 == 1:
        return ops.log_softmax(logits, -1)
    s = t2 - 1
    largest = row_maximum(logits, -1, least=float("-inf"))
    depths = ops.stop_gradient(largest) - logits
    normalizer = _normalizer(depths, s)
    return -ops.log1p(s * (normalizer + depths)) / s


def _tempered_log(log_x, t: float):
    """Returns the tempered logarithm of x from log x."""
    return log_x if t == 1 else -one_minus_exp((1 - t) * log_x) / (1 - t)


def _normalizer(depths, s):
    """Returns the solution of sum((1 + s (normalizer + depths)) ** (-1 / s)) = 1.

    The iteration has no gradient. At the solution, the derivative of one step of
    Newton's method is the derivative of the solution. Two steps also have its second
    derivative.
    """
    constants = ops.stop_gradient(depths)
    normalizer = ops.zeros_like(constants[:, :1])
    for _ in range(_STEPS):
        normalizer = _newton_step(normalizer, constants, s)
    normalizer = ops.stop_gradient(normalizer)
    return _newton_step(_newton_step(normalizer, depths, s), depths, s)


def _newton_step(normalizer, depths, s):
    """Makes a Newton step towards the zero of total(normalizer) ** -s - 1.

    This power of the total is increasing, concave and nearly a straight line. So from
    the left, Newton's method never steps past the zero. All numbers are relative to the
    largest probability of the row, so nothing overflows, and nothing cancels for small
    `s`.
    """
    exponents = ops.log1p(s * depths / (1 + s * normalizer))
    quotients = ops.exp(-exponents / s)
    total = ops.sum(quotients, -1, keepdims=True)
    slope = ops.sum(quotients * ops.exp(-exponents), -1, keepdims=True)
    target = _expm1(s * ops.log(total)) / s
    return normalizer + total / slope * (target - normalizer)


def _expm1(x):
    """Returns exp(x) - 1 for positive x without cancellation near zero.

    When torch compiles for CPUs, `ops.expm1` becomes the difference, which cancels. In
    float64 that leaves enough digits, and `ops.tanh` of JAX has too few.
    """
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        return ops.expm1(x)
    return ops.tanh(x / 2) * (ops.exp(x) + 1)


def _bregman_divergence(labels, log_probabilities, t1):
    """Returns the Bregman divergence of labels and probabilities.

    The sum of p, which is 1, is subtracted from the sum of p ** (2 - t1). Term by term,
    the difference does not cancel, and it vanishes at t1 = 1.
    """
    given = -mean_over_labels(labels, _tempered_log(log_probabilities, t1))
    excess = ops.exp(log_probabilities) * ops.expm1((1 - t1) * log_probabilities)
    divergence = given + ops.sum(excess, -1) / (2 - t1)
    if are_class_ids(labels):
        return divergence
    return divergence + _divergence_of_labels(labels, t1)


def _divergence_of_labels(labels, t1):
    """Returns the part that depends only on the labels, zero if they are one-hot."""
    powers = power(labels, 2 - t1)
    if t1 == 1:
        products = labels * ops.log(nonzero(labels))
    else:
        products = (powers - labels) / (1 - t1)
    return ops.sum(products, -1) + (1 - ops.sum(powers, -1)) / (2 - t1)
