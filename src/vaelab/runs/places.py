"""Folders of runs and sweeps on the disk: what may be in them, how they appear, who holds them."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vaelab.errors import NO_ROOM, RunError, StorageError
from vaelab.text import clean, one_line

TAKEN = "is there already, and a run never overwrites one"


def is_inside(path: str | Path, name: str) -> bool:
    """Whether the folder `path` has a file of that name, or a link in its place, to be refused.

    Raises:
        RunError: the path is an address, or none that there can be.
    """
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)):
        raise RunError(f"{path} is an address: a run folder is on this machine, nothing is fetched")
    if "\0" in str(path):
        raise RunError(f"{one_line(str(path))}: no folder has such a name")
    file = Path(path, name)
    return file.is_file() or file.is_symlink()


def require_own_files(folder: Path, *, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Refuse links and devices: what is read, cut or removed in a run or sweep folder has to be in that folder.

    Args:
        folder: the run's or the sweep's.
        files: names in it that are no folders, where they are there.
        folders: names in it that are no files.

    Raises:
        RunError: there is one, or a name with control characters. W&B's own folders, of which nothing is read, may
            have links.
    """
    wrong = [name for name in files if (folder / name).is_dir()] + [
        name for name in folders if (folder / name).is_file()
    ]
    if wrong:
        raise RunError(
            f"{folder / wrong[0]} is {'a folder' if wrong[0] in files else 'a file'}, as in no run or sweep folder"
        )
    unread = [folder]
    while unread:
        of = unread.pop()
        with os.scandir(of) as entries:
            for entry in entries:
                if clean(entry.name) != entry.name or "\n" in entry.name or "\t" in entry.name:
                    raise RunError(
                        f"{one_line(entry.path)}: a run or sweep folder holds no names with control characters"
                    )
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise RunError(
                        f"{entry.path} is a link or no regular file: a run or sweep folder holds files of its own only"
                    )
                if entry.is_dir() and not (entry.name == "wandb" and (of / "config.yaml").is_file()):
                    unread.append(Path(entry.path))


def renamed(unfinished: Path, wanted: Path, taken: str, *, exact: bool) -> Path:
    """Where a folder came to lie: at `wanted` or, unless `exact`, with -2, -3, ... appended.

    Raises:
        RunError: `exact` and there is something; `taken` says what that means.
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
    """That a folder cannot be made: a StorageError where the disk is full."""
    kind = StorageError if error.errno in NO_ROOM else RunError
    return kind(f"the folder {folder} cannot be made: {error.strerror or error}")


def place(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one that takes its name; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


@contextmanager
def exclusive(path: Path, in_use: str, *, wait: bool = False) -> Iterator[None]:
    """Lock a file for this process, or wait until it can be locked.

    Raises:
        RunError: another process has locked it; `in_use` says what that means.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise RunError(in_use) from error
        yield
