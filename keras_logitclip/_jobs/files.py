"""Files that are there as a whole or not at all."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

_DIGEST = "sha256"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and then puts the file in the place of another.

    Raises:
        OSError: If it cannot be written; the old file is still there then.
    """
    unfinished = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(
            f"Cannot write {path}: {error}. What is done is kept, and the same call "
            "goes on with it."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, contents: bytes) -> None:
    """Writes a file in one step: nobody ever finds half of it."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(contents)


def write_json(path: Path, contents: dict) -> None:
    """Writes contents with their checksum."""
    whole = {**contents, _DIGEST: digest(contents)}
    write_bytes(path, json.dumps(whole, allow_nan=False).encode())


def read_json(path: Path) -> dict | None:
    """Returns what `write_json` wrote, `None` if it is missing or damaged."""
    try:
        contents = json.loads(path.read_bytes())
        return contents if contents.pop(_DIGEST) == digest(contents) else None
    except Exception:  # Anything can come of a damaged file.
        return None


def digest(contents) -> str:
    """Returns a hash of JSON-able contents."""
    encoded = json.dumps(contents, sort_keys=True).encode()
    return hashlib.sha256(encoded).hexdigest()
