"""A trained model, out of its run folder; torch is all it takes, not Lightning."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from vaelab.config.check import check
from vaelab.config.experiment import Experiment
from vaelab.errors import RunError
from vaelab.models.autoencoder import Autoencoder
from vaelab.runs.folder import RunFolder
from vaelab.training.reading import load_weights, read

if TYPE_CHECKING:
    from vaelab.runs.run import Run


class Trained(NamedTuple):
    """The model of a run, on the CPU and in evaluation mode, the step it was trained to, the run's folder and parts."""

    folder: RunFolder
    experiment: Experiment
    model: Autoencoder
    step: int


def load(run: "Run | str | Path", *, trust: Sequence[str] = ()) -> Autoencoder:
    """The trained model of a run, on the CPU and in evaluation mode.

    Args:
        run: the run or its folder, for its best weights, or its last where none were best; or one of the files in
            its checkpoints/.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, or no checkpoint yet.
        ConfigError: its config has mistakes.
    """
    return opened(run, trust=trust).model


def opened(run: "Run | str | Path", *, trust: Sequence[str] = ()) -> Trained:
    """The same, with what surrounds it."""
    folder = folder_of(run)
    path = _path_of(run)
    checkpoint = path if path.is_file() else folder.best_checkpoint()
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, from a seed of their own
        experiment = check(folder.config, trust=trust, trained=True, form=folder.form)
        experiment.data.fetch = False
        model = experiment.model()
    load_weights(model, checkpoint)
    return Trained(folder, experiment, model.eval(), int(read(checkpoint)["global_step"]))


def folder_of(run: "Run | str | Path") -> RunFolder:
    """The run folder that a run, its path or the path of one of its checkpoints means.

    Raises:
        RunError: there is none, or no such checkpoint.
    """
    path = _path_of(run)
    if path.suffix != ".ckpt" or path.is_dir():
        return RunFolder.open(path)
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}")
    folder = path.absolute().parent.parent
    if not (folder / "config.yaml").is_file():
        raise RunError(
            f"{path} is not in a run folder: there is no {folder / 'config.yaml'} to say what model it is of"
        )
    return RunFolder.open(folder)


def _path_of(run: "Run | str | Path") -> Path:
    return Path(run) if isinstance(run, str | Path) else run.folder
