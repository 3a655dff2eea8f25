"""`vaelab` in real processes that start at once.

They are forked from one that has imported what takes seconds to import and has done nothing else.
"""

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from lightning_fabric.utilities.rank_zero import _get_rank, rank_zero_only

from vaelab.cli.main import main

PROCESSES = multiprocessing.get_context("forkserver")
SILENCE = Path(os.devnull)


def command(*arguments: str | Path, cwd: Path, **environment: str) -> CompletedProcess[str]:
    """`vaelab ARGUMENTS` in a folder, once it has ended."""
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = start(*arguments, cwd=cwd, output=output, errors=errors, environment=environment)
        return CompletedProcess(arguments, finish(process), output.read_text(), errors.read_text())


def start(
    *arguments: str | Path,
    cwd: Path | None = None,
    output: Path = SILENCE,
    errors: Path | None = None,
    environment: dict[str, str] | None = None,
    first: Callable[[], object] = tuple,
) -> BaseProcess:
    """`vaelab ARGUMENTS` in a process of its own, what it prints in `output`, its errors there too or in a file.

    `first` is called in it before, and has to be importable.
    """
    given = (list(map(str, arguments)), cwd or Path.cwd(), os.environ | (environment or {}), output, errors, first)
    begin()
    process = PROCESSES.Process(target=_main, args=given)
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """The exit code of a process; -9 after SIGKILL."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run(*arguments: str | Path, **options: Any) -> int:
    return finish(start(*arguments, **options))


def free_port() -> int:
    """A port that nobody has, and that the system gives nobody who asks for any."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def in_one_interpreter(commands: Sequence[Sequence[str]], packages: Sequence[str], cwd: Path) -> list[list[str]]:
    """What each ended with, and which of the packages had been imported by then."""
    script = (
        "import sys; from vaelab.cli.main import main\n"
        f"for words in {commands}:\n"
        "    try: main(words)\n"
        f"    except SystemExit as end: print('ended', end.code, *[name for name in {packages} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd)
    ended = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("ended")]
    assert len(ended) == len(commands), result.stderr
    return ended


@cache
def begin() -> None:
    """Start the process to fork from; Python 3.11 does not hand its own path on to it."""
    forkserver.set_forkserver_preload(["processes", "warm", "vaelab.sweeps.warm", "vaelab.sweeps.search.search"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()


def _main(
    arguments: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    output: Path,
    errors: Path | None,
    first: Callable[[], object],
) -> None:
    assert "warm" in sys.modules
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["vaelab", *arguments]
    rank_zero_only.rank = _get_rank() or 0  # as if Lightning were imported now
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background ignores it
    _open_as(1, output)
    if errors is None:
        os.dup2(1, 2)
    else:
        _open_as(2, errors)
    first()
    main()


def _open_as(descriptor: int, path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, descriptor)
    os.close(file)
