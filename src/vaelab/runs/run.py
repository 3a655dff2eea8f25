"""Train a config into a run folder, and resume it."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from vaelab.config.check import Checked, checked
from vaelab.files import replacing
from vaelab.runs.documents import Manifest
from vaelab.runs.execute import execute
from vaelab.runs.extend import extend
from vaelab.runs.folder import RunFolder, portable
from vaelab.runs.launch import Launch
from vaelab.runs.locate import checkpoint_of, folder_of
from vaelab.runs.manifest import circumstances, manifest
from vaelab.runs.ready import ready
from vaelab.runs.surroundings import quiet_lightning, recorded, room_for, threads
from vaelab.training.checkpoints import INITIAL
from vaelab.training.reading import read

log = logging.getLogger("vaelab")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its final metrics."""

    folder: Path
    metrics: Mapping[str, float]
    figures: Sequence[Path] = field(default=())


def train(config: DictConfig, *, folder: str | Path | None = None, trust: Sequence[str] = ()) -> Run:
    """Train, test and draw the model of a config.

    In a process that torchrun or srun has started besides the first one it does not return: the process ends with the
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
    """`train` into `folder` or, unless it has to be `exact`, into a free name beside it.

    The manifest keeps the `overrides` that the config was composed with.
    """
    config, experiment = what.config, what.experiment
    with quiet_lightning(), leading(what) as launch:
        ready(what, launch=launch)
        launch.await_others()
        if exact and launch.restarted and _holds(folder, config):
            return _taken_up(RunFolder.open(folder), what, launch, overrides=overrides)
        with threads(experiment.suitable_threads()):
            made_of = manifest(experiment.data, seed=experiment.seed, overrides=overrides)
            with (
                RunFolder.claim(folder, config, made_of, exact=exact) as claimed,
                room_for(claimed.path),
                recorded(claimed),
            ):
                claimed.write_form(experiment.data.form)
                _keep_initial_weights(what, claimed)
                launch.begin(claimed.path)
                return Run(claimed.path, *execute(what, claimed))


@contextmanager
def leading(what: Checked) -> Iterator[Launch]:
    """Give the processes that were started for a run; all but the first take part in it and end here."""
    launch = Launch.of(what.config)
    if launch.rank > 0:
        launch.follow(
            lambda: ready(what, launch=launch),
            lambda _, folder: _join(what, RunFolder(folder)),
        )
    with launch.ending():
        yield launch


def _holds(folder: str | Path, config: DictConfig) -> bool:
    """Whether `folder` has a run of this config."""
    return Path(folder, "config.yaml").is_file() and RunFolder(folder).config == portable(config)


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
    """`resume` a folder that may have nothing but its config yet.

    Args:
        folder: the run's.
        config: the folder's, except for settings that do not change the results, such as the progress bar.
        trust: packages of one's own whose classes the config may name.
        overrides: that the config was composed with; the manifest of a run that begins here keeps them.
        callbacks: besides the config's.
        wait: for another process that is training it.

    Raises:
        Pruned: one of the callbacks ended the run.
    """
    if folder.done:  # nothing has to be built
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
            with threads(experiment.suitable_threads()):
                then, now = folder.manifest, manifest(experiment.data, seed=experiment.seed, overrides=overrides)
                if then is not None:
                    _warn_of_changes(then, now)
                else:
                    folder.write_manifest(now)
                if folder.form is None:
                    folder.write_form(experiment.data.form)
                _keep_initial_weights(what, folder)
                launch.begin(folder.path)
                return Run(folder.path, *execute(what, folder, callbacks))


def join(folder: str | Path, *, trust: Sequence[str] = ()) -> None:
    """Take part, as a further process, in a run that the first one has begun or resumed."""
    with quiet_lightning():
        run_folder = RunFolder.open(folder)
        what = checked(run_folder.config, trust=trust, own=False, form=run_folder.form)
        ready(what)
        _join(what, run_folder)


def _join(what: Checked, folder: RunFolder) -> None:
    with threads(what.experiment.suitable_threads()):
        execute(what, folder)


def _keep_initial_weights(what: Checked, folder: RunFolder) -> None:
    """Copy a run's initial weights, so that it can be resumed and reproduced without the run that they are from."""
    kept = folder.checkpoints / INITIAL
    if what.experiment.begins_with is not None and not kept.is_file():
        folder.checkpoints.mkdir(exist_ok=True)
        state = read(checkpoint_of(what.experiment.begins_with))["state_dict"]
        with replacing(kept) as temporary:
            torch.save({"state_dict": state}, temporary)


def _warn_of_changes(then: Manifest, now: Manifest) -> None:
    """Warn about changes that a run's bits may depend on."""
    for part, changes in circumstances(then, now).items():
        message = f"{part} changed since the run was started, so its bits may differ: {'; '.join(changes)}"
        warnings.warn(message, stacklevel=2)
        log.warning(message)
