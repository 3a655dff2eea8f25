import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toys import BATCH, TRAIN, VALIDATION, Recorder, Toy, module_of, plain, trainer_of, variational, weights

from vaelab.data import Batches, Images, Splits
from vaelab.losses import KL, Step, SumOfTerms, elbo, reconstruction
from vaelab.models.schedules import Linear
from vaelab.performance.denormals import EVERY
from vaelab.seeding import derive_seed
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.optimizers import adam
from vaelab.training.term_means import means


def fit(model, *, seed=0, objective=None, log_every=50, accumulate_grad_batches=1, recorder=None, **settings):
    trainer = trainer_of(recorder=recorder, **settings)
    knobs = {"seed": seed, "log_every": log_every, "accumulate_grad_batches": accumulate_grad_batches}
    trainer.fit(module_of(model, objective, **knobs), ImageDataModule(Toy(), seed=seed))
    return trainer


def by_hand(model, *, seed=0, epochs=2, objective=None):
    """The training loop in plain PyTorch; the terms and the number of images of every batch."""
    objective, optimizer, number, history = objective or elbo(), adam(model.parameters(), lr=0.01), 0, []
    for epoch in range(epochs):
        for batch in Batches(Toy().splits.train, batch_size=BATCH, seed=seed, position=lambda e=epoch: (e, 0)):
            torch.manual_seed(derive_seed(seed, "noise", number))
            terms = objective(Step(model, batch.images, number=number))
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
            history.append(({name: term.item() for name, term in terms.items()}, len(batch.images)))
            number += 1
    return history


def weighted(history, name):
    return sum(terms[name] * n for terms, n in history) / sum(n for _, n in history)


class TestTraining:
    @pytest.mark.parametrize("objective", [elbo(), elbo(kl_weight=Linear(steps=4)), elbo(free_bits=0.1)])
    def test_it_is_the_plain_loop_to_the_bit(self, objective):
        ours, theirs = variational(), variational()

        fit(ours, objective=objective)
        by_hand(theirs, objective=objective)

        assert weights(ours).equal(weights(theirs))
        assert not weights(ours).equal(weights(variational()))

    def test_it_is_a_function_of_the_seed_whatever_state_the_global_generator_is_in(self):
        results = []
        for seed, state in [(0, 1), (0, 2), (5, 1)]:
            model = variational()
            torch.manual_seed(state)
            fit(model, seed=seed)
            results.append(weights(model))

        assert results[0].equal(results[1])
        assert not results[0].equal(results[2])

    def test_the_noise_of_every_batch_is_its_own(self):
        class Listening(SumOfTerms):
            def forward(self, step):
                drawn.append(tuple(torch.randn(3).tolist()))
                return super().forward(step)

        runs = []
        for seed in (0, 0, 1):
            drawn = []
            fit(variational(), objective=Listening({"kl": KL()}), seed=seed, limit_val_batches=0)
            runs.append(drawn)

        assert runs[0] == runs[1]
        assert len({*runs[0], *runs[2]}) == 12  # 2 seeds, 2 epochs, 3 batches

    def test_the_objective_sees_the_optimizers_step(self):
        class Listening(SumOfTerms):
            def forward(self, step):
                steps.append(step.number)
                assert step.training
                assert step.dataset_size == TRAIN
                return super().forward(step)

        steps = []
        fit(variational(), objective=Listening({"kl": KL()}), limit_val_batches=0)
        assert steps == [0, 1, 2, 3, 4, 5]

        steps = []
        fit(variational(), objective=Listening({"kl": KL()}), limit_val_batches=0, accumulate_grad_batches=3)
        assert steps == [0, 0, 0, 1, 1, 1]

    @pytest.mark.parametrize("settings", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}])
    def test_validating_less_often_or_never_does_not_shift_it(self, settings):
        validated, other = variational(), variational()

        fit(validated)
        fit(other, **settings)

        assert weights(validated).equal(weights(other))

    def test_the_learning_rate_is_that_of_the_schedule(self):
        asked = []

        def scheduler(total, per_epoch):
            asked.append((total, per_epoch))
            return lambda step: 0.5**step

        module = module_of(variational(), scheduler=scheduler)
        trainer = trainer_of(limit_val_batches=0)
        trainer.fit(module, ImageDataModule(Toy(), seed=0))

        assert asked == [(6, 3)]
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**6)


class TestLogging:
    def test_logged_terms_are_means_over_images_also_when_the_last_batch_is_smaller(self):
        recorder = Recorder()
        fit(variational(), recorder=recorder, limit_val_batches=0)
        history = by_hand(variational())

        logged = [(step, metrics) for step, metrics in recorder.logged if "train/loss" in metrics]
        assert [step for step, _ in logged] == [3, 6]
        assert [n for _, n in history] == [8, 8, 6] * 2
        for (_, metrics), epoch in zip(logged, (history[:3], history[3:]), strict=True):
            for name in ("loss", "reconstruction", "kl"):
                assert metrics[f"train/{name}"] == pytest.approx(weighted(epoch, name), rel=1e-6)

    def test_terms_are_logged_every_so_many_batches_and_none_is_left_out(self):
        recorder = Recorder()
        fit(variational(), recorder=recorder, log_every=2, limit_val_batches=0)
        history = by_hand(variational())

        logged = [(step, metrics["train/loss"]) for step, metrics in recorder.logged if "train/loss" in metrics]
        windows = [history[0:2], history[2:3], history[3:5], history[5:6]]
        assert [step for step, _ in logged] == [2, 3, 5, 6]
        assert [loss for _, loss in logged] == pytest.approx([weighted(w, "loss") for w in windows], rel=1e-6)

    def test_terms_are_unweighted(self):
        recorder = Recorder()
        fit(variational(), objective=elbo(kl_weight=4.0), recorder=recorder, limit_val_batches=0)

        metrics = next(metrics for _, metrics in recorder.logged if "train/loss" in metrics)
        expected = metrics["train/reconstruction"] + 4 * metrics["train/kl"]
        assert metrics["train/loss"] == pytest.approx(expected, rel=1e-6)
        assert metrics["train/kl"] > 0


class TestEvaluation:
    def numbers(self, model, objective=None, *, seed=0, run="test"):
        trainer = trainer_of()
        getattr(trainer, run)(module_of(model, objective, seed=seed), ImageDataModule(Toy(), seed=seed), verbose=False)
        return {name: value.item() for name, value in trainer.callback_metrics.items()}

    @pytest.mark.parametrize("run", ["test", "validate"])
    def test_it_gives_the_same_numbers_twice(self, run):
        model = variational()
        torch.manual_seed(1)
        first = self.numbers(model, run=run)
        torch.manual_seed(2)

        assert self.numbers(model, run=run) == first
        assert self.numbers(model, run=run, seed=1) != first

    def test_it_does_not_change_the_model(self):
        model = variational()
        before = weights(model)

        self.numbers(model)

        assert weights(model).equal(before)

    def test_means_are_over_all_images_though_the_last_batch_is_smaller(self):
        model, images = plain(), Toy().splits.validation.pixels / 255
        logits = model.decoder(model.posterior.code(model.encoder(images)))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / VALIDATION
        mse = ((logits.sigmoid() - images) ** 2).mean()

        numbers = self.numbers(model, reconstruction(), run="validate")

        assert numbers == pytest.approx(
            {"val/loss": loss.item(), "val/reconstruction": loss.item(), "val/mse": mse.item()}, rel=1e-5
        )

    def test_the_elbo_is_unweighted_and_z_is_sampled(self):
        model, x = variational(), Toy().splits.test.pixels / 255
        torch.manual_seed(derive_seed(0, "test", 0))
        terms = elbo()(Step(model, x, training=False))

        numbers = self.numbers(model, elbo(kl_weight=4.0))

        assert numbers["test/elbo"] == pytest.approx(-terms["loss"].item(), rel=1e-6)
        assert numbers["test/loss"] == pytest.approx((terms["reconstruction"] + 4 * terms["kl"]).item(), rel=1e-6)
        assert numbers["test/mse"] == pytest.approx(((model.reconstruct(x) - x) ** 2).mean().item(), rel=1e-6)

    def test_a_plain_autoencoder_has_no_elbo(self):
        assert set(self.numbers(plain(), reconstruction())) == {"test/loss", "test/reconstruction", "test/mse"}

    def test_weights_are_final_and_free_bits_off(self):
        annealed = elbo(kl_weight=Linear(start=0, end=2, steps=10**6), free_bits=5.0)

        expected = self.numbers(variational(), elbo(kl_weight=2.0))
        assert self.numbers(variational(), annealed) == pytest.approx(expected, rel=1e-6)

    def test_validation_in_a_run_gives_the_numbers_of_validation_after_it(self):
        model = variational()
        trainer = fit(model)
        metrics = trainer.callback_metrics.items()
        during = {name: value.item() for name, value in metrics if name.startswith("val/")}

        assert self.numbers(model, run="validate") == during


class TestTermMeans:
    def test_a_batch_counts_by_its_images(self):
        given = [(1.0, 4.0, 8), (2.0, 0.0, 8), (10.0, 1.0, 1)]
        batches = [({"loss": torch.tensor(loss), "kl": torch.tensor(kl)}, images, 0) for loss, kl, images in given]

        assert means(batches, "x/") == pytest.approx({"x/loss": 34 / 17, "x/kl": 33 / 17}, rel=1e-12)

    def test_small_differences_survive_many_batches(self):
        batches = [({"loss": torch.tensor(1000.0 + number % 2)}, 1, 0) for number in range(10_000)]

        assert means(batches, "")["loss"] == pytest.approx(1000.5, abs=1e-9)


class Faint(pl.Callback):
    """Gives every weight of the first layer a mean gradient that would be denormal some 20 steps later."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 10:
            (optimizer,) = trainer.optimizers
            optimizer.state[pl_module.model.encoder.layers[1].weight]["exp_avg"].fill_(1e-37)


class Black(Toy):
    """Images without a pixel that is on."""

    def read(self):
        return Splits(*(Images(torch.zeros_like(split.store.values), split.store_labels) for split in super().read()))


def test_what_an_optimizer_keeps_of_a_pixel_that_is_black_from_now_on_does_not_become_denormal():
    module = module_of(variational())
    fit = trainer_of(epochs=None, max_steps=EVERY + 5, callbacks=[Faint()])

    fit.fit(module, ImageDataModule(Black(), seed=0))

    assert not fit.optimizers[0].state[module.model.encoder.layers[1].weight]["exp_avg"].any()
