"""Training a config into a run folder, and coming back to what was trained."""

import logging
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from pytorch_lightning.loggers import TensorBoardLogger

from vaelab import figures
from vaelab.autoencoder import Autoencoder
from vaelab.errors import ConfigError, RunError
from vaelab.experiment.check import check
from vaelab.experiment.experiment import Experiment
from vaelab.experiment.folder import RunFolder
from vaelab.experiment.manifest import manifest
from vaelab.seeding import derive_seed
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.module import AutoencoderModule, plain

FOLDER = "VAELAB_RUN_FOLDER"
log = logging.getLogger("vaelab")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its final metrics."""

    folder: Path
    metrics: Mapping[str, float]
    figures: Sequence[Path] = field(default=())


def train(config: DictConfig, *, folder: str | Path | None = None, trust: Sequence[str] = ()) -> Run:
    """Train what `config` says, test it, draw it.

    Args:
        config: as `vaelab.compose` makes it.
        folder: the new run folder; by default outputs/runs/<time>_<name>.
        trust: packages of one's own whose classes the config may name.

    Raises:
        ConfigError: the config has mistakes.
        DataError: the data are missing or damaged.
        RunError: `folder` exists.
    """
    if folder is not None:
        return train_into(folder, config, exact=True, trust=trust)
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.get('name')}"
    return train_into(Path("outputs", "runs", name), config, exact=False, trust=trust)


def train_into(folder: str | Path, config: DictConfig, *, exact: bool, trust: Sequence[str]) -> Run:
    """`train` into `folder` or, unless it has to be that `exact` one, into a free one beside it."""
    with _quiet_lightning():
        experiment = check(config, trust=trust)
        _ask_devices(experiment)
        _ = experiment.data.splits  # read before anything is written
        if FOLDER in os.environ:  # another process of a run that the first one has begun
            return _fit(experiment, RunFolder(os.environ[FOLDER]))
        run_folder = RunFolder.claim(folder, exact=exact)
        config = config.copy()
        if "root" in config.data:
            config.data.root = str(Path(config.data.root).absolute())  # usable from any folder
        run_folder.write_config(config)
        run_folder.write_json("manifest", manifest(experiment.data, seed=experiment.seed))
        with _recorded(run_folder), _shared(run_folder):
            return _fit(experiment, run_folder)


def load(run: Run | str | Path, *, trust: Sequence[str] = ()) -> Autoencoder:
    """The trained model of a run, on the CPU and in evaluation mode: its best weights, or its last.

    Raises:
        RunError: there is no run, or no checkpoint yet.
    """
    folder = _folder_of(run)
    model = check(folder.config, trust=trust).model()
    _load_weights(model, folder.best_checkpoint())
    return model.eval()


def evaluate(run: Run | str | Path, *, trust: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of a run's model on its test images, computed anew: the same numbers as in metrics.json.

    Raises:
        RunError: there is no run, or no checkpoint yet.
        DataError: the data are missing or damaged.
    """
    folder = _folder_of(run)
    with _quiet_lightning():
        experiment = check(folder.config, trust=trust)
        model = experiment.model()
        _load_weights(model, folder.best_checkpoint())
        return _test(experiment, model, experiment.trainer([], []))


def _fit(experiment: Experiment, folder: RunFolder) -> Run:
    started = time.monotonic()
    model = experiment.model()
    loggers = experiment.made_for(folder.path, experiment.logger)
    callbacks = experiment.made_for(folder.path, experiment.callbacks)
    trainer = experiment.trainer([*callbacks, _EpochLog()], loggers)
    module = AutoencoderModule(
        model,
        experiment.objective,
        experiment.optimizer,
        experiment.scheduler,
        seed=experiment.seed,
        log_every=trainer.log_every_n_steps,
    )
    log.info("%s", model)
    if not len(experiment.data.splits.validation):
        trainer.limit_val_batches = 0
    trainer.fit(module, ImageDataModule(experiment.data, seed=experiment.seed), weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if any(folder.checkpoints.glob("*.ckpt")):
        _load_weights(model, folder.best_checkpoint())
    metrics = _test(experiment, model, trainer)
    metrics["epochs"] = trainer.current_epoch
    metrics["steps"] = trainer.global_step
    for logger in loggers:
        logger.log_metrics({name: metrics[name] for name in metrics if "/" in name}, step=trainer.global_step)
    if not trainer.is_global_zero:
        return Run(folder.path, metrics)
    drawn = _draw(experiment, model, folder, loggers, trainer.global_step)
    for logger in loggers:
        logger.finalize("success")
    folder.write_json("metrics", metrics)
    log.info("done in %.0f s: %s", time.monotonic() - started, metrics)
    return Run(folder.path, metrics, drawn)


def _test(experiment: Experiment, model: Autoencoder, trainer: pl.Trainer) -> dict[str, float]:
    module = AutoencoderModule(model, experiment.objective, experiment.optimizer, seed=experiment.seed)
    trainer.test(module, ImageDataModule(experiment.data, seed=experiment.seed), verbose=False)
    metrics: dict[str, float] = plain(trainer.callback_metrics)
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


@torch.no_grad()
def _draw(
    experiment: Experiment, model: Autoencoder, folder: RunFolder, loggers: Sequence[Any], step: int
) -> list[Path]:
    """reconstructions.png and, for a model with a prior, samples.png; TensorBoard gets the same pictures."""
    model = model.cpu().eval()
    originals = experiment.data.splits.test.pixels[:10].cpu().float().div(255)
    torch.manual_seed(derive_seed(experiment.seed, "figures"))
    pictures = {"reconstructions": figures.reconstructions(originals, model.reconstruct(originals))}
    paths = [
        figures.save(
            pictures["reconstructions"],
            folder.figures / "reconstructions.png",
            title=f"{experiment.name}: the first test images and their reconstructions",
            rows=("original", "reconstructed"),
        )
    ]
    if model.prior is not None:
        pictures["samples"] = figures.tile(model.sample(64), columns=8)
        title = f"{experiment.name}: samples from the prior"
        paths.append(figures.save(pictures["samples"], folder.figures / "samples.png", title=title))
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            for name, picture in pictures.items():
                logger.experiment.add_image(name, picture, step, dataformats="HWC")
    return paths


def _load_weights(model: Autoencoder, path: Path) -> None:
    """Weights alone, as plain tensors: nothing in a checkpoint is run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        weights = {name.removeprefix("model."): value for name, value in state.items()}
        model.load_state_dict(weights)
    except Exception as error:
        raise RunError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error


def _folder_of(run: Run | str | Path) -> RunFolder:
    return RunFolder.open(run.folder if isinstance(run, Run) else run)


def _ask_devices(experiment: Experiment) -> None:
    """Have Lightning say, before anything is written, that it cannot have the devices it is asked for."""
    try:
        experiment.trainer([], [])
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise ConfigError([f"trainer: {' '.join(str(error).split())}"]) from error


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's remarks about what it found and how it was called; warnings stay."""
    chatter = logging.getLogger("pytorch_lightning")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning 2.6 under torch 2.14
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated", category=FutureWarning)
        # The last batch of an epoch is logged however short the epoch is.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
        try:
            yield
        finally:
            chatter.setLevel(level)


@contextmanager
def _shared(folder: RunFolder) -> Iterator[None]:
    """Let the processes that Lightning starts for several devices know the folder of their run."""
    os.environ[FOLDER] = str(folder.path.absolute())
    try:
        yield
    finally:
        del os.environ[FOLDER]


@contextmanager
def _recorded(folder: RunFolder) -> Iterator[None]:
    """Keep status.json and train.log while a run runs, however it ends."""
    handler = logging.FileHandler(folder.log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    sources = [log, logging.getLogger("pytorch_lightning"), logging.getLogger("py.warnings")]
    level = log.level
    for source in sources:
        source.addHandler(handler)
    log.setLevel(logging.INFO)
    folder.update_status("running")
    try:
        yield
        folder.update_status("done")
    except KeyboardInterrupt:
        folder.update_status("interrupted")
        log.warning("interrupted")
        raise
    except BaseException as error:
        folder.update_status("failed", error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        log.exception("failed")
        raise
    finally:
        for source in sources:
            source.removeHandler(handler)
        log.setLevel(level)
        handler.close()


class _EpochLog(pl.Callback):
    """A line of train.log an epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the terms as they stand."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, AutoencoderModule)
        terms = ", ".join(f"{name} {value:.4f}" for name, value in pl_module.shown.items())
        log.info("epoch %d, step %d: %s", trainer.current_epoch, trainer.global_step, terms)
