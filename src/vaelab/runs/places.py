"""Folders of runs and sweeps on the disk: what may be in them, how they appear, who holds them."""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vaelab.errors import NO_ROOM, RunError, StorageError
from vaelab.text import clean, one_line

TAKEN = "is there already, and a run never overwrites one"


def is_inside(path: str | Path, name: str) -> bool:
    """Whether the folder `path` has a file of that name, or a link in its place, which will be refused.

    Raises:
        RunError: the path is an address, or is not valid.
    """
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)):
        raise RunError(f"{path} is an address: run folders are on this machine, nothing is downloaded")
    if "\0" in str(path):
        raise RunError(f"{one_line(str(path))}: not a valid folder name")
    file = Path(path, name)
    return file.is_file() or file.is_symlink()


def require_own_files(folder: Path, *, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Refuse links and devices: files that are read, truncated or removed have to be inside the run or sweep folder.

    Args:
        folder: the run's or the sweep's.
        files: names that must not be folders.
        folders: names that must not be files.

    Raises:
        RunError: there is one, or a name with control characters. W&B's own folders, from which nothing is read,
            may have links.
    """
    wrong = [name for name in files if (folder / name).is_dir()] + [
        name for name in folders if (folder / name).is_file()
    ]
    if wrong:
        raise RunError(
            f"{folder / wrong[0]} is {'a folder, not a file' if wrong[0] in files else 'a file, not a folder'}"
        )
    unread = [folder]
    while unread:
        of = unread.pop()
        with os.scandir(of) as entries:
            for entry in entries:
                if clean(entry.name) != entry.name or "\n" in entry.name or "\t" in entry.name:
                    raise RunError(f"{one_line(entry.path)}: names in a run or sweep folder have no control characters")
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise RunError(
                        f"{entry.path} is a link or not a regular file: a run or sweep folder has only files of its own"
                    )
                if entry.is_dir() and not (entry.name == "wandb" and (of / "config.yaml").is_file()):
                    unread.append(Path(entry.path))


def renamed(unfinished: Path, wanted: Path, taken: str, *, exact: bool) -> Path:
    """Move a folder to `wanted` or, unless `exact`, to a free name with -2, -3, ... appended; return its path.

    Raises:
        RunError: `exact` and the path exists; `taken` explains it.
    """
    candidate, number = wanted, 1
    while True:
        try:
            if exact or not candidate.exists():  # an empty folder would be replaced
                return unfinished.rename(candidate)
        except OSError:
            if not candidate.exists():
                raise
        if exact:
            raise RunError(f"{wanted} {taken}: choose another folder")
        number += 1
        candidate = wanted.with_name(f"{wanted.name}-{number}")


def unmade(folder: Path, error: OSError) -> RunError:
    """Return the error that a folder cannot be made: a StorageError if the disk is full."""
    kind = StorageError if error.errno in NO_ROOM else RunError
    return kind(f"the folder {folder} cannot be made: {error.strerror or error}")


def place(path: Path) -> tuple[int, int] | None:
    """Identify a folder beyond its name, by device and inode; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


@contextmanager
def exclusive(path: Path, in_use: str, *, wait: bool = False) -> Iterator[None]:
    """Lock a file for this process, or wait until that is possible.

    Raises:
        RunError: another process has locked it; `in_use` explains it.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise RunError(in_use) from error
        yield
