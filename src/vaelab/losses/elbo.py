"""The reconstruction term alone, and the evidence lower bound with its weights."""

import math
from typing import Literal

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.losses.objective import Terms
from vaelab.losses.requirements import (
    require_closed_form,
    require_density,
    require_density_of_samples,
    require_independent_dimensions,
)
from vaelab.losses.schedules import Schedule, Weight, at
from vaelab.models.autoencoder import Autoencoder

KLEstimator = Literal["closed_form", "monte_carlo"]


class Reconstruction:
    """loss = E_q[-log p(x|z)]: the reconstruction term, and no regularizer."""

    def requires(self, model: Autoencoder) -> None:
        """Refuse a prior that would be drawn from though nothing was trained against it."""
        if model.prior is not None:
            raise ValueError(
                "objective=reconstruction trains nothing against a prior, yet the model has one: "
                "take objective=elbo, or drop it with ~prior"
            )

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss` and `reconstruction`, the same number."""
        reconstruction = -model.decode(model.encode(x).rsample()).log_prob(x).mean()
        return {"loss": reconstruction, "reconstruction": reconstruction}


class ELBO:
    """loss = E_q[-log p(x|z)] + kl_weight(step) * KL(q(z|x) || p(z)), with one sample of z an image.

    With kl_weight 1 it is the negative evidence lower bound (Kingma & Welling 2014, equation 3); another
    constant gives the beta-VAE (Higgins et al. 2017, equation 4).

    Args:
        kl_weight: a number, or a schedule of the optimizer's step.
        free_bits: nats that each latent dimension may carry without being pushed: the loss then takes
            sum_j max(free_bits, mean over the batch of KL_j) (the free bits of Kingma et al. 2016).
        kl: `closed_form`, or `monte_carlo`: log q(z|x) - log p(z) at the sampled z.
    """

    def __init__(
        self,
        *,
        kl_weight: Weight | Schedule = 1.0,
        free_bits: Weight = 0.0,
        kl: KLEstimator = "closed_form",
    ) -> None:
        if free_bits > 0 and kl != "closed_form":
            raise ValueError("free_bits needs the KL of each dimension: kl=closed_form")
        self.kl_weight = kl_weight
        self.free_bits = free_bits
        self.kl = kl

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model whose KL is infinite, has nothing to be taken against, or cannot be taken so."""
        require_density("elbo", model)
        if self.kl == "monte_carlo":
            require_density_of_samples("objective.kl=monte_carlo", model)
        else:
            require_closed_form(model, "objective.kl=monte_carlo")
        if self.free_bits > 0:
            require_independent_dimensions("objective.free_bits", model)

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        assert model.prior is not None  # `requires` saw to it
        q, p = model.encode(x), model.prior()
        z = q.rsample()  # (B, Z)
        reconstruction = -model.decode(z).log_prob(x).mean()
        penalised = None
        if self.kl == "monte_carlo":
            kl = (q.log_prob(z) - p.log_prob(z)).mean()
        elif self.free_bits > 0:
            kl_of_dimension = kl_per_dimension(q, p).mean(0)  # (Z,)
            kl = kl_of_dimension.sum()
            penalised = kl_of_dimension.clamp(min=self.free_bits).sum()
        else:
            kl = kl_divergence(q, p).mean()
        if penalised is None or step == math.inf:
            penalised = kl
        loss = reconstruction + at(self.kl_weight, step) * penalised
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


class Capacity:
    """loss = E_q[-log p(x|z)] + kl_weight * |KL(q(z|x) || p(z)) - capacity(step)| (Burgess et al. 2018, equation 8).

    The KL is held at a number of nats that grows while training runs, rather than pushed to zero.

    Args:
        kl_weight: gamma.
        capacity: C in nats, a number or a schedule of the optimizer's step.
    """

    def __init__(self, *, kl_weight: Weight = 100.0, capacity: Weight | Schedule = 25.0) -> None:
        self.kl_weight = kl_weight
        self.capacity = capacity

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model whose KL is infinite, has nothing to be taken against, or no closed form."""
        require_density("capacity", model)
        require_closed_form(model, "posterior=gaussian with prior=standard_normal has one")

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        assert model.prior is not None  # `requires` saw to it
        q = model.encode(x)
        reconstruction = -model.decode(q.rsample()).log_prob(x).mean()
        kl = kl_divergence(q, model.prior()).mean()
        loss = reconstruction + self.kl_weight * (kl - at(self.capacity, step)).abs()
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor:
    """KL(q_j || p_j) of each latent dimension in nats, (B, Z), of posteriors with independent dimensions.

    Raises:
        ValueError: q or p is not a product over its dimensions.
    """
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        raise ValueError("the KL splits into dimensions only where posterior and prior are products over them")
    return kl_divergence(q.base_dist, p.base_dist)
