"""Check this machine and the data against a config, before anything is written."""

import logging
import os
import shutil
import subprocess
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from vaelab.config.check import Checked
from vaelab.config.experiment import Experiment
from vaelab.config.names import config_name
from vaelab.data import rows_at_once, why_not_of
from vaelab.errors import ConfigError
from vaelab.runs.judging import require_judgeable
from vaelab.runs.launch import Launch
from vaelab.runs.locate import checkpoint_of
from vaelab.runs.surroundings import quiet_lightning
from vaelab.training.graph import require_capturable
from vaelab.training.internals import cluster_environment
from vaelab.training.reading import load_weights
from vaelab.training.starting import too_few

log = logging.getLogger("vaelab")


def ready(what: Checked, *, devices: bool = True, launch: Launch | None = None) -> None:
    """Find the devices of a checked config and read its data, before anything is written.

    Args:
        what: the config and its experiment.
        devices: whether it will run on this machine, so that its devices are needed here.
        launch: the processes that were started for it, to be compared with the number that it needs.

    Raises:
        ConfigError: this machine does not have the devices, or the initial weights do not fit.
        DataError: the data are missing or damaged.
    """
    experiment = what.experiment
    with quiet_lightning():
        try:
            experiment.objective.ready(fetch=what.own)
        except ValueError as error:
            raise ConfigError([f"objective.{error}"]) from error
        if experiment.begins_with is not None:
            load_weights(experiment.model(), checkpoint_of(experiment.begins_with), experiment.init_parts)
        if not devices:
            _require_values(experiment)
            return
        trainer = _ask_devices(experiment)
        if launch is not None:
            external = cluster_environment(trainer).creates_processes_externally
            launch.require_as_many(trainer.num_devices, trainer.num_nodes, external=external)
        _ask_compiler(experiment)
        _require_values(experiment)
        _require_batches(trainer, experiment)
        require_judgeable(experiment, fetch=what.own)


def _ask_devices(experiment: Experiment) -> pl.Trainer:
    """Refuse devices that Lightning cannot use."""
    try:
        trainer: pl.Trainer = experiment.trainer([], [])
    except (MisconfigurationException, RuntimeError, ValueError, TypeError, ImportError) as error:
        message = f"trainer: {' '.join(str(error).split())}; trainer.accelerator=auto takes what this machine has"
        raise ConfigError([message]) from error
    if trainer.world_size > 1:
        _require_uncoupled(experiment, trainer.world_size)
    wanted = getattr(experiment.trainer, "keywords", {}).get("precision")
    if wanted == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise ConfigError(["trainer.precision=16-mixed needs a GPU: take bf16-mixed, which works on a CPU, or 32-true"])
    updates: Any = trainer.updates  # type: ignore[attr-defined]
    if updates["cuda_graph"]:
        accumulated = updates["accumulate_grad_batches"]
        require_capturable(trainer, accumulate_grad_batches=accumulated, compiled=experiment.compile)
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise ConfigError([f"trainer.devices={trainer.num_devices}: this machine has {cores} cores"])
    return trainer


def _require_values(experiment: Experiment) -> None:
    """Read the data; refuse a likelihood that does not fit their values, and log how they were interpreted."""
    likelihood, data = experiment.likelihood(), experiment.data
    reason = why_not_of(likelihood, data) if data.form.scaling is not None else None  # known before rows are read
    if reason is None:
        _ = data.splits
        reason = why_not_of(likelihood, data)
    if reason is not None:
        raise ConfigError([reason])
    with torch.device("meta"):
        model = experiment.model()
    if (few := too_few(model, experiment.objective, len(experiment.data.splits.train))) is not None:
        raise ConfigError([f"{config_name(model.prior)}: {few}"])
    for note in experiment.data.notes:
        log.warning(note)


def _require_uncoupled(experiment: Experiment, processes: int) -> None:
    """Refuse to split batches between processes if a part depends on all images of a batch."""
    with torch.device("meta"):
        coupling = experiment.model().coupling()
    what = experiment.objective.coupling() or (config_name(coupling) if coupling is not None else None)
    if what is not None:
        raise ConfigError(
            [
                f"{what} depends on all images of a batch, which are split between {processes} processes: take "
                "trainer.devices=1 trainer.num_nodes=1"
            ]
        )


def _require_batches(trainer: pl.Trainer, experiment: Experiment) -> None:
    """Refuse a share of the batches that rounds to zero, and batches too small for batch normalization."""
    train, validation, test = experiment.data.splits
    for name, images, size in [
        ("train", train, experiment.data.batch_size),
        ("val", validation, rows_at_once(validation.shape)),
        ("test", test, rows_at_once(test.shape)),
    ]:
        share, batches = getattr(trainer, f"limit_{name}_batches"), -(-len(images) // size)
        if isinstance(share, float) and share > 0 and batches and int(share * batches) == 0:
            raise ConfigError(
                [f"trainer.limit_{name}_batches={share} of {batches} batches is less than one: give a number"]
            )
    last = len(train) % experiment.data.batch_size or experiment.data.batch_size
    if last // trainer.world_size < 2:
        with torch.device("meta"):
            model = experiment.model()
        if any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules()):
            raise ConfigError(
                [
                    f"data.batch_size={experiment.data.batch_size} leaves {last} of {len(train)} images for an epoch's "
                    "last batch, and normalization=batch needs two or more in each process: take another batch size, "
                    "or normalization=layer"
                ]
            )


def _ask_compiler(experiment: Experiment) -> None:
    """Refuse compile=true without a working C++ compiler."""
    if not experiment.compile:
        return
    found = next(filter(shutil.which, [os.environ.get("CXX", "g++"), "clang++"]), None)
    if found is None:
        raise ConfigError(["compile=true: torch.compile needs a C++ compiler, such as g++, and there is none"])
    if subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
        raise ConfigError([f"compile=true: torch.compile's C++ compiler, {found}, does not run"])
