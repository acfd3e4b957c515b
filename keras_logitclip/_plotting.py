"""Helpers for Matplotlib, which is optional."""


def import_pyplot(caller: str):
    """Imports Matplotlib, or explains how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`{caller}` needs Matplotlib, which is not installed. "
            "Install it with: pip install matplotlib"
        ) from error
    return plt


def new_axes(caller: str):
    """Returns the axes of a new figure, or explains how to install Matplotlib."""
    return import_pyplot(caller).subplots(layout="constrained")[1]


def label_classes(ax, num_classes: int, class_names) -> None:
    """Writes class names beside columns and rows; "$" begins no formula in them."""
    if len(class_names) != num_classes:
        raise ValueError(
            f"Invalid value for argument `class_names`: expected {num_classes} names. "
            f"Received: {len(class_names)}"
        )
    ids = range(num_classes)
    ax.set_xticks(ids, class_names, rotation=90, parse_math=False)
    ax.set_yticks(ids, class_names, parse_math=False)
