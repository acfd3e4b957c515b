"""Inputs of a model, one array or several, and samples of them."""

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


def _as_array(leaf):
    # NumPy's own may lie on the disk, and would be copied.
    return leaf if isinstance(leaf, np.ndarray) else keras.ops.convert_to_numpy(leaf)
