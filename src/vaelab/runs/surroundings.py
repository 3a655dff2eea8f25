"""Contexts of a running run: its log and status, a quiet Lightning, errors of disk and memory in one line."""

import errno
import logging
import os
import sqlite3
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaelab.errors import NO_ROOM, Pruned, RunError, StorageError, UserError
from vaelab.performance.torch_internals import FULL_DISK
from vaelab.runs.documents import State
from vaelab.runs.folder import RunFolder
from vaelab.runs.places import place

log = logging.getLogger("vaelab")

NO_ROOM_TO_LOAD = ("failed to map segment", "annot allocate memory")  # of a library
NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO}
NO_COMMIT = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's informational messages; warnings stay."""
    chatter = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [source.level for source in chatter]
    for source in chatter:
        source.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning 2.6 under torch 2.14
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated", category=FutureWarning)
        # The last batch of an epoch is always logged.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
        # We refuse it ourselves.
        warnings.filterwarnings("ignore", message="(?s).*precision='16-mixed'.*")
        # torch.compile reads the attribute.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        # Frozen parts are meant to be.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")
        # Ours is: it starts at the batch that training has reached.
        warnings.filterwarnings("ignore", message="(?s).*your dataloader is not resumable")
        try:
            yield
        finally:
            for source, level in zip(chatter, levels, strict=True):
                source.setLevel(level)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Set the number of torch's threads, and restore it afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Report in one line that a disk is full, a folder is gone, or memory ran out.

    Raises:
        StorageError: the run or sweep folder cannot be written; once it can, it can be resumed.
    """
    report = threading.excepthook
    # TensorBoard's thread passes its error to the main thread, so its own traceback is redundant.
    threading.excepthook = lambda failure: None if refused_by_disk(failure.exc_value, folder) else report(failure)
    before = place(folder)
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if why := no_memory(error):
            raise RunError(f"{why}; a smaller data.batch_size needs less") from error
        if before is not None and place(folder) != before:
            raise StorageError(
                f"{folder} was removed or renamed while it was being written to; if it was renamed, "
                "`vaelab resume` its new path"
            ) from error
        reason = refused_by_disk(error, folder)
        if reason is None:
            raise
        raise StorageError(
            f"{folder} cannot be written to ({reason}); earlier files are intact: "
            f"make room or make it writable, then `vaelab resume {folder}`"
        ) from error
    finally:
        threading.excepthook = report


def refused_by_disk(error: BaseException | None, folder: Path) -> str | None:
    """Return why a disk refused a write into a folder, if that caused an error; else None."""
    said = isinstance(error, UserError)  # its message is complete
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            inside = error.filename is not None and _is_within(error.filename, folder)
            if error.errno in NO_ROOM or (inside and error.errno in NO_WRITING and not said):
                return os.strerror(error.errno)
            if inside and isinstance(error, FileNotFoundError | NotADirectoryError) and not said:
                return f"{os.fsdecode(error.filename)} is gone"
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in NO_COMMIT:
            return str(error)
        if isinstance(error, RuntimeError) and FULL_DISK in str(error):
            return os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return None


def _is_within(file: Any, folder: Path) -> bool:
    return not isinstance(file, int) and folder.absolute() in Path(os.fsdecode(file)).absolute().parents


def no_memory(error: Exception) -> str | None:
    """Return the message of an error of torch or NumPy, if it says that memory could not be allocated; else None."""
    said = isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "allocate memory" in str(error))
    overflow = isinstance(error, RuntimeError) and "overflow" in str(error)  # more bytes than an integer counts
    loading = isinstance(error, ImportError | OSError) and any(words in str(error) for words in NO_ROOM_TO_LOAD)
    refused = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    refused = refused or said or overflow or loading
    return f"not enough memory: {(str(error).splitlines() or [type(error).__name__])[0]}" if refused else None


@contextmanager
def recorded(folder: RunFolder) -> Iterator[None]:
    """Keep status.json and train.log up to date while a run runs, however it ends."""
    handler = _RunLog(folder.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    sources = [log, logging.getLogger("pytorch_lightning"), logging.getLogger("py.warnings")]
    level = log.level
    for source in sources:
        source.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        folder.update_status("running")
        yield
        folder.update_status("done")
    except (KeyboardInterrupt, SystemExit) as stopped:
        with suppress(OSError, StorageError):
            folder.update_status("interrupted")
        log.warning("interrupted")
        if isinstance(stopped, KeyboardInterrupt):
            stopped.args = (str(folder.path),)  # what can be resumed
        raise
    except Pruned as pruned:
        folder.update_status("pruned")
        log.info("pruned: %s", pruned)
        raise
    except BaseException as error:
        log.exception("failed")
        # A run that a disk has stopped is intact: it can be resumed once there is room.
        state: State = "interrupted" if refused_by_disk(error, folder.path) else "failed"
        with suppress(OSError, RunError):  # the disk may be full, the folder gone
            folder.update_status(state, error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        raise
    finally:
        for source in sources:
            source.removeHandler(handler)
        log.setLevel(level)
        handler.close()


class _RunLog(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop a line rather than print a traceback for it."""
