"""Finding the files of a data set, and reading them."""

from pathlib import Path

# More than the contents of any original file: those of CIFAR-100 have 155 MB.
MAX_BYTES = 2**28


def find_files(data_dir, folder: str, names: list[str]) -> list[Path]:
    """Returns the paths of the files, in `data_dir/folder` or else in `data_dir`.

    Raises:
        FileNotFoundError: If neither folder holds all files. Says which are
            missing from each.
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
    """Reads a file that is no larger than those of the data sets.

    Raises:
        ValueError: If it is larger.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"Cannot read {path}: expected at most {MAX_BYTES} bytes. Received: {size}"
        )
    return path.read_bytes()
