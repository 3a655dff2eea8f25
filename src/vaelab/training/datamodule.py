"""The splits of a dataset as Lightning takes them."""

import pytorch_lightning as pl
import torch

from vaelab.data import Batch, Batches, ImageData, Images, rows_at_once


class ImageDataModule(pl.LightningDataModule):
    """Batches of `data`, resident on the device that trains.

    Training starts at the batch where Lightning's progress stands, in the order of f(seed, epoch), so that a
    resumed run sees what an undisturbed one would have seen.
    """

    def __init__(self, data: ImageData, *, seed: int) -> None:
        super().__init__()
        self.data = data
        self.seed = seed

    def train_dataloader(self) -> Batches:
        """The training images, in an order of their own each epoch; every process takes its share of a batch."""
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
        """The validation images: all of them in every process, so that the number of processes changes nothing."""
        return self._evaluation(self.data.splits.validation)

    def test_dataloader(self) -> Batches:
        """The test images."""
        return self._evaluation(self.data.splits.test)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch as it is: `Batches` made it there."""
        return batch

    def _evaluation(self, images: Images) -> Batches:
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        return Batches(self._resident(images), batch_size=rows_at_once(images.shape), device=device)

    def _resident(self, images: Images) -> Images:
        assert self.trainer is not None
        return images.to(self.trainer.strategy.root_device)

    def _position(self) -> tuple[int, int]:
        assert self.trainer is not None
        # `ready` counts the batches that were started, in all epochs; it is part of Lightning's checkpoints.
        ready = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        return divmod(ready, int(self.trainer.num_training_batches))
