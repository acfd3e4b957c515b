"""Protection of settings that a compiled training step reads only once."""


class FixedOnceCalled:
    """Refuses changes of settings after the first call.

    A compiled training step keeps the values that it was traced with. A later change,
    for instance by a callback, would silently have no effect on TensorFlow and JAX.
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
                f"`{name}` of a {kind} cannot be changed after its first call, because "
                f"a compiled training step would not notice. Make a new {kind} and "
                "call `model.compile` again: weights and optimizer stay. Received: "
                f"{name}={value!r}"
            )
        super().__setattr__(name, value)
