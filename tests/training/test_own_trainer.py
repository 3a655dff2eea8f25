"""Our module under somebody else's Trainer, on somebody else's batches."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

import vaelab
from vaelab.config.check import check
from vaelab.training.datamodule import ImageDataModule, as_batch
from vaelab.training.module import AutoencoderModule

SETTINGS = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def module_of(*overrides: str) -> tuple[AutoencoderModule, ImageDataModule]:
    experiment = check(vaelab.compose(["data=digits", "encoder.hidden=[8]", "decoder.hidden=[8]", *overrides]))
    parts = experiment.model(), experiment.objective, experiment.optimizer, experiment.scheduler
    return AutoencoderModule(*parts, seed=experiment.seed), ImageDataModule(experiment.data, seed=experiment.seed)


def test_a_trainer_of_ones_own_trains_our_module_on_our_data() -> None:
    module, data = module_of("+scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau")
    trainer = pl.Trainer(**SETTINGS, limit_train_batches=3, num_sanity_val_steps=0, use_distributed_sampler=False)
    trainer.fit(module, data)
    assert trainer.global_step == 3
    assert {"train/loss", "val/elbo"} <= set(trainer.callback_metrics)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_batches_of_images_and_labels_from_a_loader_of_ones_own_train_our_module() -> None:
    module, _ = module_of("model=conditional_vae")
    images, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    trainer = pl.Trainer(**SETTINGS)
    trainer.fit(module, loader, loader)
    assert trainer.global_step == 3
    assert torch.isfinite(trainer.callback_metrics["val/elbo"])


def test_a_batch_of_bytes_is_scaled_and_another_shape_refused() -> None:
    batch = as_batch(torch.full((2, 1, 3, 3), 255, dtype=torch.uint8))
    assert batch.images.eq(1).all()
    assert batch.labels.tolist() == [0, 0]
    with pytest.raises(vaelab.DataError, match=r"images \(B, C, H, W\).*found shape \(2, 3\)"):
        as_batch(torch.zeros(2, 3))
