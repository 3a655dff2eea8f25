"""Two optimizers: the run folder, the logs, the counting of steps, exact resume in the middle of an epoch."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vaelab
from vaelab.experiment.check import check
from vaelab.experiment.run import train_into
from vaelab.objectives import ELBO
from vaelab.training.adversarial import AdversarialModule, module_for
from vaelab.training.checkpoints import read
from vaelab.training.module import AutoencoderModule

SMALL = ["data=digits", "data.batch_size=300", "callbacks.progress_bar=null", "trainer.accelerator=cpu", "logger=csv"]
SMALL += ["trainer.max_epochs=2", "objective.discriminator.hidden=[16]", "callbacks.checkpoints.every_n_steps=2"]
PRESETS = ["factor_vae", "adversarial_ae"]


def config(preset: str, *overrides: str):
    return vaelab.compose([f"model={preset}", *SMALL, *overrides])


def checkpoint(folder: Path) -> dict:
    return read(folder / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_counts_the_autoencoders_steps_and_keeps_both_optimizers(preset: str, tmp_path: Path) -> None:
    made = config(preset, "scheduler=cosine")
    run = vaelab.train(made, folder=tmp_path / "run")
    images = len(check(made).data.splits.train)
    assert run.metrics["steps"] == 2 * -(-images // 300)
    state = checkpoint(run.folder)
    assert state["global_step"] == run.metrics["steps"]
    model, discriminator = state["optimizer_states"]
    assert model["state"][0]["step"] == discriminator["state"][0]["step"] == run.metrics["steps"]
    assert any(name.startswith("discriminator.") for name in state["state_dict"])
    assert model["param_groups"][0]["lr"] < 1e-3  # its schedule moved
    assert discriminator["param_groups"][0]["lr"] == made.objective.discriminator_optimizer.lr
    header = (run.folder / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert "train/discriminator" in header
    assert "val/discriminator" not in header
    assert vaelab.load(run.folder).sample(2).shape == (2, 1, 8, 8)
    again = vaelab.evaluate(run.folder)
    assert again["test/loss"] == pytest.approx(run.metrics["test/loss"], rel=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_that_was_stopped_within_an_epoch_goes_on_to_the_same_bits(preset: str, tmp_path: Path) -> None:
    whole = vaelab.train(config(preset, "scheduler=cosine"), folder=tmp_path / "whole")
    stopped = _stopped_after_a_checkpoint(config(preset, "scheduler=cosine"), tmp_path / "stopped")
    resumed = vaelab.resume(stopped)
    one, other = checkpoint(whole.folder), checkpoint(resumed.folder)
    for name, value in one["state_dict"].items():
        assert other["state_dict"][name].equal(value), name
    for ours, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        for number, state in ours["state"].items():
            assert all(theirs["state"][number][name].equal(value) for name, value in state.items())
    assert json.loads((whole.folder / "metrics.json").read_text()) == json.loads(
        (resumed.folder / "metrics.json").read_text()
    )


def _stopped_after_a_checkpoint(made, folder: Path) -> Path:
    """A run that fails in its third step, with a checkpoint of the second."""
    step = AdversarialModule.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialModule, "training_step", failing)
        with pytest.raises(BaseException):  # noqa: B017, PT011 (however the run ends)
            train_into(folder, made, exact=True, trust=())
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 2
    return folder


def test_the_discriminators_weights_are_a_function_of_the_seed() -> None:
    made = check(config("factor_vae"))
    weights = []
    for seed in (0, 0, 1):
        torch.rand(3)
        module = AdversarialModule(made.model(), made.objective, made.optimizer, seed=seed)
        weights.append(torch.cat([parameter.flatten() for parameter in module.discriminator.parameters()]))
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_the_objective_chooses_its_module() -> None:
    assert module_for(check(config("factor_vae")).objective) is AdversarialModule
    assert module_for(ELBO()) is AutoencoderModule


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2", "trainer.strategy=ddp"], "which 2 processes do not see: trainer.devices=1"),
        (["trainer.gradient_clip_val=1.0"], "trainer.gradient_clip_val=1.0 does not go with an objective of two"),
        (["trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches=2 does not go with an objective"),
    ],
    ids=str,
)
def test_settings_that_two_optimizers_cannot_have_are_named(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(vaelab.ConfigError) as error:
        vaelab.train(config("factor_vae", *overrides), folder=tmp_path / "run")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused_where_the_images_of_a_batch_are_coupled(tmp_path: Path) -> None:
    overrides = ["model=wae_mmd", "data=digits", "trainer=ddp", "trainer.accelerator=cpu"]
    with pytest.raises(vaelab.ConfigError, match="Regularized looks at all images of a batch together"):
        vaelab.train(vaelab.compose(overrides), folder=tmp_path / "run")


def test_a_checkpoint_of_one_optimizer_does_not_continue_a_run_of_two(tmp_path: Path) -> None:
    run = _stopped_after_a_checkpoint(config("factor_vae"), tmp_path / "run")
    path = run / "checkpoints" / "last.ckpt"
    state = read(path)
    state["optimizer_states"] = state["optimizer_states"][:1]
    torch.save(state, path)
    for other in path.parent.glob("*.ckpt"):
        if other != path:
            other.unlink()
    with pytest.raises(vaelab.UserError, match="two optimizers"):
        vaelab.resume(run)
    shutil.rmtree(run)
