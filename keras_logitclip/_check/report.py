"""Problems with their remedies, and a report of them."""

from dataclasses import dataclass
from typing import NamedTuple


class Problem(NamedTuple):
    """Describes a problem.

    Attributes:
        expected: The expected state.
        received: The actual state.
        remedy: How to mend it.
    """

    expected: str
    received: str
    remedy: str

    def __str__(self):
        return f"Expected {self.expected}. Received: {self.received}. {self.remedy}"


def raise_first(*found: Problem | None) -> None:
    """Raises an error for the first problem, if there is any."""
    for problem in found:
        if problem is not None:
            raise ValueError(str(problem))


@dataclass(frozen=True)
class ModelReport:
    """Holds the result of `check_model`. It prints as a text.

    Attributes:
        problems: Problems with `expected`, `received` and `remedy`.
        hints: Possible improvements, in the same form.
        samples: Number of samples that were predicted.
        kind: The detected kind of labels: `"class ids"`, `"one-hot labels"`,
            `"soft labels"`, `"several labels"` or `"one logit"`; `None` if they fit
            nothing.
        label_range: The smallest and the largest label, `None` if labels are not
            numbers.
        output_shape: Shape of the outputs for the samples.
        logit_norms: The 5%, 50% and 95% quantiles of the norms of the logits, `None` if
            the model does not return logits.
        tau: The threshold, `None` without clipping.
        clipped_fraction: The share of logit vectors whose norm is above `tau`.
        compiled: Whether the model is compiled. Otherwise its loss and its learning
            rate are unknown.
    """

    problems: list[Problem]
    hints: list[Problem]
    samples: int
    kind: str | None
    label_range: tuple[float, float] | None
    output_shape: tuple[int, ...]
    logit_norms: tuple[float, float, float] | None
    tau: float | None
    clipped_fraction: float | None
    compiled: bool

    @property
    def ok(self) -> bool:
        """Returns whether there are no problems. Hints do not count."""
        return not self.problems

    def raise_if_wrong(self) -> None:
        """Raises a `ValueError` for the first problem, if there is any."""
        raise_first(*self.problems)

    def __str__(self):
        return "\n".join([*self._facts(), "", *self._findings()])

    def _facts(self):
        labels = self.kind or "labels that do not fit"
        if self.label_range is not None:
            low, high = self.label_range
            labels += f" from {low:g} to {high:g}"
        yield f"{self.samples} samples: {labels}, outputs of shape {self.output_shape}"
        if self.logit_norms is not None:
            low, median, high = self.logit_norms
            yield (
                f"norm of the logits: median {median:.3g}, of most samples between "
                f"{low:.3g} and {high:.3g}"
            )
        if self.clipped_fraction is not None:
            yield (
                f"clipped at tau = {self.tau:g}: {self.clipped_fraction:.0%}. Look at "
                "this number while training (`metrics.ClippedFraction`): 0% after some "
                "epochs means that nothing is clipped."
            )
        if not self.compiled:
            yield "not compiled: nothing is known of the loss and the learning rate"

    def _findings(self):
        if self.ok:
            yield "Nothing wrong was found."
        for title, found in (("Wrong", self.problems), ("Hints", self.hints)):
            if found:
                yield f"{title}:"
            for number, problem in enumerate(found, start=1):
                yield f"{number}. Expected {problem.expected}."
                yield f"   Received: {problem.received}."
                yield f"   {problem.remedy}"
