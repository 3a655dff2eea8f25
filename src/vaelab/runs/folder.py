"""A run folder: what it holds, written so that a crash leaves either the old file or the new one."""

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from vaelab.data.form import Form
from vaelab.errors import RunError
from vaelab.files import replacing

MAX_DEPTH = 50  # of a config
MAX_BYTES = 16 << 20  # of a text file; the largest is a manifest with the diff of uncommitted code


class RunFolder:
    """The paths and files of one run.

    config.yaml (resolved), data.json, manifest.json, status.json, metrics.json, checkpoints/, figures/, tensorboard/
    and train.log.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.log = self.path / "train.log"

    @classmethod
    def claim(cls, path: str | Path, *, exact: bool = False) -> "RunFolder":
        """A new folder at `path` or, where that is taken, with -2, -3, ... appended.

        Raises:
            RunError: the folder cannot be made, or `exact` and it is taken.
        """
        wanted, number = Path(path), 1
        while True:
            candidate = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            try:
                candidate.mkdir(parents=True)
                return cls(candidate)
            except FileExistsError as error:
                if exact and candidate.is_dir() and not any(candidate.iterdir()):
                    return cls(candidate)  # Hydra makes the folder of a multirun's job
                if exact:
                    raise RunError(
                        f"{candidate} is there already, and a run never overwrites one: choose another folder"
                    ) from error
                number += 1
            except OSError as error:
                raise RunError(f"the run folder {candidate} cannot be made: {error.strerror}") from error

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The folder of a run that was started.

        Raises:
            RunError: `path` is no run folder.
        """
        folder = cls(path)
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)):
            raise RunError(f"{path} is an address: a run folder is on this machine, nothing is fetched")
        if (folder.path / "sweep.json").is_file():
            raise RunError(f"{path} is a sweep: give the folder of one of its runs, which are in it")
        if not (folder.path / "config.yaml").is_file():
            raise RunError(f"{path} is not a run folder: it has no config.yaml; `vaelab train` makes them")
        folder.require_own_files()
        return folder

    @property
    def config(self) -> DictConfig:
        """The resolved config.

        Raises:
            RunError: it cannot be read, or holds interpolations, which could look into who reads it.
        """
        path = self.path / "config.yaml"
        try:
            text = self._text(path)
            require_plain(text)
            config = OmegaConf.create(text)
            text = OmegaConf.to_yaml(config, resolve=False)
        except Exception as error:  # a foreign file may fail in any way
            raise RunError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error
        if not isinstance(config, DictConfig):
            raise RunError(f"{path} is not a config: it should hold keys and values")
        if "${" in text:
            raise RunError(f"{path} holds an interpolation, ${{...}}: a run's config is resolved, so this is not one")
        return config

    def require_known_servers(self, trust: Sequence[str]) -> None:
        """Refuse to send what a run logs to where only its folder says.

        Raises:
            RunError: the config names a place to track experiments that is not among those trusted.
        """
        for logger in (self.config.get("logger") or {}).values():
            place = logger.get("tracking_uri") if isinstance(logger, DictConfig) else None
            if place is not None and place not in trust:
                raise RunError(
                    f"{self.path / 'config.yaml'} has the run logged to {place}: "
                    f"where that is meant, say --trust {place}"
                )

    @property
    def metrics(self) -> dict[str, float]:
        """What metrics.json holds.

        Raises:
            RunError: it holds anything but numbers.
        """
        metrics = self.read_json("metrics")
        if not all(isinstance(value, int | float) for value in metrics.values()):
            raise RunError(f"{self.path / 'metrics.json'} cannot be read: it should hold numbers")
        return {name: float(value) for name, value in metrics.items()}

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds.

        Raises:
            RunError: a part of it is not what we write.
        """
        manifest = self.read_json("manifest")
        kinds = {"packages": dict, "data": dict, "hardware": dict, "overrides": list}
        sound = all(isinstance(manifest.get(name, kind()), kind) for name, kind in kinds.items())
        git = manifest.get("git") or {"commit": "", "diff": ""}
        if not (sound and isinstance(git, dict) and all(isinstance(git.get(name), str) for name in ("commit", "diff"))):
            raise RunError(f"{self.path / 'manifest.json'} cannot be read: it is not one that vaelab has written")
        return manifest

    @property
    def form(self) -> Form | None:
        """What data.json holds: what the run's model has to know of its data; None where it has not been written.

        Raises:
            RunError: it holds something else.
        """
        content = self.read_json("data")
        return Form.from_json(content, str(self.path / "data.json")) if content else None

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""
        return bool(self.read_json("status").get("state") == "done")

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it does.

        The lock is on train.log, which is there anyway, so nothing is left behind that looks like a lock.

        Args:
            wait: until another process lets go of it.

        Raises:
            RunError: another process holds it.
        """
        with exclusive(self.log, f"{self.path} is in use: another process is training it", wait=wait):
            yield

    def require_own_files(self) -> None:
        """Refuse links and devices: what is read, cut or removed in the folder has to be in the folder.

        Raises:
            RunError: there is one. W&B's own folder, of which we read nothing, may have them.
        """
        for parent, folders, files in os.walk(self.path):
            for path in (Path(parent, name) for name in [*folders, *files]):
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    raise RunError(f"{path} is a link or no regular file: a run folder holds files of its own only")
            if Path(parent) == self.path and "wandb" in folders:
                folders.remove("wandb")

    def remove_fragments(self) -> None:
        """Remove what a killed process was about to write; only for who holds the lock."""
        for path in [*self.path.glob(".*.*.*"), *self.checkpoints.glob(".*.ckpt.*")]:
            if path.suffix[1:].isdigit():  # the process's id
                path.unlink()

    def best_checkpoint(self) -> Path:
        """best.ckpt, or last.ckpt where there was no validation split.

        Raises:
            RunError: there is neither.
        """
        for name in ("best.ckpt", "last.ckpt"):
            if (self.checkpoints / name).is_file():
                return self.checkpoints / name
        raise RunError(
            f"{self.path} has no checkpoint: the run did not finish its first epoch; `vaelab resume {self.path}` "
            "goes on with it"
        )

    def write_config(self, config: DictConfig) -> None:
        """config.yaml, usable from any folder."""
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(portable(config), resolve=True))

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """`name`.json, replaced as a whole."""
        write_text(self.path / f"{name}.json", json.dumps(_finite(content), indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """What `name`.json holds; nothing where it does not exist.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / f"{name}.json"
        try:
            content = json.loads(self._text(path)) if path.is_file() else {}
        except (ValueError, RecursionError, OSError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise RunError(f"{path} cannot be read: it should hold names and values")
        return content

    @staticmethod
    def _text(path: Path) -> str:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        return path.read_text()

    def update_status(self, state: str, **details: Any) -> None:
        """Set status.json to `state`, with the time, keeping what it says already but for an error that is past."""
        status = self.read_json("status") | {"state": state} | details
        if state != "failed":
            status = {key: value for key, value in status.items() if key not in ("error", "traceback")}
        status[f"{state}_at"] = datetime.now().astimezone().isoformat(timespec="seconds")
        self.write_json("status", status)


def require_plain(text: str) -> None:
    """Refuse YAML that would take a reader's time or memory beyond its size: aliases and endless nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias, *name, by which a small file becomes a large config")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def portable(config: DictConfig) -> DictConfig:
    """A copy that means the same in any folder."""
    config = config.copy()
    for key in ("root", "cache"):
        if config.data.get(key) is not None:
            config.data[key] = str(Path(config.data[key]).expanduser().absolute())
    if config.get("init") is not None:
        config.init = str(Path(config.init).absolute())
    return config


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

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise RunError(in_use) from error
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it into place."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def _finite(content: Any) -> Any:
    """JSON has no NaN and no infinity: they become their names, so that every reader can read the file."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content
