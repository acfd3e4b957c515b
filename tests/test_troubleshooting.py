"""docs/troubleshooting.md explains the messages of the package, and no others."""

import ast
import re

import pytest

from tests.subprocesses import ROOT

pytestmark = pytest.mark.once

PACKAGE = ROOT / "keras_logitclip"
MODULES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
# In the first cell of a row, which can have several.
QUOTES = re.compile(r'"([^"]+)"(?=,|$| \()')
# One row is for all arguments that are out of range.
OF_ARGUMENTS = "Invalid value for argument `"
# Modules whose messages follow others, such as "Cannot use", which have rows.
INNER = {"datasets/_unpickle.py", "study/_config.py", "study/_files.py"}


def quotes():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith('| "')]
    return [quote for row in rows for quote in QUOTES.findall(row[2:].split(" | ")[0])]


def texts_of(tree):
    """Returns the strings of code, with "..." for what is formatted into them."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(str() as text):
                found.append(text)
            case ast.JoinedStr(parts):
                found.append("".join(map(_text_of, parts)))
    return found


def _text_of(part):
    return part.value if isinstance(part, ast.Constant) else "..."


def errors():
    """Yields the texts of each error that a module raises itself."""
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            match node:
                case ast.Raise(ast.Call() as error) if name not in INNER:
                    yield texts_of(error)


def test_what_is_explained_is_a_message():
    texts = [text for tree in MODULES.values() for text in texts_of(tree)]
    explained = quotes()
    assert len(explained) > 100
    left = [quote for quote in explained if not any(quote in text for text in texts)]
    assert left == []


def test_every_message_is_explained():
    explained = [*quotes(), OF_ARGUMENTS]
    left = [
        texts
        for texts in errors()
        if "Received" in "".join(texts)
        and not any(quote in text for quote in explained for text in texts)
    ]
    assert left == []
