"""Rewind the files of loggers to the moment of a checkpoint.

Steps alone do not identify what to drop: the terms of the last step, the test's metrics and the pictures share one.
Everything after the checkpoint is dropped, including the projector's files, which are outside of the event files.
"""

import csv
import errno
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from vaelab.training.tensorboard import EventFiles


def sizes(loggers: Iterable[Logger]) -> dict[str, int]:
    """Flush to the disk and return name -> bytes of each event file, and lines of metrics.csv.

    Raises:
        FileNotFoundError: a logger's event files were removed.
    """
    found = {}
    loggers = list(loggers)
    for logger in loggers:
        if isinstance(logger, EventFiles) and not any(_files([logger])):  # they are open, so nothing else would notice
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(logger.log_dir))
    for path in _files(loggers):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            found[path.name] = sum(1 for _ in file) if path.suffix == ".csv" else os.fstat(file.fileno()).st_size
    return found


def rewind(loggers: Iterable[Logger], sizes: Mapping[str, int]) -> None:
    """Truncate event files and metrics.csv to those sizes, and remove files that were not there yet."""
    loggers = list(loggers)
    found = list(_files(loggers))
    for name in sorted({str(name) for name in sizes} - {path.name for path in found}):
        warnings.warn(f"{name} was removed, and with it everything that was logged to it", stacklevel=2)
    for path in found:
        if path.name not in sizes:
            path.unlink()
        elif path.suffix != ".csv" and path.stat().st_size > sizes[path.name]:
            os.truncate(path, sizes[path.name])
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            _log_again(logger, sizes)
        elif isinstance(logger, EventFiles):
            logger.remove_embeddings()


def _log_again(logger: CSVLogger, sizes: Mapping[str, int]) -> None:
    """Log the rows again that a new CSVLogger would remove."""
    folder, rows = Path(logger.log_dir), []
    for path in _files([logger]):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))[: sizes[path.name] - 1]
    for name in ("metrics.csv", "hparams.yaml"):  # Lightning warns where it finds anything
        (folder / name).unlink(missing_ok=True)
    for row in rows:
        metrics: dict[str, Any] = {name: value for name, value in row.items() if value and name != "step"}
        logger.experiment.log_metrics(metrics, int(row["step"]))
    logger.save()


def _files(loggers: Iterable[Logger]) -> Iterator[Path]:
    for logger in loggers:
        if isinstance(logger, EventFiles):
            yield from sorted(Path(logger.log_dir).glob("events.out.tfevents.*"))
        elif isinstance(logger, CSVLogger):
            yield from Path(logger.log_dir).glob("metrics.csv")
