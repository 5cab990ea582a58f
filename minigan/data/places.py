"""Where data sets are looked for, and where what was made or downloaded is kept."""

import os
from collections.abc import Sequence
from pathlib import Path

from minigan.data.reading import DataError

SYSTEM = Path("/usr/share/datasets")  # where Debian's packages dataset-* put theirs


class MissingDataError(DataError):
    """The files of a data set are nowhere; the message says where they were looked for."""

    def __init__(self, name: str, folders: Sequence[Path], advice: str) -> None:
        looked = ", ".join(str(folder) for folder in folders)
        ValueError.__init__(self, f"{name}: not found in {looked}. {advice}")
        self.path, self.where = folders[-1], name
        self.expected, self.found = "the data set's files", "nothing"


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder asked for, else `$MINIGAN_CACHE`, else the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if folder := os.environ.get("MINIGAN_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "minigan"
    return Path.home() / ".cache" / "minigan"


def data_folders(name: str, data_dir: str | os.PathLike | None = None) -> list[Path]:
    """Where the files of the data set `name` may be, in the order in which they are looked for.

    `data_dir`, and nowhere else if it is given; else `$MINIGAN_DATA` (each of the two, or a folder
    `name` inside), the Debian package's folder, the user's cache.
    """
    if data_dir is not None:
        return _with_inner(Path(data_dir).expanduser(), name)
    asked = os.environ.get("MINIGAN_DATA")
    folders = _with_inner(Path(asked).expanduser(), name) if asked else []
    return [*folders, SYSTEM / name, cache_folder() / name]


def find_all(folders: Sequence[Path], files: Sequence[str]) -> list[Path] | None:
    """The paths of `files` in the first folder that has them all, packed or not; else None.

    A file called `x.gz` may be there as `x`.
    """
    for folder in folders:
        found = [_packed_or_not(folder / file) for file in files]
        if None not in found:
            return found
    return None


def _with_inner(folder: Path, name: str) -> list[Path]:
    return [folder, folder / name]


def _packed_or_not(path: Path) -> Path | None:
    names = [path, path.with_suffix("")] if path.suffix == ".gz" else [path]
    return next((name for name in names if name.is_file()), None)
