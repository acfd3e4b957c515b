"""Executes the tutorials, and makes a page and a notebook of each."""

import functools
import hashlib
import os
import tempfile
from base64 import b64decode
from importlib import metadata
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
PATHS = sorted(ROOT.glob("docs/tutorials/*.py"))
CACHE = ROOT / ".cache" / "tutorials"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
ENVIRONMENT = {"KERAS_BACKEND": "torch"}  # Whatever the site is built with.
ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})
SECONDS = 400  # For a cell, on a busy machine.


@functools.cache  # So that `mkdocs serve` executes only what was edited.
def make_files(name: str, code: str) -> dict[str, str | bytes]:
    """Returns the page, the notebook and the pictures of a tutorial, by their names.

    Args:
        name: What the names begin with.
        code: Python in sections, of which those of text begin with `# %% [markdown]`.
    """
    notebook = _executed(code)
    pictures = {}
    title, *parts = [_part(cell, name, pictures) for cell in notebook.cells]
    heading, _, text = title.partition("\n")
    offer = f"[This page as a notebook]({name}.ipynb)"
    page = "\n\n".join([heading, offer, text, *parts])
    return {f"{name}.md": page, f"{name}.ipynb": nbformat.writes(notebook), **pictures}


def _executed(code):
    """Returns the notebook with its output, kept for equal sources and packages."""
    sources = [
        path.read_text() for path in sorted(ROOT.glob("keras_logitclip/**/*.py"))
    ]
    packages = sorted(f"{it.name}=={it.version}" for it in metadata.distributions())
    digest = hashlib.sha256("\n".join([code, *sources, *packages]).encode()).hexdigest()
    path = CACHE / f"{digest}.ipynb"
    if path.exists():
        return nbformat.read(path, as_version=4)
    notebook = jupytext.reads(code, "py:percent")
    notebook.metadata["kernelspec"] = KERNEL
    with tempfile.TemporaryDirectory() as folder:
        options = {"timeout": SECONDS, "record_timing": False, "config": ENCRYPTED}
        options["resources"] = {"metadata": {"path": folder}}
        NotebookClient(notebook, **options).execute(env=os.environ | ENVIRONMENT)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # Messages are about the machine.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    CACHE.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return notebook


def _part(cell, name, pictures):
    """Returns a cell and its output as Markdown, and adds its pictures."""
    if cell.cell_type == "markdown":
        return cell.source
    parts = [f"```python\n{cell.source}\n```"]
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            picture = f"{name}-{len(pictures)}.png"
            pictures[picture] = b64decode(data["image/png"])
            parts.append(f"![What this code draws]({picture})")
        else:
            text = output.get("text") or data["text/plain"]
            parts.append(f"```{{ .text .output }}\n{text.rstrip()}\n```")
    return "\n\n".join(parts)
