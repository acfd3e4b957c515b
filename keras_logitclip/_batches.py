"""Batches in an order that is random and the same on every backend."""

import keras
import numpy as np

from keras_logitclip._inputs import take


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
