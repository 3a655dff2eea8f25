"""Distributions over the unit sphere of R^Z: their densities are with respect to its area.

With theta the angle to the mean direction, the density of theta under a von Mises-Fisher distribution is proportional
to exp(kappa cos theta) sin(theta)^(Z - 2). All that is needed of it, normaliser, mean, gradient of a sample, is an
integral over theta, taken by Gauss-Legendre quadrature: differentiable, on any device, without Bessel functions.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vaelab.seeding import standard_normal_like, uniform_like

NODES = 128  # of the quadrature
PROPOSALS = 40  # of the rejection sampler; each is accepted with a probability of more than 0.6


class HypersphericalUniform(Distribution):
    """The uniform distribution over the unit sphere of R^Z.

    Args:
        like: of what type and where samples are.
        dim: Z.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    space = "the unit sphere"

    def __init__(self, like: Tensor, dim: int) -> None:
        self.like = like
        super().__init__(torch.Size(), torch.Size([dim]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The centre, (Z,)."""
        return self.like.new_zeros(self.event_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Unit vectors, (*sample_shape, Z)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return _unit(torch.randn(shape, dtype=self.like.dtype, device=self.like.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the logarithm of the sphere's area 2 pi^(Z/2) / Gamma(Z/2), (*sample)."""
        return value.new_full(value.shape[:-1], -_log_area(self.event_shape[0]))


class VonMisesFisher(Distribution):
    """p(z) proportional to exp(kappa direction . z) on the unit sphere of R^Z, Z >= 2.

    `mean` is the mean direction, a point of the sphere. (E[z] = A(kappa) direction lies inside of it.)

    Shapes: `direction` (*batch, Z), of length 1; `concentration` kappa > 0, (*batch).
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    has_rsample = True
    space = "the unit sphere"

    def __init__(self, direction: Tensor, concentration: Tensor) -> None:
        self.direction, self.concentration = direction, concentration
        super().__init__(direction.shape[:-1], direction.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean direction, (*batch, Z)."""
        return self.direction

    @property
    def mean_cosine(self) -> Tensor:
        """A(kappa) = E[direction . z] = I_{Z/2}(kappa) / I_{Z/2-1}(kappa), (*batch)."""
        theta, log_weight = _quadrature(self.concentration, self.event_shape[0])
        return (log_weight.softmax(-1) * theta.cos()).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, (*sample, *batch)."""
        # Relative to the density at the mean direction: no large numbers cancel.
        cosine_less_one = -0.5 * (value - self.direction).square().sum(-1)
        return self.concentration * cosine_less_one - self._log_normaliser()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Unit vectors, (*sample_shape, *batch, Z).

        The cosine to the mean direction is drawn by rejection (Wood 1994) from a fixed number of proposals, and has
        the gradient of implicit reparameterization (Figurnov et al. 2018), which is exact: nothing of it is left to a
        score function. Its tangent direction is uniform.
        """
        sample_shape = torch.Size(sample_shape)
        cosine = self._cosine(sample_shape).unsqueeze(-1)
        noise = standard_normal_like(self.direction, sample_shape)
        tangent = _unit(noise - (noise * self.direction).sum(-1, keepdim=True) * self.direction)
        return cosine * self.direction + (1 - cosine.square()).clamp(min=0).sqrt() * tangent

    def _log_normaliser(self) -> Tensor:
        """log of the integral over the sphere of exp(kappa (cos theta - 1)), (*batch)."""
        _, log_weight = _quadrature(self.concentration, self.event_shape[0])
        return log_weight.logsumexp(-1) + _log_area(self.event_shape[0] - 1)

    @torch.no_grad()
    def _proposed_cosine(self, sample_shape: torch.Size) -> Tensor:
        """Wood's algorithm (Davidson et al. 2018, algorithm 1): the first proposal that is accepted."""
        kappa, m = self.concentration, self.event_shape[0]
        b = (m - 1) / (2 * kappa + (4 * kappa.square() + (m - 1) ** 2).sqrt())
        x = (1 - b) / (1 + b)
        c = kappa * x + (m - 1) * torch.log(4 * b / (1 + b).square())  # 1 - x^2
        proposals = torch.Size([*sample_shape, PROPOSALS])
        u, v, accept = (uniform_like(kappa, proposals) for _ in range(3))
        # Symmetric Beta((m - 1) / 2, (m - 1) / 2), less one half, times two (Ulrich 1984).
        beta = (1 - u ** (2 / (m - 2) if m > 2 else math.inf)).clamp(min=0).sqrt() * (2 * math.pi * v).cos()
        e = (1 + beta) / 2
        w = (1 - (1 + b) * e) / (1 - (1 - b) * e)
        accepted = kappa * w + (m - 1) * torch.log1p(-x * w) - c >= accept.log()
        first = accepted.to(torch.uint8).argmax(len(sample_shape), keepdim=True)
        return w.gather(len(sample_shape), first).squeeze(len(sample_shape)).clamp(-1, 1)

    def _cosine(self, sample_shape: torch.Size) -> Tensor:
        cosine = self._proposed_cosine(sample_shape)
        if not self.concentration.requires_grad:
            return cosine
        slope = _slope_of_cosine(cosine, self.concentration.detach(), self.mean_cosine.detach(), self.event_shape[0])
        return cosine + slope * (self.concentration - self.concentration.detach())


@register_kl(VonMisesFisher, HypersphericalUniform)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_to_the_uniform(q: VonMisesFisher, p: HypersphericalUniform) -> Tensor:
    """KL = kappa A(kappa) + log C(kappa) + log area (Davidson et al. 2018)."""
    size = q.event_shape[0]
    return q.concentration * (q.mean_cosine - 1) - q._log_normaliser() + _log_area(size)


@torch.no_grad()
def _slope_of_cosine(cosine: Tensor, kappa: Tensor, mean_cosine: Tensor, m: int) -> Tensor:
    """d cos(theta) / d kappa at a fixed value F of theta's distribution function: sin(theta) dF/dkappa / p(theta).

    dF/dkappa / p(theta) = int_0^theta (cos s - A) exp(kappa (cos s - cos theta)) (sin s / sin theta)^(m - 2) ds, or
    minus the integral from theta to pi: the whole is 0. Where cos theta < A = E[cos theta] it is the second that has
    one sign, and nothing cancels.
    """
    pole = torch.where(cosine < mean_cosine, -1.0, 1.0).unsqueeze(-1)  # the cosine of where the integral starts
    theta = torch.acos(pole * cosine.unsqueeze(-1)).clamp(min=1e-6)  # from there
    nodes, weights = _legendre(theta.dtype, theta.device)
    s = theta * nodes
    log_ratio = kappa.unsqueeze(-1) * pole * (s.cos() - theta.cos())
    if m > 2:
        log_ratio = log_ratio + (m - 2) * (s.sin().log() - theta.sin().clamp(min=1e-6).log())
    integrand = pole * (pole * s.cos() - mean_cosine.unsqueeze(-1)) * log_ratio.exp()
    return theta.squeeze(-1).sin() * (theta * weights * integrand).sum(-1)


def _quadrature(kappa: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Angles theta and log(weight exp(kappa (cos theta - 1)) sin(theta)^(m - 2)), (*batch, nodes).

    The range ends where nothing is left: exp(-2 kappa theta^2 / pi^2) theta^(m - 2) bounds the integrand.
    """
    nodes, weights = _legendre(kappa.dtype, kappa.device)
    end = (0.5 * math.pi * (math.sqrt(m) + 9) / kappa.detach().sqrt()).clamp(max=math.pi).unsqueeze(-1)
    theta = end * nodes
    log_weight = (end * weights).log() - 2 * kappa.unsqueeze(-1) * (theta / 2).sin().square()
    return theta, log_weight + (m - 2) * theta.sin().log() if m > 2 else log_weight


@cache  # also since a GPU would be waited for
def _legendre(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss-Legendre quadrature over [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    with torch.inference_mode(False):  # training may be next
        return (
            torch.as_tensor((nodes + 1) / 2, dtype=dtype, device=device),
            torch.as_tensor(weights / 2, dtype=dtype, device=device),
        )


def _log_area(dim: int) -> float:
    """log area of the unit sphere of R^dim, 2 pi^(dim/2) / Gamma(dim/2); log 2 for the two points of R^1."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)
