"""Terms that compare q(z|x) or q(z) with p(z), or q(z) with the product of its dimensions."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.losses.needs import (
    need_closed_form,
    need_density,
    need_density_of_samples,
    need_independent_dimensions,
    need_prior,
)
from vaelab.losses.objective import Term
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.parts import UnsuitableError
from vaelab.models.priors import StandardNormal
from vaelab.models.schedules import Schedule, Weight

KLEstimator = Literal["closed_form", "monte_carlo"]
Estimator = Literal["stratified", "weighted"]
Kernel = Literal["imq", "rbf"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class KL(Term):
    """KL(q(z|x) || p(z)) in nats an image (Kingma & Welling 2014, equation 3).

    Args:
        weight: beta.
        free_bits: nats that each latent dimension may carry without a penalty: the loss then takes
            sum_j max(free_bits, mean over the batch of KL_j) (Kingma et al. 2016, section 7).
        capacity: C in nats, a number or a schedule: the loss then takes |KL - C|, with the KL's mean over the batch
            (Burgess et al. 2018, equation 8).
        kl: `closed_form`, or `monte_carlo`: log q(z|x) - log p(z) at the sampled z.

    Raises:
        ValueError: free_bits without a closed form, or with a capacity.
    """

    uses_prior = True

    def __init__(
        self,
        *,
        weight: Weight | Schedule = 1.0,
        free_bits: Weight = 0.0,
        capacity: Weight | Schedule | None = None,
        kl: KLEstimator = "closed_form",
    ) -> None:
        super().__init__(weight=weight)
        if free_bits > 0 and (kl != "closed_form" or capacity is not None):
            raise ValueError("free_bits needs the KL of each dimension: kl=closed_form, and no capacity")
        self.free_bits, self.capacity, self.kl = free_bits, capacity, kl
        self.couples_images = free_bits > 0 or capacity is not None

    def requires(self, model: Autoencoder) -> None:
        need_density(model)
        if self.kl == "monte_carlo":
            need_density_of_samples(model)
        else:
            fewer = " and free_bits=0" if self.free_bits > 0 else ""
            need_closed_form(model, f"estimate it by samples, kl=monte_carlo{fewer}")
        if self.free_bits > 0:
            need_independent_dimensions(model)

    def forward(self, step: Step) -> Tensor:
        return step.kl_per_dimension.sum() if self.free_bits > 0 and step.training else step.kl(self.kl)

    def contribution(self, step: Step, value: Tensor) -> Tensor:
        if self.free_bits > 0 and step.training:
            value = step.kl_per_dimension.clamp(min=self.free_bits).sum()
        elif self.capacity is not None:
            value = (value - step.weight(self.capacity)).abs()
        return super().contribution(step, value)


class TotalCorrelation(Term):
    """KL(q(z) || prod_j q(z_j)) in nats, q(z) = 1/N sum_n q(z|x_n) over the dataset (Chen et al. 2018, equation 2).

    With the term kl at weight 1 and this one at beta - 1, the loss is beta-TCVAE's for alpha = gamma = 1. It is
    estimated from a batch, see `total_correlation`. The estimate knows q(z) by its batch alone: at the information
    that an image usually has in z it is far above the truth (7.8, 13.8, 22.1 nats at a KL of 18, 24, 32 where the truth
    is 0, for 128 of 55,000 images), and its gradient pushes against information too. An evaluation therefore takes
    `moment_matched_total_correlation`, as `gaussian_tc`.

    Args:
        weight: beta - 1.
        estimator: of q(z) from a batch.
    """

    couples_images = True
    evaluated_as = "gaussian_tc"

    def __init__(self, *, weight: Weight | Schedule = 5.0, estimator: Estimator = "stratified") -> None:
        super().__init__(weight=weight)
        self.estimator = estimator

    def requires(self, model: Autoencoder) -> None:
        need_independent_dimensions(model)

    def forward(self, step: Step) -> Tensor:
        return total_correlation(step.q, step.z, images=step.dataset_size, estimator=self.estimator)

    def evaluate(self, step: Step) -> Tensor:
        return moment_matched_total_correlation(step.q)


class MMD(Term):
    """The maximum mean discrepancy between q(z) and p(z) (WAE-MMD, Tolstikhin et al. 2018, algorithm 2; no nats).

    MMD^2 = E k(z, z') + E k(p, p') - 2 E k(z, p), from as many samples of the prior as there are images, unbiased, so
    that it may be below zero. The kernel is a sum over `scales`, c = 2 Z scale: c / (c + d^2) (`imq`) or
    exp(-d^2 / c) (`rbf`), d the distance. 2 Z is the mean squared distance between two samples of N(0, I).

    Args:
        weight: lambda; for a WAE whose cost is the squared error and loss=mse, lambda / (2 loss.scale^2).
        kernel: `imq`, the inverse multiquadratic, or `rbf`.
        scales: of the kernels that are added up.
    """

    couples_images = True
    uses_prior = True

    def __init__(
        self,
        *,
        weight: Weight | Schedule = 500.0,
        kernel: Kernel = "imq",
        scales: Annotated[list[Positive], Field(min_length=1)] | None = None,
    ) -> None:
        super().__init__(weight=weight)
        self.kernel, self.scales = kernel, scales or list(SCALES)

    def requires(self, model: Autoencoder) -> None:
        need_prior(model)
        assert model.prior is not None
        if any(True for _ in model.prior.parameters()) and not model.prior().has_rsample:
            message = "it knows the prior by its samples, and those of {} pass no gradients to it"
            raise UnsuitableError(message, model.prior, fits=[StandardNormal])

    def forward(self, step: Step) -> Tensor:
        return mmd_to_prior(step, self.kernel, self.scales)


def mmd_to_prior(step: Step, kernel: Kernel = "imq", scales: list[Positive] | None = None) -> Tensor:
    """The unbiased MMD^2 between a batch's z and as many samples of p(z)."""
    p, size = step.p_z, torch.Size([len(step.z)])
    drawn = p.rsample(size) if p.has_rsample else p.sample(size)
    return mmd(step.z, drawn, kernel=kernel, scales=scales or list(SCALES))


def total_correlation(
    q: Distribution, z: Tensor, *, images: int | None = None, estimator: Estimator = "stratified"
) -> Tensor:
    """An estimate of KL(q(z) || prod_j q(z_j)) in nats, from q(z|x) of a batch of B images and a sample z (B, Z) of it.

    q(z_i) is estimated as sum_n w_in q(z_i|x_n) over the batch, and in the same way q(z_ij) for each dimension j, N the
    dataset's size:

    `stratified`: w_ii = 1/N, the weight that the image's own posterior has in q(z), and all others alike: (1 - 1/N) /
    (B - 1). The expectation of the weighted sum is q(z), and the value is exact for B = N; below, the logarithms leave
    it too high. It is the stratified estimate of Chen et al. (2018, appendix C.2), which gives one image of the batch
    an odd weight, averaged over which one it is.

    `weighted`: w_in = 1/(N B) (their minibatch-weighted sampling), whose expectation is not q(z): values
    are off by about (Z - 1) log N, gradients less so.

    Args:
        q: with independent dimensions.
        z: a sample of it.
        images: N; by default B: the batch is the dataset.
        estimator: `stratified` or `weighted`.

    Raises:
        ValueError: q is not a product over the dimensions of z.
    """
    if not isinstance(q, Independent):
        raise ValueError("the total correlation needs a posterior that is a product over its dimensions")
    log_q = q.base_dist.log_prob(z[:, None])  # (B, B, Z): [i, n, j] = log q(z_ij|x_n)
    batch = len(z)
    images = max(images or batch, batch)
    if estimator == "weighted":
        weights = z.new_full((batch, batch), 1 / (images * batch))
    elif batch == 1:
        weights = z.new_ones(1, 1)
    else:
        weights = z.new_full((batch, batch), (1 - 1 / images) / (batch - 1)).fill_diagonal_(1 / images)
    log_weights = weights.log()  # (B, B)
    joint = (log_q.sum(-1) + log_weights).logsumexp(1)  # (B,)
    marginals = (log_q + log_weights[..., None]).logsumexp(1).sum(-1)  # (B,)
    correlation: Tensor = (joint - marginals).mean()
    return correlation


def moment_matched_total_correlation(q: Distribution) -> Tensor:
    """The total correlation of the Gaussian with q(z)'s covariance: (sum_j log C_jj - log det C) / 2 in nats.

    C = cov(means) + mean(variances) over the B images is the covariance of q(z) = 1/B sum_n q(z|x_n). Of independent
    dimensions it is 0 but for the means' chance correlations, whose expectation to first order in 1/B,
    sum_{i<j} r_i r_j / (2 B) with r_j = var(means_j) / C_jj, is taken off. What is left of the bias grows where images
    are not many times the dimensions: for 20 independent ones at 32 nats it is 0.001, 0.07, 0.32 and 2.3 nats of 1,000,
    100, 50 and 20 images.
    Nonlinear dependence is not measured.

    Args:
        q: posteriors with independent dimensions, batch (B,), event (Z,).
    """
    means, variances = q.mean.double(), q.variance.double().mean(0)  # (B, Z), (Z,)
    centred = means - means.mean(0)
    covariance = centred.T @ centred / len(means)
    share = covariance.diagonal() / (covariance.diagonal() + variances)  # (Z,)
    covariance = covariance + variances.diag()
    scale = covariance.diagonal().sqrt()
    correlation = covariance / (scale[:, None] * scale)
    by_chance = (share.sum().square() - share.square().sum()) / (4 * len(means))
    total: Tensor = -0.5 * torch.linalg.slogdet(correlation).logabsdet - by_chance
    return total.to(q.mean)


def mmd(a: Tensor, b: Tensor, *, kernel: Kernel, scales: list[Positive], unbiased: bool = True) -> Tensor:
    """The squared maximum mean discrepancy of samples a and b, both (N, Z) (Gretton et al. 2012, equations 3 and 5).

    Args:
        a: of one distribution.
        b: of the other.
        kernel: see `MMD`.
        scales: see `MMD`.
        unbiased: leave out each sample's similarity to itself; else the distance between the two sets as they are,
            which is 0 where they are the same.
    """
    n, size = a.shape

    def similarity(one: Tensor, other: Tensor) -> Tensor:
        distance = (one[:, None] - other).square().sum(-1)  # (N, N)
        spreads = [2 * size * scale for scale in scales]
        if kernel == "imq":
            return torch.stack([c / (c + distance) for c in spreads]).sum(0)
        return torch.stack([(-distance / c).exp() for c in spreads]).sum(0)

    within = similarity(a, a) + similarity(b, b)
    if not unbiased:
        return within.mean() - 2 * similarity(a, b).mean()
    apart = within.sum() - within.diagonal().sum()
    return apart / max(n * (n - 1), 1) - 2 * similarity(a, b).mean()
