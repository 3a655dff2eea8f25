"""Load a trained model from its run folder, without importing Lightning."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from omegaconf import DictConfig

from vaelab.config.check import check
from vaelab.config.experiment import Experiment
from vaelab.data import Form
from vaelab.errors import RunError
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.units import in_units
from vaelab.runs.documents import MAX_BYTES, cleaned
from vaelab.runs.folder import RunFolder, resolved_config
from vaelab.runs.locate import checkpoint_of, folder_of, path_of
from vaelab.training.reading import load_weights, reason, step_of
from vaelab.training.tensor_files import SUFFIX, read_weights

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
        run: the run or its folder, for its best weights, or its last where none were best; one of the files in
            its checkpoints/; or a .safetensors file of `vaelab export`, wherever it is.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, or no checkpoint yet.
        ConfigError: its config has mistakes.
    """
    path = path_of(run)
    if path.suffix == SUFFIX and path.is_file():
        return in_data_units(*_model_in(path, trust))
    trained = opened(run, trust=trust)
    return in_data_units(trained.model, trained.experiment.data.form)


def opened(run: "Run | str | Path", *, trust: Sequence[str] = ()) -> Trained:
    """Load the model of a run with its experiment, step and folder."""
    folder, checkpoint = folder_of(run), checkpoint_of(run)
    experiment, model = _made(folder.config, folder.form, trust)
    load_weights(model, checkpoint)
    return Trained(folder, experiment, model.eval(), step_of(checkpoint))


def in_data_units(model: Autoencoder, form: Form) -> Autoencoder:
    """The model for values in the units of its data; of pixels, which it takes in [0, 1], as it is."""
    if form.values == "levels" or form.scaling is None or form.scaling.is_identity:
        return model
    shift, scale = (torch.as_tensor(value, dtype=torch.float32) for value in form.scaling)
    return in_units(model, shift, scale).eval()


def _model_in(path: Path, trust: Sequence[str]) -> tuple[Autoencoder, Form]:
    """The model that a .safetensors file describes, and the form of its data."""
    try:
        _, texts = read_weights(path)
        config, form = texts["config"], cleaned(json.loads(texts["data"]))
        if len(config) > MAX_BYTES:
            raise ValueError(f"its config is larger than {MAX_BYTES >> 20} MB")
    except RunError:
        raise
    except Exception as error:  # a foreign file may fail in any way
        raise RunError(f"{path} is no file of `vaelab export --to safetensors`: {reason(error)}") from error
    described = Form.from_json(form, f"{path}: its data")
    experiment, model = _made(resolved_config(config, f"{path}: its config"), described, trust)
    load_weights(model, path)
    return model.eval(), experiment.data.form


def _made(config: DictConfig, form: Form | None, trust: Sequence[str]) -> tuple[Experiment, Autoencoder]:
    """Build the experiment of a run's config, and its model."""
    with torch.random.fork_rng(devices=[]):  # initializing weights sets the global seed
        experiment = check(config, trust=trust, own=False, trained=True, form=form)
        return experiment, experiment.model()
