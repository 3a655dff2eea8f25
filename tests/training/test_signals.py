import os
import signal
import threading

import pytest

from vaelab.training.signals import SIGNALS, graceful_stop


def handlers() -> list[object]:
    return [signal.getsignal(signum) for signum in SIGNALS]


def test_handlers_are_restored() -> None:
    before = handlers()
    with graceful_stop():
        assert handlers() != before
    assert handlers() == before


@pytest.mark.parametrize(
    ("signum", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGUSR1, SystemExit)],
)
def test_a_signal_outside_training_stops_at_once_and_restores_the_handlers(
    signum: signal.Signals, error: type[BaseException]
) -> None:
    before = handlers()
    with pytest.raises(error), graceful_stop():
        os.kill(os.getpid(), signum)
    assert handlers() == before


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    before, inside = handlers(), []

    def work() -> None:
        with graceful_stop():
            inside.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == before
