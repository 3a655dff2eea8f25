"""A run folder: what it holds, written so that a crash leaves either the old file or the new one."""

import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from vaelab.data.form import Form
from vaelab.errors import NO_ROOM, RunError, StorageError
from vaelab.runs.documents import (
    Manifest,
    State,
    Status,
    read_json,
    read_metrics,
    read_text,
    signed,
    unsigned,
    write_json,
    write_text,
)
from vaelab.text import clean, one_line
from vaelab.training.services import addresses

MAX_DEPTH = 50  # of a config
WEIGHTS = "model.safetensors"  # of a run that was pulled, which has no checkpoints
TAKEN = "is there already, and a run never overwrites one"


class RunFolder:
    """The paths and documents of one run.

    config.yaml (resolved), data.json, manifest.json, status.json, metrics.json, checkpoints/, figures/, tensorboard/
    and train.log.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.log = self.path / "train.log"
        self._place: tuple[int, int] | None = None  # of the folder that is locked

    @classmethod
    @contextmanager
    def claim(
        cls, path: str | Path, config: DictConfig, manifest: Manifest | None = None, *, exact: bool = False
    ) -> Iterator["RunFolder"]:
        """A new run folder at `path` or, where that is taken, with -2, -3, ... appended; locked for this process.

        It appears whole, by renaming, or not at all. An empty folder at an `exact` path is filled as it is, and stays
        free until its config is there.

        Raises:
            RunError: the folder cannot be made, or `exact` and it is taken; a StorageError where the disk is full.
        """
        with ExitStack() as held:
            wanted = Path(path)
            beside = wanted.absolute()  # "." has no name
            unfinished = beside.with_name(f".{beside.name}.{os.getpid()}{threading.get_ident()}")
            new = cls(wanted if exact and _is_free(wanted) else unfinished)
            try:
                new.path.mkdir(parents=True, exist_ok=new.path == wanted)
                held.enter_context(new.locked())  # the lock is the file's, whatever its path
                new.write_config(config)
                if manifest is not None:
                    new.write_manifest(manifest)
                if new.path != wanted:
                    new._move(renamed(unfinished, wanted, TAKEN, exact=exact))
            except OSError as error:
                raise unmade(wanted, error) from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            yield new

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The folder of a run that was started.

        Raises:
            RunError: `path` is no run folder.
        """
        if is_inside(path, "sweep.json"):
            raise RunError(f"{path} is a sweep: give the folder of one of its runs, which are in it")
        if not is_inside(path, "config.yaml"):
            raise RunError(f"{path} is not a run folder: it has no config.yaml; `vaelab train` makes them")
        folder = cls(path)
        written = ("train.log", "status.json", "metrics.json", "manifest.json", "data.json", WEIGHTS)
        require_own_files(folder.path, files=written, folders=("checkpoints", "tensorboard"))
        return folder

    @property
    def config(self) -> DictConfig:
        """The resolved config.

        Raises:
            RunError: it cannot be read, was edited, or holds interpolations, which could look into who reads it.
        """
        path = self.path / "config.yaml"
        try:
            text = read_text(path)
        except (ValueError, OSError) as error:
            raise RunError(f"{path} cannot be read: {one_line(str(error), 300)}") from error
        return resolved_config(text, str(path))

    def require_known_servers(self, trust: Sequence[str]) -> None:
        """Refuse to send what a run logs to where only its folder says.

        Raises:
            RunError: the config names a service to log to whose address is not among those trusted.
        """
        for service, address in addresses(self.config):
            if address not in trust:
                raise RunError(
                    f"{self.path / 'config.yaml'} has the run logged to {service} at {address}: "
                    f"where that is meant, say --trust {address}"
                )

    @property
    def status(self) -> Status:
        """What status.json says.

        Raises:
            RunError: it cannot be read.
        """
        return Status.read(self.path / "status.json")

    @property
    def metrics(self) -> dict[str, float]:
        """What metrics.json holds.

        Raises:
            RunError: it holds anything but numbers.
        """
        return read_metrics(self.path / "metrics.json")

    @property
    def manifest(self) -> Manifest | None:
        """What manifest.json says; None where the run has not begun.

        Raises:
            RunError: a part of it is not what we write.
        """
        return Manifest.read(self.path / "manifest.json")

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
        return self.status.state == "done"

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it does.

        The lock is on train.log, which is there anyway, so nothing is left behind that looks like a lock. While it is
        held, nothing is written to another folder of the same name.

        Args:
            wait: until another process lets go of it.

        Raises:
            RunError: another process holds it.
        """
        with exclusive(self.log, f"{self.path} is in use: another process is training it", wait=wait):
            self._place = place(self.path)
            try:
                yield
            finally:
                self._place = None

    def require_there(self) -> None:
        """Refuse to go on where the folder that is locked was removed or renamed.

        Raises:
            StorageError: that is so.
        """
        if self._place is not None and place(self.path) != self._place:
            raise StorageError(
                f"{self.path} was removed or renamed while the run was writing to it; where it was renamed, "
                "`vaelab resume` its new path"
            )

    def remove_fragments(self) -> None:
        """Remove what a killed process was about to write; only for who holds the lock."""
        for path in [*self.path.glob(".*.*.*"), *self.checkpoints.glob(".*.ckpt.*")]:
            if path.suffix[1:].isdigit():  # the process's id
                path.unlink()

    def best_checkpoint(self) -> Path:
        """best.ckpt, or last.ckpt where there was no validation split; of a run that was pulled, model.safetensors.

        Raises:
            RunError: there is none of them.
        """
        for path in (self.checkpoints / "best.ckpt", self.checkpoints / "last.ckpt", self.path / WEIGHTS):
            if path.is_file():
                return path
        raise RunError(
            f"{self.path} has no checkpoint: the run did not finish its first epoch; `vaelab resume {self.path}` "
            "goes on with it"
        )

    def write_config(self, config: DictConfig) -> None:
        """config.yaml, usable from any folder."""
        self.require_there()
        write_text(self.path / "config.yaml", signed(OmegaConf.to_yaml(portable(config), resolve=True)))

    def write_manifest(self, manifest: Manifest) -> None:
        """manifest.json, replaced as a whole."""
        self.require_there()
        manifest.write(self.path / "manifest.json")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """`name`.json, replaced as a whole."""
        self.require_there()
        write_json(self.path / f"{name}.json", content)

    def read_json(self, name: str) -> dict[str, Any]:
        """What `name`.json holds; nothing where it does not exist.

        Raises:
            RunError: it cannot be read.
        """
        return read_json(self.path / f"{name}.json")

    def update_status(self, state: State, *, error: str = "", traceback: str = "") -> None:
        """Set status.json to `state`, with the time; an error that is past goes."""
        self.require_there()
        self.status.then(state, error=error, traceback=traceback).write(self.path / "status.json")

    def _move(self, path: Path) -> None:
        """Have the paths be those of where the folder came to lie."""
        place = self._place
        self.__init__(path)  # type: ignore[misc]
        self._place = place


def is_inside(path: str | Path, name: str) -> bool:
    """Whether the folder `path` has a file of that name, or a link in its place, to be refused.

    Raises:
        RunError: the path is an address, or none that there can be.
    """
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)):
        raise RunError(f"{path} is an address: a run folder is on this machine, nothing is fetched")
    if "\0" in str(path):
        raise RunError(f"{one_line(str(path))}: no folder has such a name")
    file = Path(path, name)
    return file.is_file() or file.is_symlink()


def require_own_files(folder: Path, *, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Refuse links and devices: what is read, cut or removed in a run or sweep folder has to be in that folder.

    Args:
        folder: the run's or the sweep's.
        files: names in it that are no folders, where they are there.
        folders: names in it that are no files.

    Raises:
        RunError: there is one, or a name with control characters. W&B's own folders, of which nothing is read, may
            have links.
    """
    wrong = [name for name in files if (folder / name).is_dir()] + [
        name for name in folders if (folder / name).is_file()
    ]
    if wrong:
        raise RunError(
            f"{folder / wrong[0]} is {'a folder' if wrong[0] in files else 'a file'}, as in no run or sweep folder"
        )
    unread = [folder]
    while unread:
        of = unread.pop()
        with os.scandir(of) as entries:
            for entry in entries:
                if clean(entry.name) != entry.name or "\n" in entry.name or "\t" in entry.name:
                    raise RunError(
                        f"{one_line(entry.path)}: a run or sweep folder holds no names with control characters"
                    )
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    raise RunError(
                        f"{entry.path} is a link or no regular file: a run or sweep folder holds files of its own only"
                    )
                if entry.is_dir() and not (entry.name == "wandb" and (of / "config.yaml").is_file()):
                    unread.append(Path(entry.path))


def renamed(unfinished: Path, wanted: Path, taken: str, *, exact: bool) -> Path:
    """Where a folder came to lie: at `wanted` or, unless `exact`, with -2, -3, ... appended.

    Raises:
        RunError: `exact` and there is something; `taken` says what that means.
    """
    candidate, number = wanted, 1
    while True:
        try:
            if exact or not candidate.exists():  # an empty folder would be replaced
                return unfinished.rename(candidate)
        except OSError:
            if not candidate.exists():
                raise
        if exact:
            raise RunError(f"{wanted} {taken}: choose another folder")
        number += 1
        candidate = wanted.with_name(f"{wanted.name}-{number}")


def unmade(folder: Path, error: OSError) -> RunError:
    """That a folder cannot be made: a StorageError where the disk is full."""
    kind = StorageError if error.errno in NO_ROOM else RunError
    return kind(f"the folder {folder} cannot be made: {error.strerror or error}")


def place(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one that takes its name; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _is_free(folder: Path) -> bool:
    """Whether a folder is empty, but for what a process left that was killed before it had written a config."""
    try:
        return all(_is_fragment(path) for path in folder.iterdir())
    except OSError:
        return False


def _is_fragment(path: Path) -> bool:
    written = path.suffix[1:].isdigit() and path.name.startswith(".config.yaml.")
    return written or (path.name == "train.log" and path.is_file() and not path.stat().st_size)


def require_plain(text: str) -> None:
    """Refuse YAML that would take a reader's time or memory beyond its size: aliases and endless nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias, *name, by which a small file becomes a large config")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def resolved_config(text: str, where: str) -> DictConfig:
    """The config in the text of a config.yaml; `where` it was found is named in errors.

    Raises:
        RunError: it is none, was edited, or holds interpolations, which could look into who reads it.
    """
    try:
        require_plain(text)
        config = OmegaConf.create(text)
        resolved = OmegaConf.to_yaml(config, resolve=False)
    except Exception as error:  # a foreign file may fail in any way
        raise RunError(f"{where} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(config, DictConfig):
        raise RunError(f"{where} is not a config: it should hold keys and values")
    if "${" in resolved:
        raise RunError(f"{where} holds an interpolation, ${{...}}: a run's config is resolved, so this is not one")
    try:
        unsigned(text)
    except ValueError as error:
        raise RunError(f"{where}: {error}") from error
    return config


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

    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise RunError(in_use) from error
        yield
