"""Importance-weighted bounds, and how their gradients are taken.

All are averages of log-means of the weights w = p(x|z) p(z) / q(z|x), z ~ q(z|x). The terms `reconstruction` and `kl`
are means over the samples, so that their sum is the negative Monte Carlo ELBO.

The doubly reparameterized gradient (Tucker et al. 2019) has the same mean as the plain one and, of many
samples, a better signal: the gradient of encoder and posterior through z is weighted by the square of each sample's
share of the weights, and the score of q, whose mean is zero, is left out.
"""

import math
from abc import abstractmethod
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vaelab.losses.needs import concerning, need_density, need_density_of_samples, need_differentiable_density
from vaelab.losses.objective import Objective, Terms
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder

Gradient = Literal["reparameterized", "doubly_reparameterized"]
Samples = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Shares(NamedTuple):
    """The weight of each sample's gradient in that of a bound, (m, k, B) each."""

    of_decoder: Tensor  # of log p(x|z) + log p(z) at fixed z
    through_z: Tensor  # of log w through z
    of_posterior: Tensor | None = None  # of -log q(z|x) at fixed z; None leaves it out


class ImportanceBound(Objective):
    """loss = -L, a bound L on log p(x) of the weights of k samples, in m groups (here 1).

    Args:
        samples: k.
        gradient: how the encoder's gradient is estimated; see the top of the file.
    """

    groups = 1
    always_apart = False  # weighs the gradient of each sample by itself with either estimator

    def __init__(self, *, samples: Samples, gradient: Gradient = "reparameterized") -> None:
        super().__init__()
        self.samples, self.gradient = samples, gradient
        self.apart = self.always_apart or gradient == "doubly_reparameterized"

    @abstractmethod
    def bound(self, log_weight: Tensor) -> Tensor:
        """L of log w (m, k, B), (B,)."""

    @abstractmethod
    def shares(self, log_weight: Tensor) -> Shares:
        """The weights of the samples' gradients in that of L."""

    def requires(self, model: Autoencoder) -> None:
        with concerning(self):
            need_density(model)
            need_density_of_samples(model)
            if self.apart:
                need_differentiable_density(model)

    def forward(self, step: Step) -> Terms:
        z = step.q.rsample(torch.Size([self.groups, self.samples]))  # (m, k, B, Z)
        apart = self.apart and torch.is_grad_enabled()
        at = z.detach().requires_grad_() if apart else z
        log_likelihood = step.model.decode(at, step.y).log_prob(step.x)  # (m, k, B)
        log_prior, log_posterior = step.p_z.log_prob(at), step.q.log_prob(at)
        log_weight = log_likelihood + log_prior - log_posterior
        bound = self.bound(log_weight)
        if apart:
            shares = self.shares(log_weight.detach())
            (score,) = torch.autograd.grad(log_weight.sum(), at, retain_graph=True)  # d log w / dz
            surrogate = shares.of_decoder * (log_likelihood + log_prior) + shares.through_z * (score * z).sum(-1)
            if shares.of_posterior is not None:
                surrogate = surrogate - shares.of_posterior * log_posterior
            surrogate = surrogate.sum((0, 1))  # (B,), of which the gradient is taken
            bound = bound.detach() + surrogate - surrogate.detach()
        kl = (log_posterior - log_prior).mean()
        return {"loss": -bound.mean(), "reconstruction": -log_likelihood.mean(), "kl": kl}


class IWAE(ImportanceBound):
    """loss = -E[log 1/k sum_i w_i], w_i = p(x|z_i) p(z_i) / q(z_i|x) (Burda et al. 2015, equation 8).

    For k = 1 it is the negative Monte Carlo ELBO, for more it is tighter.
    """

    def bound(self, log_weight: Tensor) -> Tensor:
        return _log_mean(log_weight, 1).mean(0)

    def shares(self, log_weight: Tensor) -> Shares:
        share = log_weight.softmax(1)
        return Shares(share / self.groups, share.square() / self.groups)


class MIWAE(IWAE):
    """loss = -1/m sum_j log 1/k sum_i w_ij: the mean of m bounds of k samples each (Rainforth et al. 2018).

    With groups 1 it is IWAE's loss, with samples 1 the ELBO's of m samples.

    Args:
        groups: m; the others are those of `ImportanceBound`.
    """

    def __init__(self, *, samples: Samples, groups: Samples, gradient: Gradient = "reparameterized") -> None:
        super().__init__(samples=samples, gradient=gradient)
        self.groups = groups


class CIWAE(IWAE):
    """loss = -(elbo_share * ELBO + (1 - elbo_share) * log 1/k sum_i w_i) (Rainforth et al. 2018).

    Args:
        elbo_share: beta: 0 gives IWAE, 1 the ELBO of k samples; the others are those of `ImportanceBound`.
    """

    def __init__(self, *, samples: Samples, elbo_share: Share = 0.5, gradient: Gradient = "reparameterized") -> None:
        super().__init__(samples=samples, gradient=gradient)
        self.elbo_share = elbo_share

    def bound(self, log_weight: Tensor) -> Tensor:
        return self.elbo_share * log_weight.mean((0, 1)) + (1 - self.elbo_share) * super().bound(log_weight)

    def shares(self, log_weight: Tensor) -> Shares:
        even, (share, square, _) = self.elbo_share / self.samples, super().shares(log_weight)
        return Shares(even + (1 - self.elbo_share) * share, even + (1 - self.elbo_share) * square)


class PIWAE(MIWAE):
    """IWAE's loss of all m k samples for the decoder, MIWAE's of m groups of k for the encoder.

    (Rainforth et al. 2018.) The reported loss is IWAE's. The encoder stands for all that acts through z and q(z|x), the
    decoder for all that acts through p(x|z) and p(z) at a given z.
    """

    always_apart = True

    def bound(self, log_weight: Tensor) -> Tensor:
        return _log_mean(log_weight.flatten(0, 1), 0)

    def shares(self, log_weight: Tensor) -> Shares:
        of_all, of_group = log_weight.flatten(0, 1).softmax(0).view_as(log_weight), log_weight.softmax(1)
        if self.gradient == "doubly_reparameterized":
            return Shares(of_all, of_group.square() / self.groups)
        return Shares(of_all, of_group / self.groups, of_group / self.groups)


def _log_mean(log_weight: Tensor, dimension: int) -> Tensor:
    """Log of the mean weight over a dimension of samples."""
    return log_weight.logsumexp(dimension) - math.log(log_weight.shape[dimension])
