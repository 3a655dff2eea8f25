"""Train a run from its newest checkpoint, test the final model, draw it."""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from vaelab import figures
from vaelab.config.check import Checked
from vaelab.config.experiment import Experiment
from vaelab.config.stock import refusal
from vaelab.errors import ConfigError, RunError, UserError
from vaelab.models.autoencoder import Autoencoder
from vaelab.performance.torch_internals import keep_buffers_of_compiled
from vaelab.runs import summary
from vaelab.runs.documents import Metrics, Progress
from vaelab.runs.folder import RunFolder
from vaelab.runs.judging import judged
from vaelab.runs.processes import companions
from vaelab.seeding import derive_seed
from vaelab.training import events
from vaelab.training.checkpoints import BEST, INITIAL, LAST, PREVIOUS, Checkpoints
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.internals import complete_epochs
from vaelab.training.module import AutoencoderModule
from vaelab.training.reading import load_weights, read, reason
from vaelab.training.signals import graceful_stop
from vaelab.training.starting import start_prior

log = logging.getLogger("vaelab")


def execute(what: Checked, folder: RunFolder, more: Sequence[pl.Callback] = ()) -> tuple[Metrics, list[Path]]:
    """Train from the folder's newest checkpoint, test, draw.

    Args:
        what: the config and its experiment.
        folder: the run's, locked by this process or the one that leads.
        more: callbacks besides the config's.

    Returns:
        The final metrics, and the figures; no figures in a process other than the first.
    """
    experiment = what.experiment
    with graceful_stop() as stop:
        loggers = experiment.made_for(folder.path, experiment.logger)
        callbacks = experiment.made_for(folder.path, experiment.callbacks)
        require_usable(callbacks)
        callbacks.sort(
            key=lambda callback: isinstance(callback, Checkpoints)
        )  # last, so that it saves the state of all
        trainer = experiment.trainer([*callbacks, *more, _Journal(folder), stop], loggers)
        with companions(trainer, folder, what.trust), summary.ended(loggers):
            return _fit_with(trainer, experiment, folder)


def require_usable(callbacks: Sequence[pl.Callback]) -> None:
    """Refuse a callback that cannot be used and was made by a function of one's own.

    Raises:
        ConfigError: there is one.
    """
    reasons = [f"{type(each).__name__} {reason}" for each in callbacks if (reason := refusal(type(each)))]
    if reasons:
        raise ConfigError([f"callbacks: {reason}" for reason in reasons])


def _fit_with(trainer: Any, experiment: Experiment, folder: RunFolder) -> tuple[Metrics, list[Path]]:
    started = time.monotonic()
    model, loggers = experiment.model(), trainer.loggers
    if experiment.compile:
        keep_buffers_of_compiled()
        for part in ("encoder", "decoder"):
            model.get_submodule(part).compile()  # in place, so that weights keep their names
    checkpoint = _newest_checkpoint(folder)
    if checkpoint is not None:
        load_weights(model, checkpoint)  # reports what does not fit
    elif experiment.begins_with is not None:
        load_weights(model, folder.checkpoints / INITIAL, experiment.init_parts)
    if checkpoint is None:
        start_prior(model, experiment.objective, experiment.data, seed=experiment.seed)
    module = AutoencoderModule(
        model,
        experiment.objective,
        experiment.optimizer,
        experiment.scheduler,
        seed=experiment.seed,
        log_every=trainer.log_every_n_steps,
        **trainer.updates,
    )
    log.info("%s", model)
    if not len(experiment.data.splits.validation):
        trainer.limit_val_batches = 0
    data = ImageDataModule(experiment.data, seed=experiment.seed)
    with _resuming_from(checkpoint, trainer) as state:
        if trainer.is_global_zero:  # of several processes only this one logs
            events.rewind(loggers, state["events"] if checkpoint else {})
            summary.open_with(loggers, folder, resumed=checkpoint is not None)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    complete_epochs(trainer)
    if any((folder.checkpoints / name).is_file() for name in (BEST, LAST)):
        load_weights(model, folder.best_checkpoint())
    metrics = Metrics(_validation(trainer) | _test(experiment, model, trainer))
    metrics["epochs"] = trainer.current_epoch
    metrics["steps"] = trainer.global_step
    if not trainer.is_global_zero:
        return metrics, []
    measured = judged(experiment, model)
    for logger in loggers:
        logger.log_metrics(measured, trainer.global_step)
    metrics |= measured
    folder.write_metrics(metrics)
    drawn = _draw(experiment, model, folder)
    summary.close_with(loggers, experiment, model, step=trainer.global_step)
    log.info("done in %.0f s: %s", time.monotonic() - started, metrics)
    return metrics, drawn


def _validation(trainer: pl.Trainer) -> dict[str, float]:
    """Return the terms of the validation by which best.ckpt was chosen."""
    chosen = [callback.validation for callback in trainer.callbacks if isinstance(callback, Checkpoints)]  # type: ignore[attr-defined]
    return chosen[0] if chosen else {}


def _test(experiment: Experiment, model: Autoencoder, trainer: pl.Trainer) -> dict[str, float]:
    if not len(experiment.data.splits.test):
        return {}
    module = AutoencoderModule(model, experiment.objective, experiment.optimizer, seed=experiment.seed)
    trainer.test(module, ImageDataModule(experiment.data, seed=experiment.seed), verbose=False)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


@torch.no_grad()
def _draw(experiment: Experiment, model: Autoencoder, folder: RunFolder) -> list[Path]:
    """Draw reconstructions.png and, for a model with a prior, samples.png."""
    model = model.cpu().float().eval()
    splits = experiment.data.splits
    shown = splits.shown.spread(10)
    originals = shown.x.cpu()
    view = figures.View.of(experiment.data.form)
    what = f"test {experiment.data.form.noun}" if len(splits.test) else experiment.data.form.noun
    torch.manual_seed(derive_seed(experiment.seed, "figures"))
    paths = [
        figures.save(
            figures.reconstructions(view(originals), view(model.reconstruct(originals, shown.labels.cpu()))),
            folder.figures / "reconstructions.png",
            title=f"{experiment.name}: {what} and their reconstructions",
            rows=("original", "reconstructed"),
        )
    ]
    if model.prior is not None:
        samples = figures.samples(view(model.sample(64)), model.sampled_classes)
        title = f"{experiment.name}: samples from the prior"
        paths.append(figures.save(samples, folder.figures / "samples.png", title=title))
    return paths


def _newest_checkpoint(folder: RunFolder) -> Path | None:
    """Return last.ckpt, or the one before it if that is damaged; None where there is none yet."""
    paths = [folder.checkpoints / name for name in (LAST, PREVIOUS)]
    damage = {}
    for path in filter(Path.is_file, paths):
        try:
            read(path)
        except Exception as error:  # a damaged file may fail in any way
            damage[path] = f"{path} is damaged ({reason(error)})"
            continue
        for message in damage.values():
            warnings.warn(f"{message}: resuming from {path.name}", stacklevel=2)
            log.warning("%s: resuming from %s", message, path.name)
        return path
    if damage:
        raise RunError("\n".join([*damage.values(), "no other checkpoint is left; remove them to start again"]))
    return None


@contextmanager
def _resuming_from(checkpoint: Path | None, trainer: pl.Trainer) -> Iterator[Mapping[str, Any]]:
    """Give the content of a checkpoint; report an error before the first step as one of the checkpoint."""
    state = read(checkpoint) if checkpoint else {}
    try:
        yield state
    except UserError:
        raise
    except Exception as error:
        if checkpoint is None or trainer.global_step not in (0, state.get("global_step")):
            raise
        raise RunError(f"{checkpoint} does not fit this run: {reason(error)}") from error


class _Journal(pl.Callback):
    """A line in train.log and the progress in status.json after each epoch; no checkpoint where the folder is gone."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check that the folder is still there."""
        self.folder.require_there()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, AutoencoderModule)
        epochs = trainer.max_epochs if trainer.max_epochs not in (None, -1) else None
        terms = dict(pl_module.shown)
        self.folder.update_progress(Progress(trainer.current_epoch + 1, epochs, trainer.global_step, terms))
        told = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        log.info("epoch %d, step %d: %s", trainer.current_epoch, trainer.global_step, told)
