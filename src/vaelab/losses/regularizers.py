"""Regularizers: what an objective adds to the reconstruction term, each times its `weight`.

One is called as `regularizer(model, x, q, z, step)` with images x (B, C, H, W), q = q(z|x), a sample z (B, Z) of it
and the optimizer's step, `math.inf` in evaluation, and returns a scalar. Its `weight` is a number or a schedule.
`couples_images` says that it is no mean over the images of a batch, so that processes which share one cannot compute
it; `uses_prior` that p(z) is trained or matched by it; `differentiates_twice`, where it is there, that its value is
made of gradients. `requires(model)` says with a ValueError that a model cannot
have it.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.losses.requirements import (
    kinds,
    option,
    require_closed_form,
    require_density,
    require_density_of_samples,
    require_independent_dimensions,
    require_one_space,
)
from vaelab.losses.schedules import Schedule, Weight
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.precision import full_precision
from vaelab.seeding import rademacher_like

Estimator = Literal["stratified", "weighted"]
Kernel = Literal["imq", "rbf"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, lt=1)]


@runtime_checkable
class Regularizer(Protocol):
    """A penalty on what a model makes of a batch of images."""

    weight: Weight | Schedule
    couples_images: bool
    uses_prior: bool

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The penalty, a scalar, without its weight."""

    def requires(self, model: Autoencoder) -> None:
        """Raise ValueError where `model` cannot have it."""


class KL:
    """KL(q(z|x) || p(z)) in nats an image (Kingma & Welling 2014, equation 3).

    Args:
        weight: beta.
        kl: `closed_form`, or `monte_carlo`: log q(z|x) - log p(z) at the sampled z.
    """

    couples_images = False
    uses_prior = True

    def __init__(
        self, *, weight: Weight | Schedule = 1.0, kl: Literal["closed_form", "monte_carlo"] = "closed_form"
    ) -> None:
        self.weight = weight
        self.kl = kl

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model whose KL is infinite, has nothing to be taken against, or no closed form."""
        require_density("regularized with the regularizer kl", model)
        if self.kl == "closed_form":
            require_closed_form(model, "objective.regularizers.kl.kl=monte_carlo")
        else:
            require_density_of_samples("objective.regularizers.kl.kl=monte_carlo", model)

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """Nats, the mean over the batch."""
        assert model.prior is not None  # `requires` saw to it
        p = model.prior()
        if self.kl == "monte_carlo":
            return (q.log_prob(z) - p.log_prob(z)).mean()
        return kl_divergence(q, p).mean()


class TotalCorrelation:
    """KL(q(z) || prod_j q(z_j)) in nats, q(z) = 1/N sum_n q(z|x_n) over the dataset (Chen et al. 2018, equation 2).

    With the regularizer kl at weight 1 and this one at beta - 1, the loss is beta-TCVAE's for alpha = gamma = 1. N is
    the number of training images in training; elsewhere the batch is the dataset.

    Args:
        weight: beta - 1.
        estimator: of q(z) from a batch, see `total_correlation`.
    """

    couples_images = True
    uses_prior = False

    def __init__(self, *, weight: Weight | Schedule = 5.0, estimator: Estimator = "stratified") -> None:
        self.weight = weight
        self.estimator = estimator
        self.images: int | None = None

    def drawn_from(self, images: int) -> None:
        """Take note of N."""
        self.images = images

    def requires(self, model: Autoencoder) -> None:
        """Refuse a posterior that is no product over its dimensions."""
        require_independent_dimensions("the regularizer total_correlation", model)

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """Nats."""
        images = self.images if step < math.inf else None
        return total_correlation(q, z, images=images, estimator=self.estimator)


class MMD:
    """The maximum mean discrepancy between q(z) and p(z) (WAE-MMD, Tolstikhin et al. 2018, algorithm 2; no nats).

    MMD^2 = E k(z, z') + E k(p, p') - 2 E k(z, p), from as many samples of the prior as there are images. The kernel is
    a sum over `scales`, c = 2 Z scale: c / (c + d^2) (`imq`) or exp(-d^2 / c) (`rbf`), d the distance. 2 Z is the
    mean squared distance between two samples of N(0, I).

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
        self.weight = weight
        self.kernel = kernel
        self.scales = scales or [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without a prior to sample from, or with one that samples do not train."""
        if model.prior is None:
            raise ValueError("the regularizer mmd needs a prior to draw samples of: prior=standard_normal")
        require_one_space(model)
        _, p = kinds(model)
        learned = isinstance(model.prior, nn.Module) and any(True for _ in model.prior.parameters())
        if p is not None and learned and not p.has_rsample:
            raise ValueError(
                f"the regularizer mmd knows the prior by its samples, and those of prior={option(model.prior)} pass "
                "no gradients to it: prior=standard_normal, or objective=elbo_monte_carlo"
            )

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The unbiased estimate, which may be below zero."""
        assert model.prior is not None  # `requires` saw to it
        p, size = model.prior(), torch.Size([len(z)])
        return mmd(z, p.rsample(size) if p.has_rsample else p.sample(size), kernel=self.kernel, scales=self.scales)


class DIP:
    """sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2, C the covariance of z (Kumar et al. 2018, equations 6, 7).

    Args:
        weight: lambda_od.
        diagonal: lambda_d / lambda_od; the paper has 10 for `means` and 1 for `samples`.
        covariance: of the `means` of q(z|x) over the images (DIP-VAE-I), or of `samples` of q(z), which is that plus
            the mean covariance of q(z|x) (DIP-VAE-II).
    """

    couples_images = True
    uses_prior = False

    def __init__(
        self,
        *,
        weight: Weight | Schedule = 10.0,
        diagonal: Weight = 10.0,
        covariance: Literal["means", "samples"] = "means",
    ) -> None:
        self.weight = weight
        self.diagonal = diagonal
        self.covariance = covariance

    def requires(self, model: Autoencoder) -> None:
        """Refuse a posterior whose covariance is not known, where it is needed."""
        q, _ = kinds(model)
        if self.covariance == "samples" and q is not None and not _knows_variance(q):
            raise ValueError(
                f"the regularizer dip with covariance=samples needs the posterior's variance, and posterior="
                f"{option(model.posterior)} does not know it: covariance=means, or posterior=gaussian"
            )

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The penalty on the covariance of this batch."""
        centred = q.mean - q.mean.mean(0)  # (B, Z)
        with full_precision(centred):
            covariance = centred.T @ centred / len(centred)  # (Z, Z)
        if self.covariance == "samples":
            own = q.covariance_matrix if hasattr(q, "covariance_matrix") else q.variance.diag_embed()
            covariance = covariance + own.mean(0)
        variances = covariance.diagonal()
        others = covariance.square().sum() - variances.square().sum()
        return others + self.diagonal * (variances - 1).square().sum()


class CodeNorm:
    """|z|^2 / 2, the mean over the batch: keeps a deterministic code near 0 (RAE, Ghosh et al. 2020)."""

    couples_images = False
    uses_prior = False

    def __init__(self, *, weight: Weight | Schedule = 0.05) -> None:
        self.weight = weight

    def requires(self, model: Autoencoder) -> None:
        """Any model can have it."""

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The penalty."""
        return z.square().sum(-1).mean() / 2


class DecoderNorm:
    """|theta|^2, theta the decoder's weights and biases (RAE-L2, Ghosh et al. 2020, section 3.1)."""

    couples_images = False
    uses_prior = False

    def __init__(self, *, weight: Weight | Schedule = 0.01) -> None:
        self.weight = weight

    def requires(self, model: Autoencoder) -> None:
        """Refuse a decoder without weights."""
        if not isinstance(model.decoder, nn.Module) or not any(True for _ in model.decoder.parameters()):
            raise ValueError(f"the regularizer decoder_norm: decoder={option(model.decoder)} has no weights")

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The penalty."""
        assert isinstance(model.decoder, nn.Module)
        return torch.stack([weights.square().sum() for weights in model.decoder.parameters()]).sum()


class DecoderJacobian:
    """|d D(z) / dz|_F^2, D(z) the mean of p(x|z) (RAE-GP, Ghosh et al. 2020; see `jacobian_norm`)."""

    couples_images = False
    differentiates_twice = True
    uses_prior = False

    def __init__(self, *, weight: Weight | Schedule = 0.05) -> None:
        self.weight = weight

    def requires(self, model: Autoencoder) -> None:
        """Any model can have it."""

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The penalty, the mean over the batch."""
        return jacobian_norm(lambda at: model.decode(at).mean, z).mean()


class EncoderJacobian:
    """|d f(x) / dx|_F^2, f(x) the mean of q(z|x) (contractive, Rifai et al. 2011; see `jacobian_norm`)."""

    couples_images = False
    differentiates_twice = True
    uses_prior = False

    def __init__(self, *, weight: Weight | Schedule = 10.0) -> None:
        self.weight = weight

    def requires(self, model: Autoencoder) -> None:
        """Any model can have it."""

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """The penalty, the mean over the batch."""
        return jacobian_norm(lambda at: model.encode(at).mean, x).mean()


class Sparsity:
    """sum_j KL(Bernoulli(rate) || Bernoulli(mean of z_j over the batch)) in nats, z_j in (0, 1) (Ng 2011, section 3).

    Args:
        weight: beta.
        rate: rho, how active a unit is to be on average.
    """

    couples_images = True
    uses_prior = False

    def __init__(self, *, weight: Weight | Schedule = 3.0, rate: Probability = 0.05) -> None:
        self.weight = weight
        self.rate = rate

    def requires(self, model: Autoencoder) -> None:
        """Refuse codes that are not between 0 and 1."""
        if not isinstance(getattr(model.posterior, "activation", None), nn.Sigmoid):
            raise ValueError(
                f"the regularizer sparsity needs codes between 0 and 1, and those of posterior="
                f"{option(model.posterior)} are not: posterior=deterministic posterior.activation=sigmoid"
            )

    def __call__(self, model: Autoencoder, x: Tensor, q: Distribution, z: Tensor, step: float) -> Tensor:
        """Nats."""
        tiny = torch.finfo(z.dtype).eps
        active = z.mean(0).clamp(tiny, 1 - tiny)  # (Z,)
        rate = torch.full_like(active, self.rate)
        on, off = rate * (rate / active).log(), (1 - rate) * ((1 - rate) / (1 - active)).log()
        return (on + off).sum()


def total_correlation(
    q: Distribution, z: Tensor, *, images: int | None = None, estimator: Estimator = "stratified"
) -> Tensor:
    """KL(q(z) || prod_j q(z_j)) in nats, a scalar, from q(z|x) of a batch of B images and a sample z (B, Z) of it.

    q(z_i) is estimated as sum_n w_in q(z_i|x_n) over the batch, and in the same way q(z_ij) for each dimension j, N the
    dataset's size:

    `stratified`: w_ii = 1/N, the weight that the image's own posterior has in q(z), and all others alike: (1 - 1/N) /
    (B - 1). The expectation is q(z), and the value is exact for B = N. It is the stratified estimate of Chen et al.
    (2018, appendix C.2), which gives one image of the batch an odd weight, averaged over which one it is.

    `weighted`: w_in = 1/(N B) (their minibatch-weighted sampling), whose expectation is not q(z): values
    are off by about (Z - 1) log N, gradients less so.

    Args:
        q: with independent dimensions.
        z: a sample of it.
        images: N; by default B: the batch is the dataset.
        estimator: `stratified` or `weighted`.

    Raises:
        ValueError: q is no product over the dimensions of z.
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


def jacobian_norm(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """An unbiased estimate of |d function / d at|_F^2 for each of B inputs, (B,).

    |J^T v|^2 with one vector v of random signs an input, whose expectation is the sum of the squares of J. Of all v
    with independent entries, signs have the least variance: 2 sum_{i != j} (J J^T)_ij^2 where v ~ N(0, I) has
    2 sum_ij (J J^T)_ij^2 (Hutchinson 1990). It costs one backward pass instead of as many as the function has outputs.
    It passes gradients on to what `function` is made of, and to `at`, where there are any to pass.
    """
    training = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        at = at if at.requires_grad else at.clone().requires_grad_()
        value = function(at)
        direction = rademacher_like(value)
        (gradient,) = torch.autograd.grad(value, at, direction, create_graph=training)
        return gradient.flatten(1).square().sum(1)


def _knows_variance(q: Distribution) -> bool:
    try:
        _ = q.variance
    except NotImplementedError:
        return False
    return True
