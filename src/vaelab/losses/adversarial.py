"""Objectives with an adversary: a discriminator of latents, trained beside the autoencoder by an optimizer of its own.

Called as any objective they give what an evaluation reports, which has no discriminator in it: its opinion is not
comparable from one step to another. `against(model, discriminator, x, step)` gives what a training step minimises.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaelab.losses.objective import Objective, Terms
from vaelab.losses.regularizers import total_correlation
from vaelab.losses.requirements import (
    require_closed_form,
    require_density,
    require_independent_dimensions,
    require_one_space,
)
from vaelab.losses.schedules import Schedule, Weight, at
from vaelab.models.autoencoder import Autoencoder

Part = Callable[..., Any]
Discriminator = Callable[[Tensor], Tensor]  # latents (B, Z) -> logits (B,)


@runtime_checkable
class Adversarial(Objective, Protocol):
    """An objective that is trained against a discriminator."""

    discriminator: Part  # Z -> the discriminator, a module
    discriminator_optimizer: Part  # its parameters -> their optimizer

    def against(self, model: Autoencoder, discriminator: Discriminator, x: Tensor, step: float) -> tuple[Terms, Tensor]:
        """The autoencoder's loss and terms, and the loss of the discriminator, which leaves the model alone."""


class FactorVAE:
    """loss = E_q[-log p(x|z)] + KL(q(z|x) || p(z)) + tc_weight * TC(z) (Kim & Mnih 2018, equation 2).

    TC(z) = E_q[log D(z) - log(1 - D(z))], D the discriminator's probability that z is a sample of q(z) rather than of
    prod_j q(z_j), of which permuting each dimension over the batch makes samples (their algorithm 1, which permutes a
    second batch; this one permutes the same, and costs half). Evaluation estimates it from the batch instead, as for
    beta-TCVAE.

    Args:
        tc_weight: gamma, a number or a schedule of the optimizer's step.
        discriminator: Z -> D.
        discriminator_optimizer: its parameters -> their optimizer.
    """

    def __init__(
        self, *, tc_weight: Weight | Schedule = 10.0, discriminator: Part, discriminator_optimizer: Part
    ) -> None:
        self.tc_weight = tc_weight
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without a KL in closed form, or whose posterior is no product over its dimensions."""
        require_density("factor_vae", model)
        require_closed_form(model, "posterior=gaussian with prior=standard_normal has one")
        require_independent_dimensions("objective=factor_vae", model)

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction`, `kl` and `total_correlation`, as an evaluation has them."""
        assert model.prior is not None  # `requires` saw to it
        q = model.encode(x)
        z = q.rsample()
        kl = kl_divergence(q, model.prior()).mean()
        return self._terms(-model.decode(z).log_prob(x).mean(), kl, total_correlation(q, z), step)

    def against(self, model: Autoencoder, discriminator: Discriminator, x: Tensor, step: float) -> tuple[Terms, Tensor]:
        """The same with the discriminator's estimate, its loss as the term `discriminator`."""
        assert model.prior is not None
        q = model.encode(x)
        z = q.rsample()
        kl = kl_divergence(q, model.prior()).mean()
        terms = self._terms(-model.decode(z).log_prob(x).mean(), kl, discriminator(z).mean(), step)
        loss = telling_apart(discriminator, z.detach(), permuted(z.detach()))
        return terms | {"discriminator": loss}, loss

    def _terms(self, reconstruction: Tensor, kl: Tensor, correlation: Tensor, step: float) -> dict[str, Tensor]:
        loss = reconstruction + kl + at(self.tc_weight, step) * correlation
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl, "total_correlation": correlation}


class AdversarialAutoencoder:
    """loss = E_q[-log p(x|z)] + adversarial_weight * E_q[-log D(z)] (Makhzani et al. 2015, section 2).

    D is the discriminator's probability that z is a sample of p(z) rather than of q(z). The paper's two phases for the
    autoencoder are one step here. An evaluation reports the reconstruction alone.

    Args:
        adversarial_weight: a number, or a schedule of the optimizer's step.
        discriminator: Z -> D.
        discriminator_optimizer: its parameters -> their optimizer.
    """

    def __init__(
        self, *, adversarial_weight: Weight | Schedule = 10.0, discriminator: Part, discriminator_optimizer: Part
    ) -> None:
        self.adversarial_weight = adversarial_weight
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without a prior to draw samples of."""
        if model.prior is None:
            raise ValueError("objective=adversarial needs a prior to draw samples of: prior=standard_normal")
        require_one_space(model)
        if isinstance(model.prior, nn.Module) and any(True for _ in model.prior.parameters()):
            raise ValueError(
                "objective=adversarial brings the posterior to the prior, and would not train the prior itself: "
                "prior=standard_normal"
            )

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss` and `reconstruction`, the same number, as an evaluation has them."""
        reconstruction = -model.decode(model.encode(x).rsample()).log_prob(x).mean()
        return {"loss": reconstruction, "reconstruction": reconstruction}

    def against(self, model: Autoencoder, discriminator: Discriminator, x: Tensor, step: float) -> tuple[Terms, Tensor]:
        """The loss, with the terms `adversarial` and `discriminator`."""
        assert model.prior is not None
        z = model.encode(x).rsample()
        reconstruction = -model.decode(z).log_prob(x).mean()
        adversarial = F.softplus(-discriminator(z)).mean()
        loss = telling_apart(discriminator, model.prior().sample(torch.Size([len(z)])), z.detach())
        terms = {
            "loss": reconstruction + at(self.adversarial_weight, step) * adversarial,
            "reconstruction": reconstruction,
            "adversarial": adversarial,
            "discriminator": loss,
        }
        return terms, loss


def telling_apart(discriminator: Discriminator, positive: Tensor, negative: Tensor) -> Tensor:
    """-(log D(positive) + log(1 - D(negative))) / 2 in nats, the mean over the batch: log 2 for one that cannot."""
    return (F.softplus(-discriminator(positive)) + F.softplus(discriminator(negative))).mean() / 2


def permuted(z: Tensor) -> Tensor:
    """Each dimension of z (B, Z) in an order over the batch of its own (Kim & Mnih 2018, algorithm 1)."""
    return z.gather(0, torch.rand_like(z).argsort(0))
