"""Load a trained model from its run folder, without importing Lightning."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from vaelab.config.check import check
from vaelab.config.experiment import Experiment
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.units import in_units
from vaelab.runs.folder import RunFolder
from vaelab.runs.locate import checkpoint_of, folder_of
from vaelab.training.reading import load_weights, step_of

if TYPE_CHECKING:
    from vaelab.runs.run import Run


class Trained(NamedTuple):
    """The model of a run, on the CPU and in evaluation mode, with its step, folder and parts."""

    folder: RunFolder
    experiment: Experiment
    model: Autoencoder
    step: int


def load(run: "Run | str | Path", *, trust: Sequence[str] = ()) -> Autoencoder:
    """Load the trained model of a run, on the CPU and in evaluation mode.

    It takes and returns images in [0, 1], and other data in their own units, whatever `data.scale` was.

    Args:
        run: the run or its folder, for its best weights, or its last where none were best; or one of the files in
            its checkpoints/.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, or no checkpoint yet.
        ConfigError: its config has mistakes.
    """
    trained = opened(run, trust=trust)
    form = trained.experiment.data.form
    if form.values == "levels" or form.scaling is None or form.scaling.is_identity:
        return trained.model
    shift, scale = (torch.as_tensor(value, dtype=torch.float32) for value in form.scaling)
    return in_units(trained.model, shift, scale).eval()


def opened(run: "Run | str | Path", *, trust: Sequence[str] = ()) -> Trained:
    """Load the model of a run with its experiment, step and folder."""
    folder, checkpoint = folder_of(run), checkpoint_of(run)
    with torch.random.fork_rng(devices=[]):  # initializing weights sets the global seed
        experiment = check(folder.config, trust=trust, own=False, trained=True, form=folder.form)
        model = experiment.model()
    load_weights(model, checkpoint)
    return Trained(folder, experiment, model.eval(), step_of(checkpoint))
