"""What surrounds a run while it runs: its log and status, a quiet Lightning, a word where the disk is full."""

import logging
import os
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaelab.errors import NO_ROOM, Pruned, RunError, StorageError
from vaelab.runs.folder import RunFolder

log = logging.getLogger("vaelab")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's remarks about what it found and how it was called; warnings stay."""
    chatter = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [source.level for source in chatter]
    for source in chatter:
        source.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning 2.6 under torch 2.14
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated", category=FutureWarning)
        # The last batch of an epoch is logged however short the epoch is.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
        # We refuse it ourselves.
        warnings.filterwarnings("ignore", message="(?s).*precision='16-mixed'.*")
        # torch.compile looks at the attribute itself.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        # Ours resumes: it starts where the progress stands.
        warnings.filterwarnings("ignore", message="(?s).*your dataloader is not resumable")
        try:
            yield
        finally:
            for source, level in zip(chatter, levels, strict=True):
                source.setLevel(level)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Have torch use so many threads for an operation, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Say in one line that the disk took no more, or that there was no memory, wherever that came up."""
    report = threading.excepthook
    # TensorBoard's thread passes its error on to the main one; a traceback of its own would only come on top.
    threading.excepthook = lambda failure: None if _no_room(failure.exc_value) else report(failure)
    try:
        yield
    except Exception as error:
        if why := no_memory(error):
            raise RunError(f"{why}; a smaller data.batch_size takes less") from error
        reason = _no_room(error)
        if reason is None:
            raise
        raise StorageError(
            f"{folder} cannot be written to ({reason}); what was written before is intact: "
            f"make room, then `vaelab resume {folder}`"
        ) from error
    finally:
        threading.excepthook = report


def _no_room(error: BaseException | None) -> str | None:
    """How the system says that a disk is full, where that is what an error came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return os.strerror(error.errno)
        error = error.__cause__ or error.__context__
    return None


def no_memory(error: Exception) -> str | None:
    """How torch or NumPy says that it was refused the memory it asked for, where that is what it says."""
    said = isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "allocate memory" in str(error))
    overflow = isinstance(error, RuntimeError) and "overflow" in str(error)  # more bytes than can be counted
    refused = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said or overflow
    return f"the memory does not suffice: {(str(error).splitlines() or [type(error).__name__])[0]}" if refused else None


@contextmanager
def recorded(folder: RunFolder) -> Iterator[None]:
    """Keep status.json and train.log while a run runs, however it ends."""
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
        folder.update_status("interrupted")
        log.warning("interrupted")
        if isinstance(stopped, KeyboardInterrupt):
            stopped.args = (str(folder.path),)  # what there is to resume
        raise
    except Pruned as pruned:
        folder.update_status("pruned")
        log.info("pruned: %s", pruned)
        raise
    except BaseException as error:
        log.exception("failed")
        with suppress(OSError):  # the disk may be full
            folder.update_status("failed", error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        raise
    finally:
        for source in sources:
            source.removeHandler(handler)
        log.setLevel(level)
        handler.close()


class _RunLog(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Go without a line rather than print a traceback for it."""
