"""Find the run folder and the checkpoint that a path stands for."""

from pathlib import Path
from typing import TYPE_CHECKING

from vaelab.errors import RunError
from vaelab.runs.folder import PRIORS, RunFolder

if TYPE_CHECKING:
    from vaelab.runs.run import Run


def folder_of(run: "Run | str | Path") -> RunFolder:
    """Return the run folder of a run, of its path, or of the path of one of its checkpoints.

    Raises:
        RunError: there is no such folder or checkpoint.
    """
    path = path_of(run)
    if path.suffix != ".ckpt" or path.is_dir():
        return RunFolder.open(path)
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}")
    folder = path.absolute().parent.parent
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{path} is not in a run folder: there is no {folder / 'config.yaml'} that describes its model")
    return RunFolder.open(folder)


def checkpoint_of(run: "Run | str | Path") -> Path:
    """Return the checkpoint at a path or, for a run folder, its best one.

    Raises:
        RunError: there is none.
    """
    folder, path = folder_of(run), path_of(run)
    return path if path.is_file() else folder.best_checkpoint()


def path_of(run: "Run | str | Path") -> Path:
    """Return the path of a run."""
    return Path(run) if isinstance(run, str | Path) else run.folder


def prior_of(run: "Run | str | Path", name: str) -> Path:
    """The folder of a prior that was fitted to a run.

    Raises:
        RunError: there is none of that name.
    """
    folder = folder_of(run)
    found = folder.path / PRIORS / name
    if ".." in Path(name).parts or Path(name).is_absolute() or not (found / "config.yaml").is_file():
        there = sorted(
            str(path.parent.relative_to(folder.path / PRIORS)) for path in (folder.path / PRIORS).glob("**/config.yaml")
        )
        hint = f"there are {', '.join(there)}" if there else f"`vaelab fit {folder.path} prior=flow` makes one"
        raise RunError(f"--prior {name}: no such prior was fitted to {folder.path}; {hint}")
    return found
