"""The check of arguments that count something."""

import operator


def check_count(name: str, value, minimum: int = 1) -> int:
    """Returns an argument as an int if it is an integer of at least `minimum`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(
            f"Invalid value for argument `{name}`: expected an integer of at least "
            f"{minimum}. Received: {name}={value!r} (of type {type(value).__name__})"
        )
    return number
