"""Exponential moving average of the weights, evaluated in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vaelab.training.module import AutoencoderModule

RAW = "raw_weights"  # the trained weights in a checkpoint, whose state_dict has the averaged ones
PREFIX = "model."


class Averaging(pl.Callback):
    """Average the weights of the model over the steps of the optimizer (Polyak & Juditsky 1992), exponentially.

        average = d_t average + (1 - d_t) weights,   d_t = min(decay, (1 + t) / (10 + t))

    after step t. The small d_t of the first steps forgets the weights before training. Averaged are the model's
    parameters that have a gradient, and the running mean and variance of batch normalization, which depend on them.
    Everything else is taken from the last step, such as codebooks and scales that are moving averages themselves.
    Critics are not averaged. The average is in float32 if the weights have a lower precision.

    Validation, pictures and `state_dict` in every checkpoint, and so the test and `vaelab.load`, have the averaged
    weights. Training continues from the trained ones, which a checkpoint has as `raw_weights`, and has the same bits
    with and without this callback.

    Args:
        decay: d; the average is over about 1 / (1 - d) steps.
    """

    def __init__(self, *, decay: float) -> None:
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._step = 0  # that the average is of
        self._weights: dict[str, Tensor] = {}  # those that are trained, by name
        self._trained: dict[str, Tensor] | None = None  # the weights while the average replaces them

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average, and put the trained weights back in its place.

        Raises:
            ValueError: the checkpoint does not have the trained weights of this model beside the average.
        """
        raw, own = checkpoint.get(RAW), _averaged(pl_module)
        if not isinstance(raw, Mapping) or raw.keys() != own.keys():
            raise ValueError("it does not have the trained weights beside the averaged ones")
        self._average = {name: checkpoint["state_dict"][PREFIX + name] for name in own}
        pl_module.load_state_dict({PREFIX + name: weight for name, weight in raw.items()}, strict=False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average from the weights, on the training device."""
        for name, weight in _averaged(pl_module).items():
            dtype = torch.promote_types(weight.dtype, torch.float32)
            self._average[name] = self._average.get(name, weight.detach().clone()).to(weight.device, dtype)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue from the checkpoint's step."""
        self._step, self._weights = trainer.global_step, _averaged(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after a step of the optimizer, not after a batch whose gradients accumulate."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        average = [self._average[name] for name in self._weights]
        weights = [
            weight if weight.dtype == mean.dtype else weight.detach().to(mean.dtype)
            for weight, mean in zip(self._weights.values(), average, strict=True)
        ]
        get_ema_multi_avg_fn(decay)(average, weights, self._step)  # type: ignore[no-untyped-call]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the weights by the average."""
        if self._average:  # of a fit
            self._exchange(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the weights."""
        if self._trained is not None:
            self._restore(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the model."""
        _copy(self._average, _averaged(pl_module))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the state_dict, and the weights beside it."""
        state = checkpoint["state_dict"]
        checkpoint[RAW] = {name: state[PREFIX + name] for name in self._average}
        state.update({PREFIX + name: average for name, average in self._average.items()})

    def _exchange(self, pl_module: pl.LightningModule) -> None:
        self._trained = {name: weight.detach().clone() for name, weight in _averaged(pl_module).items()}
        _copy(self._average, _averaged(pl_module))

    def _restore(self, pl_module: pl.LightningModule) -> None:
        assert self._trained is not None
        _copy(self._trained, _averaged(pl_module))
        self._trained = None

    @contextmanager
    def in_place(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """Use the averaged weights in this block."""
        self._exchange(pl_module)
        try:
            yield
        finally:
            self._restore(pl_module)


@contextmanager
def evaluated_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """Use the weights that are evaluated: the averaged ones, if they are averaged."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, Averaging)]  # type: ignore[attr-defined]
    if not found:
        yield
        return
    with found[0].in_place(pl_module):
        yield


def _averaged(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """Return the model's tensors that are averaged, by name."""
    assert isinstance(pl_module, AutoencoderModule)
    model = pl_module.model
    tensors: dict[str, Tensor] = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for place, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            tensors |= {f"{place}.running_mean": module.running_mean, f"{place}.running_var": module.running_var}
    return tensors


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
