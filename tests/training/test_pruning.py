"""Runs that are ended early."""

from pathlib import Path

import pytest

import vaelab
from vaelab.errors import Pruned
from vaelab.runs.folder import RunFolder
from vaelab.runs.run import go_on
from vaelab.training.pruning import Pruning

SMALL = ["data=digits", "trainer=cpu", "encoder.hidden=[8]", "decoder.hidden=[8]", "latent_dim=2"]


class Impatient:
    """A trial that is to end once it has so many values."""

    def __init__(self, values: int) -> None:
        self.values = values
        self.reported: dict[int, float] = {}

    def report(self, value: float, step: int) -> None:
        assert step not in self.reported
        self.reported[step] = value

    def should_prune(self) -> bool:
        return len(self.reported) >= self.values


def waiting_run(folder: Path, *overrides: str) -> RunFolder:
    folder.mkdir()
    run = RunFolder(folder)
    run.write_config(vaelab.compose([*SMALL, "callbacks.progress_bar=null", *overrides]))
    return run


def test_a_pruned_run_has_its_checkpoints_and_can_be_gone_on_with(tmp_path: Path) -> None:
    run, trial = waiting_run(tmp_path / "run", "trainer.max_epochs=3"), Impatient(2)
    with pytest.raises(Pruned, match="after 2 epochs, for its val/loss"):
        go_on(run, run.config, callbacks=[Pruning(trial, "val/loss")])
    assert list(trial.reported) == [0, 1]
    assert run.status.state == "pruned"
    assert not run.metrics
    assert "Traceback" not in run.log.read_text()
    assert "test/elbo" in vaelab.evaluate(run.path)
    assert vaelab.resume(run.path).metrics["epochs"] == 3
    undisturbed = vaelab.train(run.config, folder=tmp_path / "undisturbed")
    assert undisturbed.metrics == run.metrics
    assert undisturbed.metrics["val/loss"] <= min(trial.reported.values())


def test_an_epoch_that_was_reported_before_a_kill_is_not_reported_again(tmp_path: Path) -> None:
    run, trial = waiting_run(tmp_path / "run", "trainer.max_epochs=2"), Impatient(9)
    go_on(run, run.config, callbacks=[Pruning(trial, "val/loss", reported=[0])])
    assert list(trial.reported) == [1]
    assert run.done


def test_the_validation_in_the_metrics_is_that_of_the_best_checkpoint(tmp_path: Path) -> None:
    run, trial = waiting_run(tmp_path / "run", "trainer.max_epochs=4", "optimizer.lr=0.1"), Impatient(9)
    metrics = go_on(run, run.config, callbacks=[Pruning(trial, "val/loss")]).metrics
    assert metrics["val/loss"] == min(trial.reported.values())
    assert metrics["val/loss"] == pytest.approx(metrics["val/reconstruction"] + metrics["val/kl"], rel=1e-6)
