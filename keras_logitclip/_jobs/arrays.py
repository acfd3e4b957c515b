"""Checks, splits and batches of samples and labels."""

import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np

from keras_logitclip import _arguments


def check_inputs(x, samples: int, name: str = "x"):
    """Returns inputs as NumPy arrays in the same structure."""
    refuse_batches(x, name)
    inputs = keras.tree.map_structure(as_array, x)
    arrays = keras.tree.flatten(inputs)
    shapes = [array.shape for array in arrays]
    if not arrays or any(shape[:1] != (samples,) for shape in shapes):
        remedy = f" A list of samples becomes one with `np.array({name})`."
        is_list = isinstance(x, list | tuple) and () in shapes
        raise ValueError(
            f"Invalid value for argument `{name}`: expected one or more arrays with "
            f"one sample for each label.{remedy if is_list else ''} "
            f"Received: {len(shapes)} of shapes {shapes[:10]}, {samples} labels"
        )
    are_texts = any(array.dtype == object for array in arrays)
    if are_texts and keras.config.backend() != "tensorflow":
        raise ValueError(
            f"Invalid value for argument `{name}`: expected numbers. Keras takes texts "
            "with TensorFlow only; `keras.layers.TextVectorization` makes numbers of "
            f"them. Received: texts, on {keras.config.backend()}"
        )
    return inputs


def check_array(x, name: str) -> np.ndarray:
    """Returns what is given as one array, if it yields no batches."""
    refuse_batches(x, name)
    return _arguments.as_array(x)


def refuse_batches(x, name: str = "x") -> None:
    """Raises an error for a dataset of batches, with code that makes arrays of it."""
    if not yields_batches(x):
        return
    batches = name
    if isinstance(x, keras.utils.PyDataset):  # Keras 3.10 cannot iterate over it.
        batches = f"[{name}[i] for i in range(len({name}))]"
    raise ValueError(
        f"Invalid value for argument `{name}`: expected arrays, because single samples "
        "are selected. Convert batches of inputs and labels with "
        f"`x, y = map(np.concatenate, zip(*{batches}))`. Received: an object of type "
        f"{type(x).__name__}"
    )


def yields_batches(x) -> bool:
    """Returns whether `x` is a dataset such as `PyDataset` or `tf.data.Dataset`."""
    is_structure = isinstance(x, Sequence | Mapping) or hasattr(x, "__array__")
    return isinstance(x, keras.utils.PyDataset | Iterable) and not is_structure


def as_array(given) -> np.ndarray:
    """Returns an array of numbers, or of texts as objects."""
    array = _arguments.as_array(given)
    # Keras takes texts only as objects. In an array made of a list, a gap among the
    # texts would be a text.
    return np.asarray(given, object) if array.dtype.kind in "UTS" else array


def take(inputs, rows):
    """Returns these samples of each array."""
    return keras.tree.map_structure(lambda array: array[rows], inputs)


def split_evenly(positions: np.ndarray, batch_size: int) -> np.ndarray:
    """Splits positions into batches of equal size, which are compiled once.

    Positions from the beginning fill up the last batch.
    """
    num_batches = -(-len(positions) // batch_size)
    even_size = -(-len(positions) // num_batches)
    return np.resize(positions, (num_batches, even_size))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order in which an epoch sees the samples.

    It depends only on the arguments, so a resumed training continues with the same
    orders.
    """
    return np.random.default_rng((seed, epoch)).permutation(size)


class ShuffledBatches(keras.utils.PyDataset):
    """Yields batches of arrays, in a new random order at each epoch.

    `fit` cannot do this: under TensorFlow with a random seed, Keras 3.15 repeats the
    same order at all epochs.
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
    # In batches of a dataset, Keras takes texts only as tensors.
    return keras.ops.convert_to_tensor(array) if array.dtype == object else array


def split(
    labels: np.ndarray,
    validation_split: float,
    seed: int,
    name: str = "validation_split",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions to train on, and positions of a held-out share of each class.

    A class with too few samples is not held out, with a warning.
    """
    is_share = isinstance(validation_split, float) and 0 < validation_split < 1
    rng = np.random.default_rng(seed)
    held_out, too_small = [], []
    classes, counts = np.unique(labels, return_counts=True)
    for label, samples in zip(classes, counts, strict=True) if is_share else ():
        count = min(round(samples * validation_split), samples - 1)
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out.append(members[:count])
        too_small += [] if count else [int(label)]
    if sum(map(len, held_out)) == 0:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected a number between 0 and 1 "
            "that holds out at least one sample. Received: "
            f"{name}={validation_split!r}, {len(labels)} samples of {len(classes)} "
            "classes"
        )
    if too_small:
        warnings.warn(
            f"{len(too_small)} of {len(classes)} classes have too few samples to hold "
            f"one out: {too_small[:10]}. All their samples are trained on.",
            stacklevel=3,
        )
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def folds_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns the fold of each sample. Each class is spread evenly over the folds.

    So a class with at least two samples is in the training data of each fold.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    found = np.empty(len(labels), int)
    found[by_class] = np.arange(len(labels)) % folds
    return found


def mean_of_last_epochs(values) -> float:
    """Returns the mean of the last tenth of the epochs, at least of one epoch.

    As in the papers. The choice of the best epoch would need clean labels.
    """
    return float(np.mean(values[-max(1, len(values) // 10) :]))
