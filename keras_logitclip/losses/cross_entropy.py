"""Cross-entropy of class ids, one-hot labels and soft labels."""

import keras

from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class CrossEntropy(ClassificationLoss):
    """Computes the cross-entropy of class ids, one-hot labels or soft labels.

    `keras.losses.SparseCategoricalCrossentropy` computes the same for class ids, and
    `keras.losses.CategoricalCrossentropy` for one-hot and soft labels. This loss takes
    all of them. A `LogitClipLoss` around it is as fast as around the losses of Keras.

    Formula:

    ```python
    loss = -log(p_y)
    ```

    Args:
        **kwargs: The arguments of `ClassificationLoss`.

    Example:

    >>> import keras
    >>> from keras_logitclip import losses
    >>> loss = losses.CrossEntropy()
    >>> logits = keras.ops.array([[2.0, 0.0]])
    >>> print(round(float(loss([0], logits)), 4))
    0.1269
    >>> print(round(float(loss([[1.0, 0.0]], logits)), 4))
    0.1269
    """

    treats_other_classes_alike = True
    falls_with_probability = True

    def of_label(self, log_probability):
        return -log_probability
