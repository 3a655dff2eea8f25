"""One module and any number of optimizers: what each does to whom. (Exact resume: tests/runs/test_resume.py.)"""

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toys import BATCH, Recorder, Toy, module_of, plain, trainer_of, variational, weights

import vaelab
from vaelab.config.check import check
from vaelab.data import Batches
from vaelab.losses import ImageAdversary, LatentAdversary, Step, elbo, reconstruction
from vaelab.losses.adversaries import Adversary
from vaelab.models.networks import Discriminator
from vaelab.seeding import derive_seed
from vaelab.training.checkpoints import read
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.optimizers import adam, sgd

SMALL = ["data=digits", "data.batch_size=300", "callbacks.progress_bar=null", "trainer.accelerator=cpu", "logger=csv"]
SMALL += ["trainer.max_epochs=2", "callbacks.checkpoints.every_n_steps=2"]
CRITICS = ["latents_discriminator", "pictures_discriminator"]


class Picky(nn.Sequential):
    """A smooth critic of images."""

    def __init__(self, shape):
        super().__init__(nn.Flatten(), nn.Linear(math.prod(shape), 5), nn.Softplus(), nn.Linear(5, 1), nn.Flatten(0))


class Sided(Adversary):
    """A critic of latents that tells z from -z: it draws nothing."""

    def build(self, model):
        self.critic = self.discriminator(model.posterior.latent_dim)

    def forward(self, step):
        return self.critic(step.z).mean()

    def critic_loss(self, step):
        z = step.z.detach()
        return nn.functional.softplus(self.critic(-z) - self.critic(z)).mean()


def two_critics(**knobs):
    """The ELBO, a critic of latents by Adam, one of images by the hinge loss with R1, trained by momentum."""
    latents = LatentAdversary(
        weight=2.0, discriminator=partial(Discriminator, hidden=[5]), optimizer=partial(adam, lr=0.02)
    )
    pictures = ImageAdversary(
        weight=0.5, discriminator=Picky, optimizer=partial(sgd, lr=0.05, momentum=0.5), loss="hinge", r1=3.0, **knobs
    )
    return elbo(terms={"latents": latents, "pictures": pictures})


def fit(model, objective, *, epochs=2, plugins=(), recorder=None, data=None, precision=None, batches=1.0, **knobs):
    module = module_of(model, objective, **knobs)
    settings = {} if precision is None else {"precision": precision}
    trainer = trainer_of(epochs, recorder, plugins, limit_val_batches=0, limit_train_batches=batches, **settings)
    trainer.fit(module, ImageDataModule(data or Toy(), seed=0))
    return trainer, module


def by_hand(model, objective, *, epochs=2, clip=lambda parameters: None, shares=(1, 1, 1), due=(True, True, True)):
    """Gradients of each loss for those whose loss it is, one step of each in turn."""
    objective.build(model, 0)
    critics = objective.critics()
    groups = [list(model.parameters()), *(list(critic.parameters()) for critic, _ in critics.values())]
    optimizers = [adam(groups[0], lr=0.01)]
    optimizers += [make(group) for group, (_, make) in zip(groups[1:], critics.values(), strict=True)]
    number = 0
    for epoch in range(epochs):
        batches = Batches(Toy().splits.train, batch_size=BATCH, seed=0, position=lambda e=epoch: (e, 0))
        for batch, share, steps in zip(batches, shares, due, strict=True):
            torch.manual_seed(derive_seed(0, "noise", number))
            step = Step(model, batch.images, number=number)
            losses = [objective(step)["loss"]]
            for index, (group, optimizer) in enumerate(zip(groups, optimizers, strict=True)):
                gradients = torch.autograd.grad(losses[index] * share, group)
                for parameter, gradient in zip(group, gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                if steps:
                    clip(group)
                    optimizer.step()
                    optimizer.zero_grad()
                if index == 0:
                    losses += objective.critic_losses(step).values()
            number += 1


def critics_of(objective):
    return [weights(critic) for critic, _ in objective.critics().values()]


class TestTraining:
    @pytest.mark.parametrize("encoder", [True, False])
    def test_with_critics_of_latents_and_of_images_it_is_the_plain_loop_to_the_bit(self, encoder):
        """Which asks for the gradients of each one's own loss, and for no others."""
        ours, theirs = variational(), variational()
        objectives = [two_critics(encoder=encoder) for _ in range(2)]

        trainer, module = fit(ours, objectives[0])
        by_hand(theirs, objectives[1])

        assert weights(ours).equal(weights(theirs))
        for mine, others in zip(critics_of(objectives[0]), critics_of(objectives[1]), strict=True):
            assert mine.equal(others)
        assert trainer.global_step == 6  # the model's steps are counted
        objectives[1].build(theirs, module.seed)
        assert not any(map(torch.equal, critics_of(objectives[0]), critics_of(objectives[1])))  # all have moved

    @pytest.mark.parametrize(
        ("algorithm", "value", "clip"),
        [
            ("norm", 0.05, lambda group: nn.utils.clip_grad_norm_(group, 0.05)),
            ("value", 0.01, lambda group: nn.utils.clip_grad_value_(group, 0.01)),
        ],
        ids=["norm", "value"],
    )
    def test_gradients_are_clipped_for_each_optimizer_by_itself(self, algorithm, value, clip):
        ours, theirs, unclipped = variational(), variational(), variational()
        objectives = [two_critics() for _ in range(3)]

        fit(ours, objectives[0], gradient_clip_val=value, gradient_clip_algorithm=algorithm)
        by_hand(theirs, objectives[1], clip=clip)
        fit(unclipped, objectives[2])

        assert weights(ours).equal(weights(theirs))
        assert not weights(ours).equal(weights(unclipped))
        for mine, others, free in zip(*map(critics_of, objectives), strict=True):
            assert mine.equal(others)
            assert not mine.equal(free)

    @pytest.mark.parametrize("of_critics", [adam, partial(sgd, lr=0.05)], ids=["adam", "sgd"])
    def test_accumulated_batches_are_one_large_batch_for_all_optimizers(self, of_critics):
        """Of a model and critics that draw nothing, in float64; both see the same 16 images an epoch."""
        models, objectives = [plain().double() for _ in range(2)], []
        for model, size, batches in zip(models, (8, 16), (2, 1), strict=True):
            sided = Sided(weight=0.7, discriminator=partial(Discriminator, hidden=[5]), optimizer=of_critics)
            pictures = ImageAdversary(weight=0.5, discriminator=Picky, optimizer=of_critics, r1=3.0)
            objective = reconstruction(terms={"sided": sided, "pictures": pictures})
            accumulate = {"accumulate_grad_batches": batches}
            data = Toy(batch_size=size)
            trainer, _ = fit(model, objective, epochs=5, batches=batches, precision="64-true", data=data, **accumulate)
            assert trainer.global_step == 5
            objectives.append(objective)

        torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-9, atol=1e-11)
        for mine, others in zip(*map(critics_of, objectives), strict=True):
            torch.testing.assert_close(mine, others, rtol=1e-9, atol=1e-11)
        assert (weights(models[0]) - weights(plain().double())).abs().max() > 0.01

    def test_a_last_group_of_batches_that_is_not_full_counts_as_a_full_one(self):
        """Of three batches two by two: a step with the mean gradient of two, and one with that of the third."""
        ours, theirs = variational(), variational()
        objectives = [two_critics() for _ in range(2)]

        trainer, _ = fit(ours, objectives[0], accumulate_grad_batches=2)
        by_hand(theirs, objectives[1], shares=(0.5, 0.5, 1), due=(False, True, True))

        assert trainer.global_step == 4
        assert weights(ours).equal(weights(theirs))
        assert all(map(torch.equal, critics_of(objectives[0]), critics_of(objectives[1])))

    def test_critics_losses_are_logged_in_training_and_not_in_validation(self):
        recorder = Recorder()
        module = module_of(variational(), two_critics())
        trainer_of(1, recorder).fit(module, ImageDataModule(Toy(), seed=0))
        logged = {name for _, metrics in recorder.logged for name in metrics}
        terms = ["loss", "reconstruction", "kl", "latents", "pictures", *CRITICS]
        assert {name for name in logged if name.startswith("train/")} == {f"train/{name}" for name in terms}
        evaluated = ["loss", "reconstruction", "kl", "mmd", "elbo", "mse"]
        assert {name for name in logged if name.startswith("val/")} == {f"val/{name}" for name in evaluated}


class Unscaled(MixedPrecision):
    """A gradient scaler, and no half precision: what it scales by powers of two is the same to the bit."""

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


def scaled(plugin=Unscaled, **knobs):
    return plugin("16-mixed", "cpu", torch.amp.GradScaler("cpu", **knobs))


class TestMixedPrecision:
    @pytest.mark.parametrize("accumulate", [1, 2])
    @pytest.mark.parametrize("clip", [None, "norm", "value"])
    def test_scaled_gradients_are_unscaled_before_they_are_clipped_or_used(self, clip, accumulate):
        """By fused Adam and by an optimizer that leaves the unscaling to others; the scale changes at every step."""
        knobs = {"accumulate_grad_batches": accumulate}
        if clip is not None:
            knobs |= {"gradient_clip_val": 0.05, "gradient_clip_algorithm": clip}
        models, objectives = [variational() for _ in range(2)], [two_critics() for _ in range(2)]
        fit(models[0], objectives[0], **knobs)
        plugin = scaled(init_scale=2.0**4, growth_interval=1)
        fit(models[1], objectives[1], plugins=[plugin], **knobs)

        assert plugin.scaler.get_scale() > 2**8
        assert weights(models[0]).equal(weights(models[1]))
        for mine, others in zip(*map(critics_of, objectives), strict=True):
            assert mine.equal(others)

    def test_a_step_whose_gradients_overflow_is_left_out_by_the_optimizer_that_has_them(self):
        model, objective = variational(), two_critics()
        plugin = scaled(MixedPrecision, init_scale=2.0**60, growth_interval=1000)
        _, module = fit(model, objective, plugins=[plugin], batches=1, epochs=1)
        start = variational()
        assert weights(model).equal(weights(start))
        assert plugin.scaler.get_scale() < 2**60
        assert module.trainer.global_step == 1

    def test_sixteen_bits_train_what_thirty_two_do(self):
        models, objectives = [variational() for _ in range(2)], [two_critics() for _ in range(2)]
        fit(models[0], objectives[0], gradient_clip_val=1.0)
        fit(models[1], objectives[1], gradient_clip_val=1.0, plugins=[scaled(MixedPrecision, init_scale=2.0**8)])
        start = weights(variational())
        moved, difference = weights(models[0]) - start, weights(models[0]) - weights(models[1])
        assert 0 < difference.norm() < 0.1 * moved.norm()
        for mine, others in zip(*map(critics_of, objectives), strict=True):
            torch.testing.assert_close(mine, others, rtol=0.05, atol=0.01)


class TestCheckpoints:
    def test_all_optimizers_have_their_state_and_go_on_from_it(self, tmp_path):
        whole, objective = variational(), two_critics()
        fit(whole, objective, epochs=4)
        half = fit(variational(), two_critics(), epochs=2)[0]
        half.save_checkpoint(tmp_path / "half.ckpt")
        state = read(tmp_path / "half.ckpt")
        assert len(state["optimizer_states"]) == 3
        names = {name.rsplit(".", 3)[0] for name in state["state_dict"] if not name.startswith("model.")}
        assert {name.split(".critic")[0] for name in names} == {"objective.terms.latents", "objective.terms.pictures"}

        resumed, others = variational(seed=1), two_critics()
        module = module_of(resumed, others)
        trainer_of(4, limit_val_batches=0).fit(
            module, ImageDataModule(Toy(), seed=0), ckpt_path=tmp_path / "half.ckpt", weights_only=True
        )
        assert weights(resumed).equal(weights(whole))
        assert all(map(torch.equal, critics_of(others), critics_of(objective)))

    @pytest.mark.parametrize(
        ("objective", "found", "message"),
        [
            (two_critics, 1, "expected the state of 3 optimizers, found 1"),
            (elbo, 3, "expected the state of 1 optimizer, found 3"),
        ],
    )
    def test_one_of_other_optimizers_does_not_continue_a_run(self, objective, found, message):
        with pytest.raises(ValueError, match=message):
            module_of(variational(), objective()).on_load_checkpoint({"optimizer_states": [{}] * found, "window": []})


@pytest.mark.parametrize("preset", ["factor_vae", "adversarial_ae", "vae_gan"])
def test_a_run_counts_the_autoencoders_steps_and_keeps_both_optimizers(preset: str, tmp_path: Path) -> None:
    image_critic = preset == "vae_gan"
    small = ["objective.terms.adversary.discriminator.channels=[4]"] if image_critic else []
    small = small or ["objective.discriminator.hidden=[16]"]
    made = vaelab.compose([f"model={preset}", *SMALL, *small, "scheduler=cosine"])
    run = vaelab.train(made, folder=tmp_path / "run")
    images = len(check(made).data.splits.train)
    assert run.metrics["steps"] == 2 * -(-images // 300)
    state = read(run.folder / "checkpoints" / "last.ckpt")
    assert state["global_step"] == run.metrics["steps"]
    model, discriminator = state["optimizer_states"]
    assert model["state"][0]["step"] == discriminator["state"][0]["step"] == run.metrics["steps"]
    term = {"factor_vae": "total_correlation", "adversarial_ae": "adversarial", "vae_gan": "adversary"}[preset]
    assert any(name.startswith(f"objective.terms.{term}.critic.") for name in state["state_dict"])
    assert model["param_groups"][0]["lr"] < 1e-3  # its schedule moved
    lr = made.objective.terms.adversary.optimizer.lr if image_critic else made.objective.discriminator_optimizer.lr
    assert discriminator["param_groups"][0]["lr"] == lr
    header = (run.folder / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert f"train/{term}_discriminator" in header
    assert f"val/{term}_discriminator" not in header
    assert vaelab.load(run.folder).sample(2).shape == (2, 1, 8, 8)
    again = vaelab.evaluate(run.folder)
    assert again["test/loss"] == pytest.approx(run.metrics["test/loss"], rel=1e-6)


@pytest.mark.slow
def test_two_processes_train_a_critic_as_one_does(tmp_path: Path) -> None:
    """Of images, which sees samples of p(z) too."""
    small = ["model=hinge_vae", "objective.terms.adversary.discriminator.channels=[4]", "encoder.channels=[4]"]
    small += ["objective.terms.adversary.fakes=both"]
    small += ["decoder.channels=[4]", "latent_dim=2", "trainer.max_epochs=1"]
    runs = []
    for number, launched in enumerate([[], ["trainer=ddp"]]):
        made = vaelab.compose([*small, *launched, *SMALL])
        runs.append(vaelab.train(made, folder=tmp_path / str(number)).folder)
    one, two = (read(run / "checkpoints" / "last.ckpt") for run in runs)
    assert two["state_dict"].keys() == one["state_dict"].keys()
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-3, atol=1e-4, msg=name)
    moments = [state["optimizer_states"][1]["state"][0]["exp_avg"] for state in (one, two)]
    torch.testing.assert_close(*moments, rtol=1e-3, atol=1e-4)
