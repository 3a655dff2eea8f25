"""The splits of a dataset as a LightningDataModule, and batches of other loaders."""

from typing import Any

import pytorch_lightning as pl
import torch

from vaelab.data import Batch, Batches, ImageData, Images, rows_at_once
from vaelab.errors import DataError
from vaelab.training.internals import batches_begun


class ImageDataModule(pl.LightningDataModule):
    """Batches of `data`, resident on the training device.

    Training starts at the batch that Lightning's progress has reached, in the order f(seed, epoch), so that a resumed
    run sees the same batches as an undisturbed one.
    """

    def __init__(self, data: ImageData, *, seed: int) -> None:
        super().__init__()
        self.data = data
        self.seed = seed

    def train_dataloader(self) -> Batches:
        """Return the training images, in a new order each epoch; every process takes its share of a batch."""
        assert self.trainer is not None
        return Batches(
            self._resident(self.data.splits.train),
            batch_size=self.data.batch_size,
            seed=self.seed,
            dynamic=self.data.binarize == "dynamic",
            augment=self.data.augment,
            position=self._position,
            device=self.trainer.strategy.root_device,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def val_dataloader(self) -> Batches:
        """Return the validation images; every process takes its share of the batches that one would have."""
        return self._evaluation(self.data.splits.validation)

    def test_dataloader(self) -> Batches:
        """Return the test images."""
        return self._evaluation(self.data.splits.test)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch as it is: `Batches` made it on the device."""
        return batch

    def _evaluation(self, images: Images) -> Batches:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        return Batches(
            self._resident(images),
            batch_size=rows_at_once(images.shape),
            device=device,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            whole=True,
        )

    def _resident(self, images: Images) -> Images:
        assert self.trainer is not None
        return images.to(self.trainer.strategy.root_device)

    def _position(self) -> tuple[int, int]:
        assert self.trainer is not None
        return divmod(batches_begun(self.trainer), int(self.trainer.num_training_batches))


def as_batch(batch: Any) -> Batch:
    """Convert a batch of our loaders or any other to what our module takes.

    Args:
        batch: a `Batch`; images (B, C, H, W), floats in [0, 1] or uint8; or images and labels (B,).

    Raises:
        DataError: it is something else.
    """
    if isinstance(batch, Batch):
        return batch
    images, labels = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (batch, None)
    if not isinstance(images, torch.Tensor) or images.ndim != 4:
        found = f"shape {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise DataError(f"a batch should be images (B, C, H, W), or those and labels (B,); found {found}")
    images = images if images.is_floating_point() else images.float().div(255)
    return Batch(images, torch.zeros(len(images), dtype=torch.int64) if labels is None else labels)
