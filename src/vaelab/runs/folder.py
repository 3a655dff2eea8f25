"""A run folder: its files, written so that a crash leaves either the old version or the new one."""

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from vaelab.data.form import Form
from vaelab.errors import RunError, StorageError, unwritten
from vaelab.runs.documents import (
    Manifest,
    Metrics,
    Progress,
    State,
    Status,
    read_json,
    read_text,
    signed,
    unsigned,
    write_json,
    write_text,
)
from vaelab.runs.evaluations import Evaluation
from vaelab.runs.places import TAKEN, exclusive, is_inside, place, renamed, require_own_files, unmade
from vaelab.text import one_line
from vaelab.training.services import addresses

MAX_DEPTH = 50  # of a config
PRIORS = "priors"  # the folder of the priors that were fitted to a run, in its own
WEIGHTS = "model.safetensors"  # of a run that was pulled, which has no checkpoints


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
        """Make a run folder at `path` or, if that exists, with -2, -3, ... appended; locked for this process.

        It appears complete, by renaming, or not at all. An empty folder at an `exact` path is filled in place, and is
        free until its config is there.

        Raises:
            RunError: the folder cannot be made, or an `exact` one exists; a StorageError if the disk is full.
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
        """Open the folder of a run that was started.

        Raises:
            RunError: `path` is not a run folder.
        """
        if is_inside(path, "sweep.json"):
            raise RunError(f"{path} is a sweep: give the folder of one of its runs, which are inside")
        if not is_inside(path, "config.yaml"):
            raise RunError(f"{path} is not a run folder, since it has no config.yaml; `vaelab train` makes run folders")
        folder = cls(path)
        written = ("train.log", "status.json", "metrics.json", "manifest.json", "data.json", WEIGHTS)
        require_own_files(folder.path, files=written, folders=("checkpoints", "tensorboard"))
        return folder

    @property
    def config(self) -> DictConfig:
        """The resolved config.

        Raises:
            RunError: it cannot be read, was edited, or has interpolations, which could read the environment.
        """
        path = self.path / "config.yaml"
        try:
            text = read_text(path)
        except (ValueError, OSError) as error:
            raise RunError(f"{path} cannot be read: {one_line(str(error), 300)}") from error
        return resolved_config(text, str(path))

    def require_known_servers(self, trust: Sequence[str]) -> None:
        """Refuse to log to a server that only the run folder names.

        Raises:
            RunError: the config names a logging service whose address is not trusted.
        """
        for service, address in addresses(self.config):
            if address not in trust:
                raise RunError(
                    f"{self.path / 'config.yaml'} logs to {service} at {address}: allow it with --trust {address}"
                )

    @property
    def status(self) -> Status:
        """The content of status.json.

        Raises:
            RunError: it cannot be read.
        """
        return Status.read(self.path / "status.json")

    @property
    def metrics(self) -> Metrics:
        """The content of metrics.json; empty until the run is done.

        Raises:
            RunError: it holds anything but numbers.
        """
        return Metrics.read(self.path / "metrics.json")

    @property
    def manifest(self) -> Manifest | None:
        """The content of manifest.json; None where the run has not begun.

        Raises:
            RunError: it is not a manifest that vaelab writes.
        """
        return Manifest.read(self.path / "manifest.json")

    @property
    def form(self) -> Form | None:
        """What the run's model has to know of its data, from data.json; None where that has not been written.

        Raises:
            RunError: it holds something else.
        """
        path = self.path / "data.json"
        content = read_json(path)
        return Form.from_json(content, str(path)) if content else None

    @property
    def evaluations(self) -> list[Evaluation]:
        """The content of evaluation/, by the step of the weights.

        Raises:
            RunError: a file of it cannot be read, or the folder is a link.
        """
        folder = self.path / "evaluation"
        if folder.is_symlink():
            raise RunError(f"{folder} is a link: a run folder holds files of its own only")
        found = [Evaluation.read(path) for path in sorted(folder.glob("*.json"))]
        return sorted(filter(None, found), key=lambda evaluation: evaluation.step)

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.status.state == "done"

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Lock the folder for this process; the system releases it when the process ends, however it does.

        The lock is on train.log, which exists anyway, so no lock file is left behind. While it is held, nothing is
        written to another folder of the same name.

        Args:
            wait: until another process releases it.

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
        """Check that the locked folder was not removed or renamed.

        Raises:
            StorageError: it was.
        """
        if self._place is not None and place(self.path) != self._place:
            raise StorageError(
                f"{self.path} was removed or renamed while the run was writing to it; if it was renamed, "
                "`vaelab resume` its new path"
            )

    def remove_fragments(self) -> None:
        """Remove unfinished files of a killed process; call it only with the lock."""
        for path in [*self.path.glob(".*.*.*"), *self.checkpoints.glob(".*.ckpt.*")]:
            if path.suffix[1:].isdigit():  # the process's id
                path.unlink()

    def best_checkpoint(self) -> Path:
        """Return best.ckpt, or last.ckpt if there was no validation split; of a pulled run, model.safetensors.

        Raises:
            RunError: there is none of them.
        """
        for path in (self.checkpoints / "best.ckpt", self.checkpoints / "last.ckpt", self.path / WEIGHTS):
            if path.is_file():
                return path
        raise RunError(
            f"{self.path} has no checkpoint, since the run did not finish its first epoch; resume it with `vaelab "
            f"resume {self.path}`"
        )

    def write_config(self, config: DictConfig) -> None:
        """Write config.yaml, with paths that are valid in any folder."""
        self.require_there()
        write_text(self.path / "config.yaml", signed(OmegaConf.to_yaml(portable(config), resolve=True)))

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace manifest.json as a whole."""
        self.require_there()
        manifest.write(self.path / "manifest.json")

    def write_metrics(self, metrics: Metrics) -> None:
        """Replace metrics.json as a whole."""
        self.require_there()
        metrics.write(self.path / "metrics.json")

    def write_form(self, form: Form) -> None:
        """Replace data.json as a whole."""
        self.require_there()
        write_json(self.path / "data.json", form.to_json())

    def keep_evaluation(self, new: Evaluation) -> Path:
        """Write an evaluation; metrics of other names that its file already has stay in it.

        Raises:
            RunError: the file there cannot be read or written; a StorageError where the disk is full.
        """
        path = self.path / "evaluation" / new.file
        try:
            path.parent.mkdir(exist_ok=True)
            known = Evaluation.read(path)
            (new if known is None else replace(new, metrics={**known.metrics, **new.metrics})).write(path)
        except OSError as error:
            raise unwritten(path, error) from error
        return path

    def update_status(self, state: State, *, error: str = "", traceback: str = "") -> None:
        """Set the state in status.json, with the time; an earlier error is removed."""
        self.require_there()
        self.status.then(state, error=error, traceback=traceback).write(self.path / "status.json")

    def update_progress(self, progress: Progress) -> None:
        """Set the progress in status.json."""
        self.require_there()
        replace(self.status, progress=progress).write(self.path / "status.json")

    def _move(self, path: Path) -> None:
        """Update the paths after the folder was moved."""
        place = self._place
        self.__init__(path)  # type: ignore[misc]
        self._place = place


def _is_free(folder: Path) -> bool:
    """Whether a folder is empty except for files of a process that was killed before it wrote a config."""
    try:
        return all(_is_fragment(path) for path in folder.iterdir())
    except OSError:
        return False


def _is_fragment(path: Path) -> bool:
    written = path.suffix[1:].isdigit() and path.name.startswith(".config.yaml.")
    return written or (path.name == "train.log" and path.is_file() and not path.stat().st_size)


def require_plain(text: str) -> None:
    """Refuse YAML that takes time or memory far beyond its size: aliases and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias, *name, with which a small file can become a large config")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def resolved_config(text: str, where: str) -> DictConfig:
    """Parse the text of a config.yaml; errors name `where` it is from.

    Raises:
        RunError: it is not a config, was edited, or has interpolations, which could read the environment.
    """
    try:
        require_plain(text)
        config = OmegaConf.create(text)
        resolved = OmegaConf.to_yaml(config, resolve=False)
    except Exception as error:  # a foreign file may fail in any way
        raise RunError(f"{where} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(config, DictConfig):
        raise RunError(f"{where} is not a config: it should have keys and values")
    if "${" in resolved:
        raise RunError(f"{where} has an interpolation, ${{...}}, and the config of a run is resolved")
    try:
        unsigned(text)
    except ValueError as error:
        raise RunError(f"{where}: {error}") from error
    return config


def portable(config: DictConfig) -> DictConfig:
    """Return a copy with absolute paths."""
    config = config.copy()
    for key in ("root", "cache"):
        if config.data.get(key) is not None:
            config.data[key] = str(Path(config.data[key]).expanduser().absolute())
    if OmegaConf.select(config, "init.run") is not None:
        config.init.run = str(Path(config.init.run).absolute())
    return config
