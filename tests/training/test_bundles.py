"""Many steps a call of Lightning's loop: the bits of one step a call, and ends where something has to happen."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

import vaelab
from tokenizers import OF_GREY_DIGITS
from vaelab.config.check import check
from vaelab.config.conf import options
from vaelab.training.bundles import Bundles
from vaelab.training.checkpoints import read
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.module import AutoencoderModule

QUICK = ["vae", "factor_vae", "vq_vae"]
PRESETS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in options("model")]
DIGITS = ["data=digits", "data.batch_size=100", "trainer.accelerator=cpu", "callbacks.progress_bar=null", "logger=csv"]


def bundled(length: int) -> pytest.MonkeyPatch:
    """Bundles of so many batches, wherever they may be as long."""
    patch, original = pytest.MonkeyPatch(), Bundles.__init__

    def fixed(self: Bundles, *arguments: Any) -> None:
        original(self, *arguments)
        self.length = length

    patch.setattr(Bundles, "__init__", fixed)
    patch.setattr("vaelab.training.bundles.SHORT", 0.0)
    patch.setattr("vaelab.training.bundles.LONG", 1e9)
    return patch


def calls(patch: pytest.MonkeyPatch) -> list[int]:
    """The batches of each bundle, as they are taken."""
    taken: list[int] = []
    original = AutoencoderModule.training_step, AutoencoderModule._train_on

    def step(self: AutoencoderModule, *arguments: Any) -> Any:
        taken.append(0)
        return original[0](self, *arguments)

    def one(self: AutoencoderModule, *arguments: Any) -> Any:
        taken[-1] += 1
        return original[1](self, *arguments)

    patch.setattr(AutoencoderModule, "training_step", step)
    patch.setattr(AutoencoderModule, "_train_on", one)
    return taken


def trained(folder: Path, length: int, *overrides: str) -> dict[str, Any]:
    """What a run leaves, without what tells the time."""
    patch = bundled(length)
    try:
        config = vaelab.compose([*DIGITS, "callbacks.pictures=null", "callbacks.rates=null", *overrides])
        run = vaelab.train(config, folder=folder)
    finally:
        patch.undo()
    state = read(run.folder / "checkpoints" / "last.ckpt")
    state["csv"] = (run.folder / "csv" / "metrics.csv").read_text()
    state["metrics"] = run.metrics
    return state


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return bool(one.equal(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("preset", PRESETS)
def test_bundles_have_the_bits_of_single_steps(preset: str, tmp_path: Path) -> None:
    given = [
        f"model={preset}",
        *OF_GREY_DIGITS.get(preset, []),
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=8",
        "trainer.limit_val_batches=1",
    ]
    given += ["trainer.limit_test_batches=1", "trainer.log_every_n_steps=7"]
    one, many = (trained(tmp_path / str(length), length, *given) for length in (1, 5))

    assert one["global_step"] == many["global_step"] == 8
    assert same(one, many)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.accumulate_grad_batches=3"],
        ["trainer.gradient_clip_val=0.1", "model=factor_vae"],
        ["callbacks.checkpoints.every_n_steps=3", "scheduler=cosine"],
        ["trainer.max_steps=11", "trainer.max_epochs=-1"],
    ],
    ids=str,
)
def test_so_they_have_with_whatever_happens_between_steps(overrides: list[str], tmp_path: Path) -> None:
    one, many = (trained(tmp_path / str(length), length, "trainer.max_epochs=2", *overrides) for length in (1, 64))

    assert same(one, many)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.log_every_n_steps=6"], [6, 6, 2]),
        (["callbacks.checkpoints.every_n_steps=5"], [5, 5, 4]),
        (["trainer.max_steps=9"], [9]),
        (["trainer.log_every_n_steps=4", "callbacks.checkpoints.every_n_steps=6"], [4, 2, 2, 4, 2]),
    ],
    ids=str,
)
def test_a_bundle_ends_where_something_has_to_happen(overrides: list[str], expected: list[int], tmp_path: Path) -> None:
    """An epoch of 14 batches."""
    patch = bundled(64)
    try:
        taken = calls(patch)
        given = [*DIGITS, "data.validation=0", "trainer.max_epochs=1", "trainer.limit_train_batches=14"]
        vaelab.train(vaelab.compose([*given, *overrides]), folder=tmp_path / "run")
    finally:
        patch.undo()

    assert taken == expected


class Listening(pl.Callback):
    """Somebody's callback that wants each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append((batch_idx, len(batch.images)))


def fitted(*callbacks: pl.Callback, limit: int = 6, **settings: Any) -> list[int]:
    patch = bundled(64)
    try:
        taken = calls(patch)
        made = check(vaelab.compose(DIGITS))
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_train_batches=limit,
            limit_val_batches=1,
            callbacks=list(callbacks),
            **settings,
        )
        module = AutoencoderModule(made.model(), made.objective, made.optimizer)
        trainer.fit(module, ImageDataModule(made.data, seed=0))
    finally:
        patch.undo()
    return taken


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_a_callback_of_other_people_that_wants_each_batch_gets_it() -> None:
    listening = Listening()

    assert fitted(listening) == [1] * 6
    assert listening.seen == [(number, 100) for number in range(6)]
    assert fitted() == [6]


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_a_validation_within_an_epoch_ends_a_bundle() -> None:
    assert fitted(val_check_interval=4, limit=10) == [4, 4, 2]


def test_lightning_is_called_less_than_a_hundred_times_a_step(tmp_path: Path) -> None:
    """It was 1,100 times, one step a call."""
    counted: Counter[str] = Counter()

    def count(frame: Any, event: str, argument: object) -> None:
        if event == "call" and ("lightning" in frame.f_code.co_filename.split("site-packages")[-1][:20]):
            counted["calls"] += 1

    training_epoch = _TrainingEpochLoop.run

    def watched(self: _TrainingEpochLoop, *arguments: object) -> object:
        sys.setprofile(count)
        try:
            return training_epoch(self, *arguments)
        finally:
            sys.setprofile(None)

    patch = bundled(32)
    try:
        patch.setattr(_TrainingEpochLoop, "run", watched)
        given = ["data=digits", "data.batch_size=4", "data.validation=0", "trainer=cpu", "trainer.max_epochs=1"]
        config = vaelab.compose([*given, "callbacks.progress_bar=null"])
        run = vaelab.train(config, folder=tmp_path / "run")
    finally:
        patch.undo()

    assert counted["calls"] / run.metrics["steps"] < 100
