"""A further process of a run on several devices: `python -m vaelab.runs.companion FOLDER [PACKAGE ...]`.

It takes part in the training and writes nothing.
"""

import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence

from vaelab.errors import DivergenceError

PATIENCE = 10.0  # seconds for a process to end after another of the same run has failed


def end_with_the_first() -> None:
    """End this process when the one that started it ends, however it does: its standard input closes then.

    The main thread may be waiting for a process that no longer exists.
    """

    def follow() -> None:
        os.read(0, 1)
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


def accompany(folder: str, trust: Sequence[str]) -> None:
    """Train along, until the first process ends this one."""
    end_with_the_first()
    warnings.simplefilter("ignore")  # the first process reports it
    try:
        from vaelab.runs.run import join

        join(folder, trust=trust)
    except (KeyboardInterrupt, SystemExit, DivergenceError):
        pass  # all processes stop at the same step, and the first one says why
    except Exception:
        time.sleep(PATIENCE)  # if the first process failed, this is only a lost connection: not worth a report
        raise


if __name__ == "__main__":
    accompany(sys.argv[1], sys.argv[2:])
