"""The average of the weights against a loop by hand, and what of a run has it."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaelab
from vaelab.looking.load import opened
from vaelab.losses import Step
from vaelab.metrics.likelihood import evaluation_terms
from vaelab.runs.differences import differences
from vaelab.runs.folder import RunFolder
from vaelab.seeding import derive_seed, seed_noise
from vaelab.training.reading import read

TINY = [
    "data=digits",
    "data.batch_size=300",  # 5 batches an epoch
    "trainer=cpu",
    "trainer.max_epochs=2",
    "encoder.hidden=[8]",
    "decoder.hidden=[8]",
    "encoder.normalization=batch",
    "latent_dim=2",
    "callbacks.progress_bar=null",
    "callbacks.checkpoints.every_n_steps=1",
]
AVERAGED = [*TINY, "callbacks=averaging", "callbacks.averaging.decay=0.6"]
Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The folder of a run, trained when it is first asked for."""

    @cache
    def folder(*overrides: str) -> Path:
        return vaelab.train(vaelab.compose(overrides), folder=tmp_path_factory.mktemp("runs") / "run").folder

    return folder


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    return read(folder / "checkpoints" / f"{name}.ckpt")


def trajectory(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> list[dict[str, torch.Tensor]]:
    """The trained weights and buffers before training and after each step of the optimizer."""
    from vaelab.training.averaging import Averaging

    seen: list[tuple[int, dict[str, torch.Tensor]]] = []
    start, end = Averaging.on_train_start, Averaging.on_train_batch_end

    def note(trainer: Any, module: Any) -> None:
        state = {name: value.detach().clone() for name, value in module.model.state_dict().items()}
        if not seen or seen[-1][0] != trainer.global_step:
            seen.append((trainer.global_step, state))

    def on_train_start(self: Any, trainer: Any, module: Any) -> None:
        note(trainer, module)
        start(self, trainer, module)

    def on_train_batch_end(self: Any, trainer: Any, module: Any, *others: Any) -> None:
        note(trainer, module)
        end(self, trainer, module, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Averaging, "on_train_start", on_train_start)
        patch.setattr(Averaging, "on_train_batch_end", on_train_batch_end)
        vaelab.train(vaelab.compose(overrides), folder=folder)
    return [state for _, state in seen]


@pytest.mark.parametrize("more", [[], ["trainer.accumulate_grad_batches=2"]], ids=["each batch", "accumulated"])
def test_the_average_is_that_of_a_loop_by_hand_once_a_step_of_the_optimizer(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = trajectory(monkeypatch, tmp_path / "run", *AVERAGED, *more)
    assert len(weights) == (7 if more else 11)
    average = {name: value.double() for name, value in weights[0].items()}
    for step, state in enumerate(weights[1:], 1):
        decay = min(0.6, (1 + step) / (10 + step))
        average = {name: decay * mean + (1 - decay) * state[name].double() for name, mean in average.items()}
    last = checkpoint(tmp_path / "run")

    counted = [name for name in average if name.endswith("num_batches_tracked")]
    assert len(counted) == 1
    for name, mean in average.items():
        found = last["state_dict"][f"model.{name}"]
        if name in counted:
            assert found.equal(weights[-1][name])  # copied
        else:
            torch.testing.assert_close(found.double(), mean, rtol=1e-5, atol=1e-7)
            assert last["raw_weights"][name].equal(weights[-1][name])
            assert not found.equal(weights[-1][name])
    assert {name.rpartition(".")[2] for name in last["raw_weights"]} >= {"running_mean", "running_var", "weight"}


def test_training_has_the_same_bits_with_and_without(trained: Trained) -> None:
    without, averaged = checkpoint(trained(*TINY)), checkpoint(trained(*AVERAGED))

    weights = {name.removeprefix("model."): value for name, value in without["state_dict"].items()}
    for name, weight in averaged["raw_weights"].items():
        assert weight.equal(weights[name]), name
    one, other = (
        [tensor for each in state["optimizer_states"][0]["state"].values() for tensor in each.values()]
        for state in (without, averaged)
    )
    assert all(tensor.equal(same) for tensor, same in zip(one, other, strict=True))


def test_validation_best_weights_figures_and_loaded_models_are_the_averaged_ones(trained: Trained) -> None:
    run = trained(*AVERAGED)
    model, experiment = vaelab.load(run), opened(run).experiment
    best = checkpoint(run, "best")
    assert all(value.equal(best["state_dict"][f"model.{name}"]) for name, value in model.state_dict().items())

    x = experiment.data.splits.validation.pixels.float() / 255
    seed_noise(x.device, derive_seed(0, "val", 0))
    with torch.no_grad():
        loss = evaluation_terms(experiment.objective, Step(model, x, training=False))["loss"].item()
    logged = EventAccumulator(str(run / "tensorboard")).Reload()
    assert min(event.value for event in logged.Scalars("val/loss")) == pytest.approx(loss, rel=1e-6)

    picture = logged.Images("epoch/reconstructions")[0].encoded_image_string  # after the first epoch
    plain = EventAccumulator(str(trained(*TINY) / "tensorboard")).Reload()
    assert picture != plain.Images("epoch/reconstructions")[0].encoded_image_string
    samples = [(folder / "figures" / "samples.png").read_bytes() for folder in (run, trained(*TINY))]
    assert samples[0] != samples[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("codes", ["model=vq_vae", "encoder.channels=[8,8]", "decoder.channels=[8,8]", "latent_dim=4"]),
        ("bf16", ["trainer.precision=bf16-true"]),
    ],
)
def test_a_run_that_was_killed_is_resumed_to_the_same_bits(
    name: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a kill after the checkpoint of a step; real kills are in tests/runs/test_resume.py."""
    from vaelab.training.checkpoints import Checkpoints

    words = [word for word in AVERAGED if name != "codes" or "hidden" not in word] + more
    whole = vaelab.train(vaelab.compose(words), folder=tmp_path / "whole").folder
    save = Checkpoints.save_last

    class Killed(BaseException):
        pass

    def save_and_die(self: Checkpoints, trainer: Any) -> None:
        save(self, trainer)
        if trainer.global_step in (2, 4):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_last", save_and_die)
        with pytest.raises(Killed):
            vaelab.train(vaelab.compose(words), folder=tmp_path / "killed")
    vaelab.resume(tmp_path / "killed")

    assert differences(whole, tmp_path / "killed") == []
    last = checkpoint(whole)
    averaged = {name for name in last["raw_weights"] if last["state_dict"][f"model.{name}"].dtype == torch.float32}
    assert averaged == set(last["raw_weights"])
    if name == "codes":
        assert not any("codebook" in name for name in averaged)


def test_a_checkpoint_without_the_trained_weights_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(trained(*TINY), tmp_path / "run"))
    (folder.path / "metrics.json").unlink()  # it is not done
    (folder.path / "status.json").unlink()
    folder.write_config(vaelab.compose(AVERAGED))
    with pytest.raises(vaelab.RunError, match="does not have the trained weights beside the averaged ones"):
        vaelab.resume(folder.path)


def test_the_average_of_constant_weights_is_themselves_to_the_bit(trained: Trained) -> None:
    run = trained(*AVERAGED, "optimizer.lr=0.0", "encoder.normalization=null")
    last = checkpoint(run)
    for name, weight in last["raw_weights"].items():
        assert np.array_equal(weight, last["state_dict"][f"model.{name}"]), name
