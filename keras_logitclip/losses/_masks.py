"""Masks of losses: which values count in the mean.

Keras's own `ignore_class` leaves one on the values that it returns. There is no
public way to read or set it; under JAX the mask is no attribute of the tensor.
"""

from keras import ops


def mask_of(losses):
    """Returns the mask of per-sample values, or `None`."""
    from keras.src.backend import get_keras_mask

    return get_keras_mask(losses)


def set_mask(losses, mask) -> None:
    """Tells Keras which values count, as its own `ignore_class` does."""
    from keras.src.backend import set_keras_mask

    set_keras_mask(losses, mask=mask)


def copy_masks(losses, *sources) -> None:
    """Lets those values count that count in each source that has a mask."""
    masks = [mask for mask in map(mask_of, sources) if mask is not None]
    if masks:
        mask = masks[0]
        for other in masks[1:]:
            mask = ops.logical_and(mask, other)
        set_mask(losses, mask)
