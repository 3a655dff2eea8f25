"""A batch under a model: what all terms of a loss share, computed once."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.priors import StandardNormal
from vaelab.models.schedules import Schedule, at
from vaelab.seeding import standard_normal_like


@dataclass(eq=False)
class Step:
    """A batch of images under a model, in training or in an evaluation.

    Args:
        model: the autoencoder.
        x: images (B, C, H, W).
        y: their labels (B,), which a conditional model takes.
        number: the optimizer's step, which schedules read.
        training: whether it is a step of training. An evaluation takes weights at their final values and nothing that
            serves training alone, such as free bits or the corruption of images.
        dataset_size: images in the training split; None where that is not known.
    """

    model: Autoencoder
    x: Tensor
    y: Tensor | None = None
    _: KW_ONLY
    number: int = 0
    training: bool = True
    dataset_size: int | None = None

    def __post_init__(self) -> None:
        """Give the encoder the images themselves; in training an objective may replace them by a corruption."""
        self.seen = self.x
        self.loss_before = self.x.new_zeros(())  # the loss without the term that is asked for its contribution, so far

    @cached_property
    def q(self) -> Distribution:
        """q(z|x): batch (B,), event (Z,)."""
        return self.model.encode(self.seen, self.y)

    @cached_property
    def z(self) -> Tensor:
        """A sample of q(z|x) for each image, (B, Z)."""
        return self.q.rsample()

    @cached_property
    def p_x(self) -> Distribution:
        """p(x|z): batch (B,), event (C, H, W)."""
        return self.model.decode(self.z, self.y)

    @cached_property
    def p_z(self) -> Distribution:
        """p(z): batch (), event (Z,); of a conditional prior, p(z|y): batch (B,)."""
        return self.model.p_z(self.y)  # `Objective.requires` refuses a model without one

    def sample_prior(self) -> Tensor:
        """Samples of p(z), as many as images, (B, Z).

        Samples of N(0, I) do not depend on how many processes share the batch, those of other priors do.
        """
        if isinstance(self.model.prior, StandardNormal):
            return standard_normal_like(self.model.prior.zero.expand(len(self.x), -1))
        return self.p_z.sample(torch.Size([len(self.x)]))

    @cached_property
    def reconstruction(self) -> Tensor:
        """-log p(x|z) in nats, the mean over the batch."""
        return -self.p_x.log_prob(self.x).mean()

    @cached_property
    def kl_per_dimension(self) -> Tensor:
        """KL(q(z_j|x) || p(z_j)) in nats, the mean over the batch for each dimension, (Z,)."""
        return kl_per_dimension(self.q, self.p_z).mean(0)

    def kl(self, estimator: str = "closed_form") -> Tensor:
        """KL(q(z|x) || p(z)) in nats, the mean over the batch; `monte_carlo` is log q(z|x) - log p(z) at z."""
        if estimator == "monte_carlo":
            return (self.q.log_prob(self.z) - self.p_z.log_prob(self.z)).mean()
        return kl_divergence(self.q, self.p_z).mean()

    def weight(self, weight: float | Schedule) -> float:
        """A weight at this step; its final value in an evaluation."""
        return at(weight, self.number if self.training else float("inf"))


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor:
    """KL(q_j || p_j) of each latent dimension in nats, (B, Z), of posteriors with independent dimensions.

    Raises:
        ValueError: q or p is not a product over its dimensions.
    """
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        raise ValueError("the KL splits into dimensions only where posterior and prior are products over them")
    return kl_divergence(q.base_dist, p.base_dist)
