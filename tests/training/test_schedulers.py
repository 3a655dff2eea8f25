import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vaelab
from vaelab.runs.differences import differences, scalars
from vaelab.training.checkpoints import Checkpoints
from vaelab.training.schedulers import cosine, exponential, multistep, warmup


def test_cosine_falls_from_one_to_final_along_half_a_wave():
    factor = cosine(80, 10, final=0.2)

    for step in range(81):
        # cos^2(a / 2) = (1 + cos a) / 2
        assert factor(step) == pytest.approx(0.2 + 0.8 * math.cos(math.pi / 2 * step / 80) ** 2, abs=1e-12)


def test_cosine_stays_at_final_after_the_end():
    factor = cosine(80, 10, final=0.2)

    assert [factor(step) for step in (80, 81, 1000)] == pytest.approx([0.2] * 3)


def test_the_warmup_climbs_in_equal_steps_and_never_stands_at_zero():
    factor = cosine(100, 10, warmup_steps=4)

    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factor(52) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("warmup_steps", [10, 50])
def test_a_warmup_as_long_as_the_run_or_longer_is_no_division_by_zero(warmup_steps):
    factor = cosine(10, 10, warmup_steps=warmup_steps)

    assert all(0 < factor(step) <= 1 for step in range(10))


@pytest.mark.parametrize("epochs", [[2, 5], [5, 2]])
def test_multistep_multiplies_at_the_end_of_each_epoch_named(epochs):
    factor = multistep(100, 10, epochs=epochs, factor=0.1)

    assert [factor(step) for step in (0, 19, 20, 49, 50, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_multistep_is_torchs_stepped_epoch_by_epoch():
    factor = multistep(60, 10, epochs=[1, 4], factor=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 4], gamma=0.5)
    for epoch in range(6):
        assert factor(10 * epoch) == factor(10 * epoch + 9) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_a_warmup_climbs_as_the_start_of_cosine_does_and_then_stays():
    factor, start = warmup(100, 10, steps=7), cosine(100, 10, warmup_steps=7)

    assert [factor(step) for step in range(8)] == [start(step) for step in range(8)]
    assert [factor(step) for step in (7, 8, 99, 1000)] == [1.0] * 4
    assert warmup(100, 10, steps=0)(0) == 1.0


def test_exponential_is_torchs_at_the_start_of_each_epoch_and_its_geometric_mean_between():
    factor = exponential(60, 10, decay=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    for epoch in range(6):
        assert factor(10 * epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        assert factor(10 * epoch + 5) ** 2 == pytest.approx(factor(10 * epoch) * factor(10 * epoch + 10))
        optimizer.step()
        theirs.step()


def test_exponential_falls_from_the_end_of_its_warmup():
    factor, later = exponential(100, 10, decay=0.8), exponential(100, 10, decay=0.8, warmup_steps=4)

    assert [later(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [later(step + 4) for step in (0, 3, 50)] == [factor(step) for step in (0, 3, 50)]


@pytest.mark.slow
def test_a_plateau_is_torchs_of_the_logged_losses_and_exact_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data=digits", "data.batch_size=300", "trainer=cpu", "trainer.max_epochs=7", "encoder.hidden=[8]"]
    words += ["decoder.hidden=[8]", "callbacks.progress_bar=null", "callbacks.pictures=null", "latent_dim=2"]
    words += ["scheduler=plateau", "scheduler.patience=1", "scheduler.factor=0.5", "scheduler.threshold_mode=abs"]
    words += ["scheduler.threshold=3.0", "optimizer.lr=0.01", "callbacks.checkpoints.every_n_steps=2"]
    whole = vaelab.train(vaelab.compose(words), folder=tmp_path / "whole").folder

    logged = scalars(whole / "tensorboard")
    rates = dict(logged["train/learning_rate"])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=3.0, threshold_mode="abs"
    )
    for step, loss in logged["val/loss"]:
        assert rates[step] == pytest.approx(optimizer.param_groups[0]["lr"])  # of the epoch that has just ended
        theirs.step(loss)
    assert min(rates.values()) < 0.01

    save = Checkpoints.save_last

    class Killed(BaseException):
        pass

    moments = [15, 22]  # the end of the third epoch, and amid the fifth

    def save_and_die(self: Checkpoints, trainer: Any) -> None:
        save(self, trainer)
        if trainer.global_step in moments:
            moments.remove(trainer.global_step)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_last", save_and_die)
        with pytest.raises(Killed):
            vaelab.train(vaelab.compose(words), folder=tmp_path / "killed")
        with pytest.raises(Killed):
            vaelab.resume(tmp_path / "killed")
    vaelab.resume(tmp_path / "killed")

    assert moments == []
    assert differences(whole, tmp_path / "killed") == []
