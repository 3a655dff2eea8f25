"""TensorBoard's event files, taken back to where a checkpoint was written.

Steps alone could not say what to drop: the terms of the last step, the test's metrics and the pictures all have it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytorch_lightning.loggers import Logger, TensorBoardLogger


def sizes(loggers: Iterable[Logger]) -> dict[str, int]:
    """Name -> bytes of each event file; they are on the disk then."""
    found = {}
    for path in _files(loggers):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            found[path.name] = os.fstat(file.fileno()).st_size
    return found


def rewind(loggers: Iterable[Logger], sizes: Mapping[str, int]) -> None:
    """Cut the event files down to those sizes, and remove those that were not there yet."""
    for path in _files(loggers):
        if path.name not in sizes:
            path.unlink()
        elif path.stat().st_size > sizes[path.name]:
            os.truncate(path, sizes[path.name])


def _files(loggers: Iterable[Logger]) -> Iterator[Path]:
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            yield from sorted(Path(logger.log_dir).glob("events.out.tfevents.*"))
