"""Train a config into a run folder, and resume it."""

import logging
import os
import shutil
import subprocess
import time
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

from vaelab import figures
from vaelab.config.check import Checked, checked
from vaelab.config.experiment import Experiment
from vaelab.config.names import config_name
from vaelab.data import rows_at_once, why_not_of
from vaelab.errors import ConfigError, RunError, UserError
from vaelab.files import replacing
from vaelab.models.autoencoder import Autoencoder
from vaelab.runs import summary
from vaelab.runs.documents import Manifest
from vaelab.runs.extend import extend
from vaelab.runs.folder import RunFolder, portable
from vaelab.runs.judging import judged, require_judgeable
from vaelab.runs.launch import Launch
from vaelab.runs.locate import checkpoint_of, folder_of
from vaelab.runs.manifest import circumstances, manifest
from vaelab.runs.processes import companions
from vaelab.runs.surroundings import quiet_lightning, recorded, room_for, threads
from vaelab.seeding import derive_seed
from vaelab.training import events
from vaelab.training.checkpoints import BEST, INITIAL, LAST, PREVIOUS, Checkpoints
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.graph import require_capturable
from vaelab.training.internals import cluster_environment, complete_epochs
from vaelab.training.module import AutoencoderModule
from vaelab.training.reading import load_weights, read, reason
from vaelab.training.signals import graceful_stop

log = logging.getLogger("vaelab")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its final metrics."""

    folder: Path
    metrics: Mapping[str, float]
    figures: Sequence[Path] = field(default=())


def train(config: DictConfig, *, folder: str | Path | None = None, trust: Sequence[str] = ()) -> Run:
    """Train, test and draw the model of a config.

    In a process that torchrun or srun has started beside the first one it does not return: the process ends with the
    run.

    Args:
        config: as `vaelab.compose` makes it.
        folder: the new run folder; by default outputs/runs/<time>_<name>.
        trust: packages of one's own whose classes the config may name.

    Raises:
        ConfigError: the config has mistakes.
        DataError: the data are missing or damaged.
        RunError: `folder` exists.
    """
    what = checked(config, trust=trust)
    if folder is not None:
        return train_into(folder, what, exact=True)
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{what.experiment.name}"
    return train_into(Path("outputs", "runs", name), what, exact=False)


def train_into(folder: str | Path, what: Checked, *, exact: bool, overrides: Sequence[str] = ()) -> Run:
    """`train` into `folder` or, unless it has to be that `exact` one, into a free one beside it.

    The manifest keeps the `overrides` that the config was composed with.
    """
    config, experiment = what.config, what.experiment
    with quiet_lightning(), leading(what) as launch:
        ready(what, launch=launch)
        launch.await_others()
        if exact and launch.restarted and _holds(folder, config):
            return _taken_up(RunFolder.open(folder), what, launch, overrides=overrides)
        with threads(experiment.threads):
            made_of = manifest(experiment.data, seed=experiment.seed, overrides=overrides)
            with (
                RunFolder.claim(folder, config, made_of, exact=exact) as claimed,
                room_for(claimed.path),
                recorded(claimed),
            ):
                claimed.write_json("data", experiment.data.form.to_json())
                _keep_initial_weights(what, claimed)
                launch.begin(claimed.path)
                return _fit(what, claimed)


@contextmanager
def leading(what: Checked) -> Iterator[Launch]:
    """The processes that were started for a run; all but the first take part in it and end here."""
    launch = Launch.of(what.config)
    if launch.rank > 0:
        launch.follow(
            lambda: ready(what, launch=launch),
            lambda _, folder: _join(what, RunFolder(folder)),
        )
    with launch.ending():
        yield launch


def _holds(folder: str | Path, config: DictConfig) -> bool:
    """Whether there is a run of this config in `folder`."""
    return Path(folder, "config.yaml").is_file() and RunFolder(folder).config == portable(config)


def ready(what: Checked, *, devices: bool = True, launch: Launch | None = None) -> None:
    """Find the devices of a checked config and read its data: nothing has been written by then.

    Args:
        what: the config and its experiment.
        devices: ask for them; not where it will run on another machine.
        launch: the processes that were started for it and have to be as many as it wants.

    Raises:
        ConfigError: this machine does not have the devices, or the weights to begin with do not fit.
        DataError: the data are missing or damaged.
    """
    experiment = what.experiment
    with quiet_lightning():
        if experiment.init is not None:
            load_weights(experiment.model(), checkpoint_of(experiment.init))
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
        require_judgeable(experiment)


def resume(run: Run | str | Path, overrides: Sequence[str] = (), *, trust: Sequence[str] = ()) -> Run:
    """Continue a run that was stopped or killed, from its last checkpoint, or from the start where it has none.

    It ends in the same bits as if it had not been stopped. A run that is done is left as it is, unless it is extended:
    "trainer.max_epochs=40" continues it to 40 epochs, to the bits of a run that had 40 from the start.

    Args:
        run: the run, its folder, or a checkpoint in it.
        overrides: a larger trainer.max_epochs, or nothing.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, another process is training it, or its checkpoints are damaged.
        ConfigError, DataError: as in `train`.
    """
    folder = folder_of(run)
    if overrides:
        extend(folder, overrides, trust=trust)
    return go_on(folder, folder.config, trust=trust)


def go_on(
    folder: RunFolder,
    config: DictConfig,
    *,
    trust: Sequence[str] = (),
    overrides: Sequence[str] = (),
    callbacks: Sequence[pl.Callback] = (),
    wait: bool = False,
) -> Run:
    """`resume`, for a folder that may have no more than its config yet.

    Args:
        folder: the run's.
        config: the folder's, but for what does not change the results, such as the progress bar.
        trust: packages of one's own whose classes the config may name.
        overrides: what the config was composed with; the manifest of a run that begins here keeps them.
        callbacks: besides the config's.
        wait: for another process that is training it.

    Raises:
        Pruned: one of the callbacks has ended it.
    """
    if folder.done:  # nothing of it is made
        return _finished(folder)
    what = checked(config, trust=trust, own=False, form=folder.form)
    with quiet_lightning(), leading(what) as launch:
        return _taken_up(folder, what, launch, overrides=overrides, callbacks=callbacks, wait=wait)


def _finished(folder: RunFolder) -> Run:
    return Run(folder.path, folder.metrics, sorted(folder.figures.glob("*.png")))


def _taken_up(
    folder: RunFolder,
    what: Checked,
    launch: Launch,
    *,
    overrides: Sequence[str],
    callbacks: Sequence[pl.Callback] = (),
    wait: bool = False,
) -> Run:
    with room_for(folder.path), folder.locked(wait=wait):
        if folder.done:
            return _finished(folder)
        folder.require_known_servers(what.trust)
        folder.remove_fragments()
        experiment = what.experiment
        with recorded(folder):
            ready(what, launch=launch)
            launch.await_others()
            with threads(experiment.threads):
                then, now = folder.manifest, manifest(experiment.data, seed=experiment.seed, overrides=overrides)
                if then is not None:
                    _warn_of_changes(then, now)
                else:
                    folder.write_manifest(now)
                if folder.form is None:
                    folder.write_json("data", experiment.data.form.to_json())
                _keep_initial_weights(what, folder)
                launch.begin(folder.path)
                return _fit(what, folder, callbacks)


def join(folder: str | Path, *, trust: Sequence[str] = ()) -> None:
    """Take part, as another process, in a run that the first one has begun or resumed."""
    with quiet_lightning():
        run_folder = RunFolder.open(folder)
        what = checked(run_folder.config, trust=trust, own=False, form=run_folder.form)
        ready(what)
        _join(what, run_folder)


def _join(what: Checked, folder: RunFolder) -> None:
    with threads(what.experiment.threads):
        _fit(what, folder)


def _keep_initial_weights(what: Checked, folder: RunFolder) -> None:
    """Copy the weights that a run begins with, so that it can be resumed and reproduced without where they are from."""
    kept = folder.checkpoints / INITIAL
    if what.experiment.init is not None and not kept.is_file():
        folder.checkpoints.mkdir(exist_ok=True)
        state = read(checkpoint_of(what.experiment.init))["state_dict"]
        with replacing(kept) as temporary:
            torch.save({"state_dict": state}, temporary)


def _fit(what: Checked, folder: RunFolder, more: Sequence[pl.Callback] = ()) -> Run:
    """Train from where the folder's checkpoints stand, test, draw."""
    experiment = what.experiment
    with graceful_stop() as stop:
        loggers = experiment.made_for(folder.path, experiment.logger)
        callbacks = experiment.made_for(folder.path, experiment.callbacks)
        callbacks.sort(key=lambda callback: isinstance(callback, Checkpoints))  # last, so that it keeps what all know
        trainer = experiment.trainer([*callbacks, *more, _EpochLog(folder), stop], loggers)
        with companions(trainer, folder, what.trust), summary.ended(loggers):
            return _fit_with(trainer, experiment, folder)


def _fit_with(trainer: Any, experiment: Experiment, folder: RunFolder) -> Run:
    started = time.monotonic()
    model, loggers = experiment.model(), trainer.loggers
    if experiment.compile:
        for part in ("encoder", "decoder"):
            model.get_submodule(part).compile()  # in place: weights, and so checkpoints, keep their names
    checkpoint = _newest_checkpoint(folder)
    if checkpoint is not None:
        load_weights(model, checkpoint)  # says what does not fit
    elif experiment.init is not None:
        load_weights(model, folder.checkpoints / INITIAL)
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
        if trainer.is_global_zero:  # of several processes the one that logs
            events.rewind(loggers, state["events"] if checkpoint else {})
            summary.open_with(loggers, folder, resumed=checkpoint is not None)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    complete_epochs(trainer)
    if any((folder.checkpoints / name).is_file() for name in (BEST, LAST)):
        load_weights(model, folder.best_checkpoint())
    metrics = _validation(trainer) | _test(experiment, model, trainer)
    metrics["epochs"] = trainer.current_epoch
    metrics["steps"] = trainer.global_step
    if not trainer.is_global_zero:
        return Run(folder.path, metrics)
    measured = judged(experiment, model)
    for logger in loggers:
        logger.log_metrics(measured, trainer.global_step)
    metrics |= measured
    folder.write_json("metrics", metrics)
    folder.require_there()
    drawn = _draw(experiment, model, folder)
    summary.close_with(loggers, experiment, model, step=trainer.global_step)
    log.info("done in %.0f s: %s", time.monotonic() - started, metrics)
    return Run(folder.path, metrics, drawn)


def _validation(trainer: pl.Trainer) -> dict[str, float]:
    """The terms of the validation by which best.ckpt was chosen."""
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
    """reconstructions.png and, for a model with a prior, samples.png."""
    model = model.cpu().float().eval()
    splits = experiment.data.splits
    shown = splits.shown.first(10)
    originals = shown.x.cpu()
    view = figures.View.of(experiment.data.form)
    what = "test images" if len(splits.test) else "images"
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
        samples = figures.samples(view(model.sample(64)), model.classes)
        title = f"{experiment.name}: samples from the prior"
        paths.append(figures.save(samples, folder.figures / "samples.png", title=title))
    return paths


def _newest_checkpoint(folder: RunFolder) -> Path | None:
    """last.ckpt, or the one before it where that is damaged; None where there has been none yet."""
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
        raise RunError("\n".join([*damage.values(), "no other checkpoint is left; remove them to start anew"]))
    return None


def _warn_of_changes(then: Manifest, now: Manifest) -> None:
    """Warn of what a run's bits depend on and is no longer as it was."""
    for part, changes in circumstances(then, now).items():
        message = f"not the {part} the run was started with, so its bits may differ: {'; '.join(changes)}"
        warnings.warn(message, stacklevel=2)
        log.warning(message)


def _ask_devices(experiment: Experiment) -> pl.Trainer:
    """Refuse devices that Lightning cannot have, before anything is written."""
    try:
        trainer: pl.Trainer = experiment.trainer([], [])
    except (MisconfigurationException, RuntimeError, ValueError, TypeError, ImportError) as error:
        message = f"trainer: {' '.join(str(error).split())}; trainer.accelerator=auto takes what this machine has"
        raise ConfigError([message]) from error
    if trainer.world_size > 1:
        _require_uncoupled(experiment, trainer.world_size)
    wanted = getattr(experiment.trainer, "keywords", {}).get("precision")
    if wanted == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise ConfigError(["trainer.precision=16-mixed needs a GPU: bf16-mixed, which a CPU has too, or 32-true"])
    updates: Any = trainer.updates  # type: ignore[attr-defined]
    if updates["cuda_graph"]:
        accumulated = updates["accumulate_grad_batches"]
        require_capturable(trainer, accumulate_grad_batches=accumulated, compiled=experiment.compile)
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise ConfigError([f"trainer.devices={trainer.num_devices}: this machine has {cores} cores"])
    return trainer


def _require_values(experiment: Experiment) -> None:
    """Read the data; refuse a likelihood of other values than they have, and say what was taken for what."""
    _ = experiment.data.splits
    reason = why_not_of(experiment.likelihood(), experiment.data)
    if reason is not None:
        raise ConfigError([reason])
    for note in experiment.data.notes:
        log.warning(note)


def _require_uncoupled(experiment: Experiment, processes: int) -> None:
    """Refuse to share batches between processes where anything looks at all images of one."""
    with torch.device("meta"):
        coupling = experiment.model().coupling()
    what = experiment.objective.coupling() or (config_name(coupling) if coupling is not None else None)
    if what is not None:
        raise ConfigError(
            [
                f"{what} looks at all images of a batch together, which {processes} processes do not see: "
                "trainer.devices=1 trainer.num_nodes=1"
            ]
        )


def _require_batches(trainer: pl.Trainer, experiment: Experiment) -> None:
    """Refuse a share of the batches that is none of them, and batches that a normalization over them cannot take."""
    train, validation, test = experiment.data.splits
    for name, images, size in [
        ("train", train, experiment.data.batch_size),
        ("val", validation, rows_at_once(validation.shape)),
        ("test", test, rows_at_once(test.shape)),
    ]:
        share, batches = getattr(trainer, f"limit_{name}_batches"), -(-len(images) // size)
        if isinstance(share, float) and share > 0 and batches and int(share * batches) == 0:
            raise ConfigError([f"trainer.limit_{name}_batches={share} of {batches} batches is none: give a number"])
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


@contextmanager
def _resuming_from(checkpoint: Path | None, trainer: pl.Trainer) -> Iterator[Mapping[str, Any]]:
    """What a checkpoint holds; an error before the first step is reported as one of the checkpoint."""
    state = read(checkpoint) if checkpoint else {}
    try:
        yield state
    except UserError:
        raise
    except Exception as error:
        if checkpoint is None or trainer.global_step not in (0, state.get("global_step")):
            raise
        raise RunError(f"{checkpoint} does not fit this run: {reason(error)}") from error


def _ask_compiler(experiment: Experiment) -> None:
    """Refuse compile=true without a working C++ compiler, before anything is written."""
    if not experiment.compile:
        return
    found = next(filter(shutil.which, [os.environ.get("CXX", "g++"), "clang++", "cl"]), None)
    if found is None:
        raise ConfigError(["compile=true: torch.compile needs a C++ compiler, such as g++, and finds none here"])
    if found != "cl" and subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
        raise ConfigError([f"compile=true: torch.compile's C++ compiler, {found}, does not run"])


class _EpochLog(pl.Callback):
    """A line of train.log an epoch; and no checkpoint where the folder is gone."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look whether the folder is still there."""
        self.folder.require_there()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the terms as they stand."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, AutoencoderModule)
        terms = ", ".join(f"{name} {value:.4f}" for name, value in pl_module.shown.items())
        log.info("epoch %d, step %d: %s", trainer.current_epoch, trainer.global_step, terms)
