"""Atomic writing of files, and JSON files with checksums."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

_DIGEST = "sha256"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and then replaces `path` by this file.

    Raises:
        OSError: If the file cannot be written. The old file is then unchanged.
    """
    unfinished = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(
            f"Cannot write {path}: {error}. Finished work is kept, and the same call "
            "resumes it."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, contents: bytes) -> None:
    """Writes a file atomically."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(contents)


def remove_unfinished(path: Path) -> None:
    """Removes files of processes that were killed while they wrote to `path`."""
    for unfinished in path.parent.glob(f"[0-9]*-{path.name}"):
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, contents: dict) -> None:
    """Writes contents with their checksum."""
    whole = {**contents, _DIGEST: digest(contents)}
    write_bytes(path, json.dumps(whole, allow_nan=False).encode())


def read_json(path: Path) -> dict | None:
    """Returns the contents of a file by `write_json`, `None` if missing or damaged."""
    try:
        contents = json.loads(path.read_bytes())
        return contents if contents.pop(_DIGEST) == digest(contents) else None
    except Exception:  # A damaged file can cause any error.
        return None


def digest(contents) -> str:
    """Returns a hash of JSON-able contents."""
    encoded = json.dumps(contents, sort_keys=True).encode()
    return hashlib.sha256(encoded).hexdigest()
