"""Finds and reads the files of a data set."""

from pathlib import Path

# More than any original file, of which CIFAR-100's is the largest with 155 MB.
MAX_BYTES = 2**28


def find_files(data_dir, folder: str, names: list[str]) -> list[Path]:
    """Returns the paths of the files in `data_dir/folder` or else in `data_dir`.

    Raises:
        FileNotFoundError: If neither folder has all files. The message lists the
            missing ones.
    """
    places = [Path(data_dir) / folder, Path(data_dir)]
    missing = {}
    for place in places:
        missing[place] = [name for name in names if not (place / name).is_file()]
        if not missing[place]:
            return [place / name for name in names]
    raise FileNotFoundError(
        f"Expected the files {', '.join(names)} in one folder. Looked in: "
        + "; ".join(
            f"{place.absolute()} (missing: {', '.join(absent)})"
            for place, absent in missing.items()
        )
    )


def read_bytes(path: Path) -> bytes:
    """Reads a file if it is not larger than those of the data sets.

    Raises:
        ValueError: If it is larger.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"Cannot read {path}: expected at most {MAX_BYTES} bytes. Received: {size}"
        )
    return path.read_bytes()
