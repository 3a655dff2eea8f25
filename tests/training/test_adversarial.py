"""Two optimizers: the run folder, the logs, the counting of steps. (Exact resume: tests/runs/test_resume.py.)"""

from pathlib import Path

import pytest
import torch

import vaelab
from vaelab.config.check import check
from vaelab.losses import ELBO
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


def test_several_processes_are_refused_where_one_scale_is_of_all_images(tmp_path: Path) -> None:
    overrides = ["loss=gaussian_optimal_scale", "data=digits", "trainer=ddp", "trainer.accelerator=cpu"]
    with pytest.raises(vaelab.ConfigError, match="loss=gaussian_optimal_scale looks at all images of a batch together"):
        vaelab.train(vaelab.compose(overrides), folder=tmp_path / "run")


def test_a_checkpoint_of_one_optimizer_does_not_continue_a_run_of_two(tmp_path: Path) -> None:
    run = vaelab.train(config("factor_vae"), folder=tmp_path / "run").folder
    state = checkpoint(run)
    state["optimizer_states"] = state["optimizer_states"][:1]
    module = AdversarialModule((made := check(config("factor_vae"))).model(), made.objective, made.optimizer)
    with pytest.raises(ValueError, match="two optimizers"):
        module.on_load_checkpoint(state)
