"""Matplotlib, an extra, for those who plot."""


def new_axes(caller: str):
    """Returns the axes of a new figure, or explains how to install Matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`{caller}` needs Matplotlib, which is not installed. "
            "Install it with: pip install matplotlib"
        ) from error
    return plt.subplots(layout="constrained")[1]
