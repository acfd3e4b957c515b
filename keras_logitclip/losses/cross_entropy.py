"""Cross-entropy, for class ids and for one-hot labels alike."""

import keras

from keras_logitclip.losses._base import ClassificationLoss


@keras.saving.register_keras_serializable(package="keras_logitclip")
class CrossEntropy(ClassificationLoss):
    """Computes the cross-entropy, which the other losses are compared with.

    `keras.losses.SparseCategoricalCrossentropy` computes the same for class ids and
    `keras.losses.CategoricalCrossentropy` for one-hot and soft labels: with this
    one, the kind of labels can change and the loss stays. A `LogitClipLoss` around
    it is as fast as around those of Keras.

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
