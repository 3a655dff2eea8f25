"""Coordinate processes of one run that were started from outside: by torchrun, by srun, or by hand on each machine.

The first one leads: it claims the run folder and writes. Before and after training the processes communicate through
the store that torch.distributed rendezvouses in.
"""

import math
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import DictConfig, OmegaConf
from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from vaelab.errors import ConfigError, DivergenceError, RunError, UserError
from vaelab.runs.companion import PATIENCE

MEETING = 600.0  # seconds within which all processes have to start

Prepared = TypeVar("Prepared")


class Launch:
    """The processes that were started for a run, seen from one of them; usually it is the only one.

    Args:
        rank: of this process.
        count: of all processes.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank = rank
        self.count = count
        self.store = _store(rank) if count > 1 else None
        self.begun = False

    @classmethod
    def of(cls, config: DictConfig) -> "Launch":
        """Read the environment.

        Raises:
            ConfigError: it does not say where the processes meet.
            RunError: they cannot meet there.
        """
        if (found := _launched()) is not None:
            return cls(*found)
        nodes = OmegaConf.select(config, "trainer.num_nodes")
        if not isinstance(nodes, int) or nodes < 2:
            return cls(0, 1)
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ConfigError(
                [
                    f"trainer.num_nodes={nodes}: start the command on every machine, with torchrun, with srun, or with "
                    f"NODE_RANK, MASTER_ADDR and MASTER_PORT set; missing: {', '.join(missing)}"
                ]
            )
        return cls(int(os.environ["NODE_RANK"]), nodes)

    @property
    def restarted(self) -> bool:
        """Whether torchrun or Slurm has started the same command before."""
        return any(int(os.environ.get(f"{name}_RESTART_COUNT", 0)) for name in ("TORCHELASTIC", "SLURM"))

    def require_as_many(self, devices: int, nodes: int, *, external: bool) -> None:
        """Compare the number of started processes with the config.

        Args:
            devices: of each machine.
            nodes: machines.
            external: whether every process was started from outside, or one per machine that starts the others.

        Raises:
            ConfigError: they differ.
        """
        wanted = devices * nodes if external else nodes
        if wanted != self.count:
            raise ConfigError(
                [
                    f"trainer.devices={devices} x trainer.num_nodes={nodes} should be {self.count}, as many processes "
                    "as were started: trainer.devices is torchrun's --nproc-per-node or srun's --ntasks-per-node, "
                    "trainer.num_nodes is --nnodes or --nodes"
                ]
            )

    def await_others(self) -> None:
        """Wait until the others are ready too.

        Raises:
            RunError: one of them is not.
        """
        if self.store is not None and self.store.check(["end"]):
            raise RunError("processes started by a launcher can train only one run, and this is a second one")
        for rank in range(1, self.count):
            try:
                failure = self._told(f"ready {rank}", MEETING)
            except TimeoutError as error:
                raise RunError(
                    f"process {rank} of {self.count} did not start within {MEETING / 60:.0f} minutes: "
                    "was the command started on every machine?"
                ) from error
            if failure:
                raise RunError(f"process {rank} of {self.count} {failure}")

    def begin(self, folder: Path) -> None:
        """Let the others take part in the run in `folder`."""
        self._tell("folder", str(folder.absolute()))
        self.begun = True

    @contextmanager
    def ending(self) -> Iterator[None]:
        """When the block is left, end the others with the exit code that this process will have."""
        code = 0
        try:
            yield
        except BaseException as error:
            code = _exit_code(error)
            raise
        finally:
            with suppress(TimeoutError, DistError):  # the others may have ended, and the store with them
                if not self.begun:
                    self._tell("folder", "")
                self._tell("end", str(code))
                deadline = time.monotonic() + PATIENCE
                for rank in range(1, self.count):  # this process may host the store
                    self._told(f"gone {rank}", deadline - time.monotonic())

    def follow(self, prepare: Callable[[], Prepared], take_part: Callable[[Prepared, Path], Any]) -> NoReturn:
        """Take part in the run that the first process begins, and end with it.

        Args:
            prepare: called before there is a run folder.
            take_part: trains along, given what `prepare` returned and the run folder.

        Raises:
            SystemExit: with the first process's exit code.
            Exception: an error of this process alone.
        """
        failure: Exception | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first process reports it
            try:
                prepared = prepare()
                self._tell(f"ready {self.rank}", "")
                folder = self._told("folder", math.inf)
                if folder:
                    take_part(prepared, Path(folder))
            except (KeyboardInterrupt, SystemExit, DivergenceError):
                pass  # all processes stop at the same step, and the first one reports why
            except UserError as error:
                self._tell(f"ready {self.rank}", f"on {socket.gethostname()}: {error}")
                failure = error
            except Exception as error:
                failure = error
        try:
            code = int(self._told("end", PATIENCE if failure else math.inf))
            self._tell(f"gone {self.rank}", "")
        except DistError:  # the first process has ended
            code = 1
        except TimeoutError:
            assert failure is not None
            raise failure from None
        sys.exit(code)

    def _tell(self, key: str, value: str) -> None:
        if self.store is not None:
            self.store.set(key, value)

    def _told(self, key: str, within: float) -> str:
        """Poll, since waiting inside the store would block signals."""
        assert self.store is not None
        deadline = time.monotonic() + within
        while not self.store.check([key]):
            if time.monotonic() > deadline:
                raise TimeoutError(key)
            time.sleep(0.05)
        value: bytes = self.store.get(key)
        return value.decode()


def require_one() -> None:
    """Refuse to be one of several processes.

    Raises:
        ConfigError: torchrun or srun has started several.
    """
    _, count = _launched() or (0, 1)
    if count > 1:
        raise ConfigError(
            [
                f"{count} processes were started, but a sweep is one process, which starts its jobs: "
                "run it without a launcher"
            ]
        )


def _launched() -> tuple[int, int] | None:
    """Return the rank of this process and the number of processes, if torchrun or srun has started it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_NUM_TASKS" in os.environ:  # a batch script has the other variables without srun
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"])
    return None


@cache  # for the life of the process, which may host the store
def _store(rank: int) -> Store:
    try:
        if "TORCHELASTIC_RUN_ID" not in os.environ and "SLURM_STEP_NUM_TASKS" in os.environ:
            slurm = SLURMEnvironment()
            _ = slurm.main_address, slurm.main_port  # which sets MASTER_ADDR and MASTER_PORT
        of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
        store: Store = _opened(int(os.environ["MASTER_PORT"]), holds=rank == 0 and not of_torchrun)
        if of_torchrun and (restarts := os.environ["TORCHELASTIC_RESTART_COUNT"]) != "0":
            store = _renewed(PrefixStore(f"vaelab {restarts}", store), rank)
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise RunError(f"the processes of the run cannot meet at {address}: {str(error).splitlines()[0]}") from error
    return PrefixStore("vaelab", store)


def _renewed(store: Store, rank: int) -> Store:
    """Make a store that the first process hosts, in place of torchrun's.

    After a restart torchrun's store (2.14) still has the keys and addresses of the earlier processes, to which
    torch.distributed would connect.
    """
    if rank == 0:
        renewed = _opened(0, holds=True)
        store.set("port", str(renewed.port))
    else:
        store.wait(["port"])
        renewed = _opened(int(store.get("port")), holds=False)
    os.environ["MASTER_PORT"] = str(renewed.port)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(False)
    return renewed


def _opened(port: int, *, holds: bool) -> TCPStore:
    return TCPStore(
        os.environ["MASTER_ADDR"],
        port,
        is_master=holds,
        timeout=timedelta(seconds=MEETING),
        wait_for_workers=False,
        multi_tenant=True,  # torch.distributed uses it too
    )


def _exit_code(error: BaseException) -> int:
    """Return the exit code of the command line after `error`."""
    if isinstance(error, UserError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1
