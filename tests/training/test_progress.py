"""The bar costs a step nothing between two times it is drawn."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import RichProgressBar

import vaelab


def test_a_bar_moves_as_often_as_it_is_drawn_and_at_the_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    monkeypatch.setattr(RichProgressBar, "on_train_batch_end", lambda self, *arguments: moved.append(arguments[-1]))
    monkeypatch.setattr("vaelab.training.progress.time", SimpleNamespace(monotonic=lambda: 0.0))  # no time passes
    config = vaelab.compose(["data=digits", "data.batch_size=100", "trainer.max_epochs=2"])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    vaelab.train(config, folder=tmp_path / "run")
    batches = 14  # of 1,397 images
    assert moved == [0, batches - 1, batches - 1]
