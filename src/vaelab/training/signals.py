"""Stop at a signal without losing progress."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from vaelab.training.bundles import TakesBundles
from vaelab.training.checkpoints import Checkpoints, resumes_after

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def graceful_stop() -> Iterator[pl.Callback]:
    """Give a callback that at the first signal finishes the current step, writes `last.ckpt` and stops training.

    A second signal stops at once, as does the first outside of training. Handlers are installed in the main thread
    only, and restored afterwards.

    Raises:
        KeyboardInterrupt: it was SIGINT.
        SystemExit: it was SIGTERM or SIGUSR1; 143, the shell's code for SIGTERM.
    """
    stop = _GracefulStop()
    main = threading.current_thread() is threading.main_thread()
    before = {signum: signal.getsignal(signum) for signum in SIGNALS} if main else {}
    try:
        if main:
            stop.install()
        yield stop
    except _Stopped as stopped:
        if stopped.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class _Stopped(BaseException):
    """On a KeyboardInterrupt Lightning would exit, and an Exception it would report as an error."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class _GracefulStop(TakesBundles, pl.Callback):
    def __init__(self) -> None:
        self.installed = False
        self.training = False
        self.received: int | None = None

    def install(self) -> None:
        """Install the handlers."""
        self.installed = True
        for signum in SIGNALS:
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None or not self.training:
            raise _Stopped(signum)
        self.received = signum
        with suppress(OSError):  # not print: the main thread may be printing
            os.write(2, b"\nstopping after this step; a second signal stops at once\n")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, let the current step finish."""
        self._install_again()
        self.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop."""
        if resumes_after(trainer) and self._asked(trainer):
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoints):
                    callback.save_last(trainer)
            raise _Stopped(self.received or signal.SIGTERM)

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether a signal has arrived."""
        return self.received is not None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop: the end of the previous epoch has been saved."""
        if self._asked(trainer):
            raise _Stopped(self.received or signal.SIGTERM)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the test: the end of training has been saved."""
        self.training = False
        if self._asked(trainer):
            raise _Stopped(self.received or signal.SIGTERM)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, stop at once."""
        self._install_again()

    def _install_again(self) -> None:
        """Replace the handler that Lightning has installed by now, in which several processes wait for each other."""
        if self.installed:
            self.install()

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether a signal has reached any of the processes: all of them stop after the same step."""
        asked = self.received is not None
        return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked
