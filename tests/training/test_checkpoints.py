import pickle
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from vaelab.training.checkpoints import AtomicCheckpointIO, Checkpoints

CONTENT = {"weights": torch.arange(6.0).reshape(2, 3), "step": 7, "window": [({"loss": torch.tensor(1.5)}, 3)]}


class Payload:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def half_written(checkpoint, file):
    file.write(b"half of a checkpoint")
    raise OSError("no space left on device")


def test_what_is_loaded_is_what_was_saved(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"

    io.save_checkpoint(CONTENT, path)
    loaded = io.load_checkpoint(path)

    assert loaded.keys() == CONTENT.keys()
    assert loaded["weights"].equal(CONTENT["weights"])
    assert loaded["step"] == 7
    assert loaded["window"][0][0]["loss"] == 1.5
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_folder_that_somebody_has_removed_is_not_made_again(tmp_path):
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / "checkpoints" / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint(CONTENT, path)
    before = path.read_bytes()

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="no space left"):
        io.save_checkpoint(CONTENT | {"step": 8}, path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / "last.ckpt")

    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch):
    io, path, seen = AtomicCheckpointIO(), tmp_path / "last.ckpt", []
    io.save_checkpoint(CONTENT, path)
    save = torch.save

    def watched(checkpoint, file):
        save(checkpoint, file)
        seen.append(io.load_checkpoint(path)["step"])

    monkeypatch.setattr(torch, "save", watched)
    io.save_checkpoint(CONTENT | {"step": 8}, path)

    assert seen == [7]
    assert io.load_checkpoint(path)["step"] == 8


@pytest.mark.parametrize("weights_only", [None, False, True])
@pytest.mark.parametrize("environment", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_loading_runs_no_code_whatever_caller_and_environment_say(weights_only, environment, tmp_path, monkeypatch):
    path, trace = tmp_path / "last.ckpt", tmp_path / "the code ran"
    torch.save({"state_dict": Payload(trace)}, path)
    if environment:
        monkeypatch.setenv(environment, "1")

    with pytest.raises(pickle.UnpicklingError):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=weights_only)

    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


class Prescribed(pl.LightningModule):
    """Logs the validation losses that it is told to."""

    def __init__(self, losses, name="val/loss"):
        super().__init__()
        self.losses, self.name, self.weight = losses, name, nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight

    def validation_step(self, batch, batch_idx):
        self.log(self.name, self.losses[self.current_epoch], batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def run(module, folder, epochs, **resume):
    callback = Checkpoints(folder)
    trainer = pl.Trainer(
        callbacks=[callback],
        plugins=[AtomicCheckpointIO()],
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = [torch.zeros(1)]
    trainer.fit(module, loader, loader, **resume)
    return callback


def epoch_of(path):
    return torch.load(path, weights_only=True)["epoch"]


@pytest.mark.parametrize(
    ("losses", "best"), [([3.0, 1.0, 2.0], 1), ([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 2), ([1.0, 1.0, 1.0], 0)]
)
def test_best_is_the_epoch_of_the_lowest_loss_and_last_the_newest(losses, best, tmp_path):
    run(Prescribed(losses), tmp_path, epochs=3)

    assert epoch_of(tmp_path / "best.ckpt") == best
    assert epoch_of(tmp_path / "last.ckpt") == 2
    weight = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]["weight"]
    assert weight.item() == -(best + 1)  # the weights of that epoch, not of today
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_without_the_monitored_metric_there_is_no_best(tmp_path):
    run(Prescribed([3.0, 1.0], name="val/other"), tmp_path, epochs=2)

    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_a_resumed_run_remembers_the_lowest_loss(tmp_path):
    run(Prescribed([1.0, 2.0]), tmp_path, epochs=2)
    run(Prescribed([9.0, 9.0, 1.5]), tmp_path, epochs=3, ckpt_path=tmp_path / "last.ckpt")

    assert epoch_of(tmp_path / "best.ckpt") == 0
    assert epoch_of(tmp_path / "last.ckpt") == 2
