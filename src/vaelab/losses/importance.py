"""Importance-weighted bounds, and how their gradients are taken.

All are averages of log-means of the weights w = p(x|z) p(z) / q(z|x), z ~ q(z|x). The terms `reconstruction` and `kl`
are means over the samples, so that their sum is the negative Monte Carlo ELBO.

The doubly reparameterized gradient (Tucker et al. 2019) has the same mean as the plain one and, of many
samples, a better signal: what the encoder and posterior get through z is weighted by the square of each sample's share
of the weights, and the score of q, whose mean is zero, is left out.
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vaelab.losses.needs import need_density, need_density_of_samples, need_differentiable_density
from vaelab.losses.objective import Objective, Terms
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.parts import UnsuitableError

Gradient = Literal["reparameterized", "doubly_reparameterized"]
Samples = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class IWAE(Objective):
    """loss = -E[log 1/k sum_i w_i], w_i = p(x|z_i) p(z_i) / q(z_i|x) (Burda et al. 2015, equation 8).

    For k = 1 it is the negative Monte Carlo ELBO, for more it is tighter.

    Args:
        samples: k.
        gradient: of what encodes; see the top of the file.
    """

    def __init__(self, *, samples: Samples, gradient: Gradient = "reparameterized") -> None:
        super().__init__()
        self.samples = samples
        self.gradient = gradient

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without densities."""
        _need_weights(self, model, self.gradient)

    def forward(self, step: Step) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        if self.gradient == "reparameterized":
            drawn = _draw(step, self.samples)
            return _terms(_log_mean(drawn.log_weight, 0), drawn)
        drawn = _draw(step, self.samples, apart=True)
        share = drawn.log_weight.softmax(0)
        bound = _log_mean(drawn.log_weight, 0)
        return _terms(drawn.with_gradients(bound, of_model=share, through_z=share.square()), drawn)


class MIWAE(Objective):
    """loss = -1/m sum_j log 1/k sum_i w_ij: the mean of m bounds of k samples each (Rainforth et al. 2018).

    With groups 1 it is IWAE's loss, with samples 1 the ELBO's of m samples.

    Args:
        samples: k.
        groups: m.
        gradient: of what encodes; see the top of the file.
    """

    def __init__(self, *, samples: Samples, groups: Samples, gradient: Gradient = "reparameterized") -> None:
        super().__init__()
        self.samples = samples
        self.groups = groups
        self.gradient = gradient

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without densities."""
        _need_weights(self, model, self.gradient)

    def forward(self, step: Step) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        shape = (self.groups, self.samples)
        if self.gradient == "reparameterized":
            drawn = _draw(step, *shape)
            return _terms(_log_mean(drawn.log_weight, 1).mean(0), drawn)
        drawn = _draw(step, *shape, apart=True)
        share = drawn.log_weight.softmax(1)
        bound = _log_mean(drawn.log_weight, 1).mean(0)
        through_z = share.square() / self.groups
        return _terms(drawn.with_gradients(bound, of_model=share / self.groups, through_z=through_z), drawn)


class CIWAE(Objective):
    """loss = -(elbo_share * ELBO + (1 - elbo_share) * log 1/k sum_i w_i) (Rainforth et al. 2018).

    Args:
        samples: k, of both bounds.
        elbo_share: beta: 0 gives IWAE, 1 the ELBO of k samples.
        gradient: of what encodes; see the top of the file.
    """

    def __init__(self, *, samples: Samples, elbo_share: Share = 0.5, gradient: Gradient = "reparameterized") -> None:
        super().__init__()
        self.samples = samples
        self.elbo_share = elbo_share
        self.gradient = gradient

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without densities."""
        _need_weights(self, model, self.gradient)

    def forward(self, step: Step) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        apart = self.gradient == "doubly_reparameterized"
        drawn = _draw(step, self.samples, apart=apart)
        elbo, bound = drawn.log_weight.mean(0), _log_mean(drawn.log_weight, 0)
        mixed = self.elbo_share * elbo + (1 - self.elbo_share) * bound
        if apart:
            share, even = drawn.log_weight.softmax(0), self.elbo_share / self.samples
            of_model, through_z = (even + (1 - self.elbo_share) * part for part in (share, share.square()))
            mixed = drawn.with_gradients(mixed, of_model=of_model, through_z=through_z)
        return _terms(mixed, drawn)


class PIWAE(Objective):
    """IWAE's loss of all m k samples for what decodes, MIWAE's of m groups of k for what encodes.

    (Rainforth et al. 2018.) The loss that is reported is IWAE's. What encodes is what acts through z and
    through q(z|x), what decodes is what acts through p(x|z) and p(z) at a given z.

    Args:
        samples: k.
        groups: m.
        gradient: of what encodes; see the top of the file.
    """

    def __init__(self, *, samples: Samples, groups: Samples, gradient: Gradient = "reparameterized") -> None:
        super().__init__()
        self.samples = samples
        self.groups = groups
        self.gradient = gradient

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without densities, or whose density is not known at any z."""
        _need_weights(self, model, "doubly_reparameterized")  # samples are weighed one by one whatever the gradient is

    def forward(self, step: Step) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        drawn = _draw(step, self.groups, self.samples, apart=True)
        log_weight = drawn.log_weight  # (m, k, B)
        bound = _log_mean(log_weight.flatten(0, 1), 0)
        of_model = log_weight.flatten(0, 1).softmax(0).view_as(log_weight)
        in_group = log_weight.softmax(1)
        if self.gradient == "reparameterized":
            of_posterior = through_z = in_group / self.groups
        else:
            of_posterior, through_z = None, in_group.square() / self.groups
        loss = drawn.with_gradients(bound, of_model=of_model, through_z=through_z, of_posterior=of_posterior)
        return _terms(loss, drawn)


class _Drawn(NamedTuple):
    """Samples of q(z|x) and their log-densities, each (*samples, B)."""

    z: Tensor  # (*samples, B, Z)
    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    score: Tensor | None  # d log w / dz at fixed parameters, (*samples, B, Z)

    @property
    def log_weight(self) -> Tensor:
        return self.log_likelihood + self.log_prior - self.log_posterior

    def with_gradients(
        self, bound: Tensor, *, of_model: Tensor, through_z: Tensor, of_posterior: Tensor | None = None
    ) -> Tensor:
        """The values of `bound` (B,), with the gradients of these sums over the samples, whose weights are constants.

        of_model * (log p(x|z) + log p(z)) at fixed z, through_z * (what log w gets through z), and
        -of_posterior * log q(z|x) at fixed z.
        """
        if self.score is None:  # nobody asks for gradients
            return bound
        surrogate = of_model.detach() * (self.log_likelihood + self.log_prior)
        surrogate = surrogate + through_z.detach() * (self.score * self.z).sum(-1)
        if of_posterior is not None:
            surrogate = surrogate - of_posterior.detach() * self.log_posterior
        surrogate = surrogate.flatten(0, -2).sum(0)  # (B,)
        return bound.detach() + surrogate - surrogate.detach()


def _draw(step: Step, *samples: int, apart: bool = False) -> _Drawn:
    """Samples (*samples, B, Z); `apart`, the densities do not pass gradients to z, for which there is the score."""
    z = step.q.rsample(torch.Size(samples))
    apart = apart and torch.is_grad_enabled()
    at = z.detach().requires_grad_() if apart else z
    densities = step.model.decode(at, step.y).log_prob(step.x), step.p_z.log_prob(at), step.q.log_prob(at)
    score = None
    if apart:
        log_weight = densities[0] + densities[1] - densities[2]
        (score,) = torch.autograd.grad(log_weight.sum(), at, retain_graph=True)
    return _Drawn(z, *densities, score)


def _log_mean(log_weight: Tensor, dimension: int) -> Tensor:
    """Log of the mean weight over a dimension of samples."""
    return log_weight.logsumexp(dimension) - math.log(log_weight.shape[dimension])


def _terms(bound: Tensor, drawn: _Drawn) -> Terms:
    """The negative bound (B,) as a loss, and the terms of the ELBO."""
    kl = drawn.log_posterior - drawn.log_prior
    return {"loss": -bound.mean(), "reconstruction": -drawn.log_likelihood.mean(), "kl": kl.mean()}


def _need_weights(bound: Objective, model: Autoencoder, gradient: Gradient) -> None:
    try:
        need_density(model)
        need_density_of_samples(model)
        if gradient == "doubly_reparameterized":
            need_differentiable_density(model)
    except UnsuitableError as error:
        raise UnsuitableError(f"{{}}: {error.message}", bound, *error.parts, fits=error.fits) from error
