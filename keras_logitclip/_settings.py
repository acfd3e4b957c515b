"""Settings of losses, layers and metrics, which a compiled step reads once."""


class FixedOnceCalled:
    """Refuses changes of the settings once they have been read.

    A compiled training step keeps the values that it was traced with: a change, for
    instance by a callback, would have no effect on TensorFlow and JAX, and nobody
    would notice.
    """

    _is_fixed = False

    def fix_settings(self) -> None:
        """Refuses changes from now on."""
        if not self._is_fixed:
            self._is_fixed = True

    def is_setting(self, name: str) -> bool:
        """Returns whether an attribute is a setting."""
        return not name.startswith("_")

    def __setattr__(self, name, value):
        if self._is_fixed and self.is_setting(name):
            kind = type(self).__name__
            raise AttributeError(
                f"`{name}` of a {kind} cannot be changed once it has been called, "
                "because a compiled training step would not notice. Make a new "
                f"{kind} and call `model.compile` again: weights and optimizer "
                f"stay. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)
