"""An extension of Griffe that reads the sections which Keras's docstrings have."""

import re
import textwrap

from griffe import Extension

from docs.site.formulas import to_html

FORMULAS = re.compile(r"^Formula:\n\n```python\n(.*?)```$", re.M | re.S)
PARAGRAPHS = re.compile(r"^(Output shape|References):\n((?: {4}.*\n?)+)", re.M)
SESSIONS = re.compile(r"^>>> (?:.+\n?)+", re.M)


class KerasDocstrings(Extension):
    def on_instance(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = _for_griffe(obj.docstring.value)


def _for_griffe(text):
    text = FORMULAS.sub(_formula, text)
    text = PARAGRAPHS.sub(_paragraph, text)
    text = SESSIONS.sub(lambda lines: f"```pycon\n{lines[0].rstrip()}\n```\n", text)
    text = text.replace("\nExample:\n", "\n**Example:**\n")
    return text.replace("\nCall arguments:\n", "\nOther Parameters: Call arguments:\n")


def _formula(match):
    return f"**Formula:**\n\n{to_html(match[1])}"


def _paragraph(match):
    return f"**{match[1]}:**\n\n{textwrap.dedent(match[2])}"
