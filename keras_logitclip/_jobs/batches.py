"""Inputs of a model, samples of them, and batches in a random order."""

import keras
import numpy as np


def check_inputs(x, samples: int):
    """Returns inputs as NumPy arrays, in the structure in which they were given.

    Raises:
        ValueError: If there is no array, or one without so many samples.
    """
    inputs = keras.tree.map_structure(_as_array, x)
    arrays = keras.tree.flatten(inputs)
    if not arrays or any(array.shape[:1] != (samples,) for array in arrays):
        raise ValueError(
            "Invalid value for argument `x`: expected one or more arrays with as many "
            "samples as there are labels. "
            f"Received: shapes {[array.shape for array in arrays]}, {samples} labels"
        )
    return inputs


def take(inputs, rows):
    """Returns these samples of each array."""
    return keras.tree.map_structure(lambda array: array[rows], inputs)


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in a new random order at each epoch.

    Not left to `fit`: under TensorFlow, Keras 3.15 repeats one order at all epochs
    once a random seed is set.

    Args:
        inputs: An array of samples, or a structure of such arrays.
        labels: An array with a label for each sample.
        batch_size: Samples per batch; the last batch has what is left.
        seed: Seed of the orders.
    """

    def __init__(self, inputs, labels: np.ndarray, batch_size: int, seed):
        super().__init__()
        self.inputs = inputs
        self.labels = labels
        self.batch_size = batch_size
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return take(self.inputs, rows), self.labels[rows]

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.labels))


def _as_array(leaf):
    # NumPy's own may lie on the disk, and would be copied.
    return leaf if isinstance(leaf, np.ndarray) else keras.ops.convert_to_numpy(leaf)
