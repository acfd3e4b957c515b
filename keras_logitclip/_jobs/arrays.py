"""Samples and labels: checked, split, and in the order of an epoch."""

import warnings

import keras
import numpy as np


def check_inputs(x, samples: int, name: str = "x"):
    """Returns inputs as NumPy arrays, in the structure in which they were given."""
    inputs = keras.tree.map_structure(_as_array, x)
    arrays = keras.tree.flatten(inputs)
    if not arrays or any(array.shape[:1] != (samples,) for array in arrays):
        raise ValueError(
            f"Invalid value for argument `{name}`: expected one or more arrays with as "
            "many samples as there are labels. "
            f"Received: shapes {[array.shape for array in arrays]}, {samples} labels"
        )
    return inputs


def _as_array(leaf):
    # NumPy's own may lie on the disk, and would be copied.
    array = leaf if isinstance(leaf, np.ndarray) else keras.ops.convert_to_numpy(leaf)
    # Keras takes texts as objects only.
    return array.astype(object) if array.dtype.kind in "UTS" else array


def take(inputs, rows):
    """Returns these samples of each array."""
    return keras.tree.map_structure(lambda array: array[rows], inputs)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order in which an epoch sees the samples.

    It depends on nothing else, so that a training that was interrupted draws what it
    would have drawn.
    """
    return np.random.default_rng((seed, epoch)).permutation(size)


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in a new random order at each epoch.

    Not left to `fit`: under TensorFlow, Keras 3.15 repeats one order at all epochs
    once a random seed is set.
    """

    def __init__(self, inputs, labels: np.ndarray, batch_size: int, seed: int):
        super().__init__()
        self.inputs = inputs
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        inputs = keras.tree.map_structure(_as_batch, take(self.inputs, rows))
        return inputs, self.labels[rows]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = epoch_order(self.seed, self.epoch, len(self.labels))


def _as_batch(array):
    # Of a batch of a dataset, Keras takes tensors of texts only.
    return keras.ops.convert_to_tensor(array) if array.dtype == object else array


def split(
    labels: np.ndarray,
    validation_split: float,
    seed: int,
    name: str = "validation_split",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions to train on and to hold out: that share of each class.

    A class too small to share stays in the training part, with a warning.
    """
    is_share = isinstance(validation_split, float) and 0 < validation_split < 1
    rng = np.random.default_rng(seed)
    held_out, kept = [], []
    classes, counts = np.unique(labels, return_counts=True)
    for label, samples in zip(classes, counts, strict=True) if is_share else ():
        count = min(round(samples * validation_split), samples - 1)
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out.append(members[:count])
        kept += [] if count else [int(label)]
    if sum(map(len, held_out)) == 0:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected a number between 0 and 1, "
            "a share that holds out some samples. Received: "
            f"{name}={validation_split!r}, {len(labels)} samples of {len(classes)} "
            "classes"
        )
    if kept:
        warnings.warn(
            f"Nothing is held out of {len(kept)} of {len(classes)} classes, which have "
            f"too few samples: {kept[:10]}. All of them are trained on.",
            stacklevel=3,
        )
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def mean_of_last_epochs(values) -> float:
    """Returns the mean of the last tenth of the epochs, of one at least.

    The papers report the last epochs, not the best one, which clean labels would
    have to pick.
    """
    return float(np.mean(values[-max(1, len(values) // 10) :]))
