"""Finding the files of a data set."""

from pathlib import Path


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
