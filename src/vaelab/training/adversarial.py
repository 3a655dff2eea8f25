"""The LightningModule of autoencoders that are trained against a discriminator."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from vaelab.data import Batch
from vaelab.losses import Adversarial, Objective
from vaelab.losses.requirements import option
from vaelab.models.autoencoder import Autoencoder
from vaelab.seeding import derive_seed, seed_noise
from vaelab.training.learning_rate import FactorOf, TorchSchedule, step_after_batch
from vaelab.training.module import AutoencoderModule, OptimizerOf


class AdversarialModule(AutoencoderModule):
    """Minimises an `Adversarial` objective over the model, and the discriminator's loss over the discriminator.

    Both take one step a batch, from the same latents; the discriminator's is not counted, so that the optimizer's step
    means the same as everywhere. All else, noise, logging and evaluation, is as in `AutoencoderModule`. The
    discriminator's first weights are f(seed).
    """

    optimizers_kept = 2
    objective: Adversarial

    def __init__(
        self,
        model: Autoencoder,
        objective: Adversarial,
        optimizer: OptimizerOf,
        scheduler: FactorOf | TorchSchedule | None = None,
        *,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        super().__init__(model, objective, optimizer, scheduler, seed=seed, log_every=log_every)
        self.automatic_optimization = False
        torch.manual_seed(derive_seed(seed, "discriminator"))
        self.discriminator = objective.discriminator(model.posterior.latent_dim)

    def configure_optimizers(self) -> Any:
        """The autoencoder's optimizer with its schedule, and the discriminator's."""
        own = super().configure_optimizers()
        others = {"optimizer": self.objective.discriminator_optimizer(self.discriminator.parameters())}
        return own, others

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """A step of the autoencoder, then one of the discriminator, under the noise of the batch's number."""
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        seed_noise(self.device, derive_seed(self.seed, "noise", number))
        step = self.global_step
        model = self.model.given(batch.labels)
        terms, discriminator_loss = self.objective.against(model, self.discriminator, batch.images, step)
        optimizer, _ = self.optimizers()  # type: ignore[attr-defined]
        _, others = self.optimizers(use_pl_optimizer=False)  # type: ignore[misc]  # which are not counted
        optimizer.zero_grad()
        self.manual_backward(terms["loss"])
        optimizer.step()
        others.zero_grad()  # what the autoencoder's loss left there
        self.manual_backward(discriminator_loss)
        others.step()
        step_after_batch(self.trainer)
        self._window.add(terms, len(batch.images), step)
        return terms["loss"].detach()


def module_for(objective: Objective) -> Callable[..., AutoencoderModule]:
    """The LightningModule that trains such an objective."""
    return AdversarialModule if isinstance(objective, Adversarial) else AutoencoderModule


def why_not_trained_by(trainer: pl.Trainer, objective: Objective, likelihood: object) -> str | None:
    """Which setting of the trainer an objective with this likelihood cannot have; None where it can have them all."""
    name = type(objective).__name__
    if trainer.world_size > 1 and (isinstance(objective, Adversarial) or _couples_images(objective)):
        return _shared(f"objective: {name}", trainer.world_size)
    if trainer.world_size > 1 and _couples_images(likelihood):
        return _shared(f"loss={option(likelihood)}", trainer.world_size)
    if not isinstance(objective, Adversarial):
        return None
    settings = {
        "gradient_clip_val": (trainer.gradient_clip_val, None),
        "accumulate_grad_batches": (trainer.accumulate_grad_batches, 1),
    }
    for setting, (value, needed) in settings.items():
        if value != needed:
            return (
                f"trainer.{setting}={value} does not go with an objective of two optimizers, {name}: "
                f"trainer.{setting}={'null' if needed is None else needed}"
            )
    if trainer.precision == "16-mixed":
        return (
            f"trainer.precision=16-mixed does not go with an objective of two optimizers, {name}: bf16-mixed or 32-true"
        )
    return None


def _couples_images(part: object) -> bool:
    return bool(getattr(part, "couples_images", False))


def _shared(part: str, processes: int) -> str:
    return (
        f"{part} looks at all images of a batch together, which {processes} processes do not see: "
        "trainer.devices=1 trainer.num_nodes=1"
    )
