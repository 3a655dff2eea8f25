"""Distributions over vectors z: dependent normals, Laplace, and what an invertible map makes of a normal."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, register_kl
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal as TorchNormal

from vaelab.models.distributions.elementary import Normal, rows_per_chunk
from vaelab.seeding import standard_normal_like, uniform_like


class Laplace(TorchLaplace):
    """A Laplace distribution for a batch of images, (B, ...): the noise of each image is its own."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Loc - scale * sign(u) * log(1 - |u|) with u uniform over (-1, 1), (*sample, B, ...)."""
        u = 2 * uniform_like(self.loc, sample_shape) - 1
        u = u.clamp(min=torch.finfo(u.dtype).eps - 1)  # u = -1 would be infinite
        return self.loc - self.scale * u.sign() * torch.log1p(-u.abs())


class MultivariateNormal(TorchMultivariateNormal):
    """N(loc, L L^T) for a batch of images, (B, Z), L lower triangular: the noise of each image is its own."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Loc + L noise, (*sample, B, Z)."""
        noise = standard_normal_like(self.loc, sample_shape)
        return self.loc + (self.scale_tril * noise.unsqueeze(-2)).sum(-1)


@register_kl(MultivariateNormal, Independent)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_dependent_and_independent_normals(q: MultivariateNormal, p: Independent[TorchNormal]) -> Tensor:
    """1/2 sum_j ((Sigma_jj + (m_j - n_j)^2) / s_j^2 - 1 + 2 log s_j) - log det L, with p = N(n, diag(s^2))."""
    if not isinstance(p.base_dist, TorchNormal):
        raise NotImplementedError(f"no KL divergence of {type(q).__name__} to {type(p.base_dist).__name__} is known")
    variance = q.scale_tril.square().sum(-1)
    p_variance = p.base_dist.variance
    quadratic = (variance + (q.loc - p.base_dist.mean).square()) / p_variance - 1 + p_variance.log()
    log_determinant = q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * quadratic.sum(-1) - log_determinant


class Flow(Protocol):
    """An invertible map of vectors, as zuko has them."""

    def call_and_ladj(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """f(u), and log |det df/du|."""

    @property
    def inv(self) -> Callable[[Tensor], Tensor]:
        """Z -> f^-1(z)."""


class Flowed(Distribution):
    """The distribution of z = f(u), u ~ `base`, f invertible: log p(z) = log base(u) - log |det df/du|.

    The density of its own newest sample is known without inverting f, which costs an autoregressive f as many passes
    as z has dimensions.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    has_rsample = True

    def __init__(self, base: Distribution, flow: Flow) -> None:
        self.base, self.flow = base, flow
        self._newest: tuple[Tensor, Tensor] | None = None  # a sample, and its log-density
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """f(E[u]), a point that stands for the distribution. It is not E[z] = E[f(u)], which has no closed form."""
        return self.flow.call_and_ladj(self.base.mean)[0]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """f(u), (*sample_shape, *batch, Z)."""
        u = self.base.rsample(torch.Size(sample_shape))
        z, log_determinant = self.flow.call_and_ladj(u)
        self._newest = z, self.base.log_prob(u) - log_determinant
        return z

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`rsample`, without its gradient."""
        z = self.rsample(sample_shape).detach()
        self._newest = None  # its log-density is one of the parameters at a constant z
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, (*sample, *batch)."""
        if self._newest is not None and value is self._newest[0]:
            return self._newest[1]
        u = self.flow.inv(value)
        return self.base.log_prob(u) - self.flow.call_and_ladj(u)[1]


class Mixture(MixtureSameFamily):
    """p(z) = sum_k w_k p_k(z), z a vector.

    Its density at N vectors is made of N K Z numbers. They are taken so few at a time that memory does not grow with N,
    and that a CPU keeps them in its cache: up to twice as fast.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, (*sample), of vectors (*sample, Z)."""
        rows = value.reshape(-1, value.shape[-1])
        numbers = self.component_distribution.batch_shape.numel() * value.shape[-1]  # of one row
        parts = rows.split(rows_per_chunk(rows, numbers))
        log_prob = torch.cat([super(Mixture, self).log_prob(part) for part in parts])  # type: ignore[no-untyped-call]
        return log_prob.reshape(value.shape[:-1])


class GaussianChain(Distribution):
    """Layers z = (z_1, ..., z_L) of which each is normal given its neighbour, and is drawn after it.

    Upwards p(z) = p(z_1) p(z_2|z_1) ..., downwards p(z) = p(z_L) p(z_{L-1}|z_L) ...

    Args:
        first: of the layer that is drawn first, loc (*batch, Z_1 or Z_L).
        conditionals: of the others, in the order in which they are drawn: a layer -> a normal over the next.
        downwards: the first is the last in z.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    has_rsample = True

    def __init__(
        self,
        first: TorchNormal,
        conditionals: Sequence[Callable[[Tensor], TorchNormal]],
        *,
        sizes: Sequence[int],
        downwards: bool,
    ) -> None:
        self.first, self.conditionals = first, conditionals
        self.sizes, self.downwards = list(sizes), downwards
        super().__init__(first.batch_shape[:-1], torch.Size([sum(sizes)]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Each layer's mean at the mean of the one before, (*batch, Z): a point that stands for the distribution.

        It is E[z] in the layer that is drawn first alone: E[m(z_1)] of the others has no closed form.
        """
        layers = [self.first.mean]
        for conditional in self.conditionals:
            layers.append(conditional(layers[-1]).mean)
        return self._joined(layers)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """All layers, (*sample_shape, *batch, Z)."""
        noise = torch.split(standard_normal_like(self._template(), torch.Size(sample_shape)), self._order(), -1)
        layers = [self.first.loc + self.first.scale * noise[0]]
        for conditional, drawn in zip(self.conditionals, noise[1:], strict=True):
            p = conditional(layers[-1])
            layers.append(p.loc + p.scale * drawn)
        return self._joined(layers)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`rsample`, without its gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the layers' log-densities in nats, (*sample, *batch)."""
        layers = list(torch.split(value, self.sizes, -1))
        if self.downwards:
            layers.reverse()
        log_prob = _log_density(self.first, layers[0])
        for conditional, before, layer in zip(self.conditionals, layers, layers[1:], strict=False):
            log_prob = log_prob + _log_density(conditional(before), layer)
        return log_prob

    def _order(self) -> list[int]:
        """The layers' sizes as they are drawn."""
        return self.sizes[::-1] if self.downwards else self.sizes

    def _template(self) -> Tensor:
        return self.first.loc.new_empty(self.batch_shape + self.event_shape)

    def _joined(self, layers: list[Tensor]) -> Tensor:
        return torch.cat(layers[::-1] if self.downwards else layers, -1)


def _log_density(p: TorchNormal, z: Tensor) -> Tensor:
    """Log p(z) of a row of independent dimensions, (*batch)."""
    density: Tensor = p.log_prob(z).sum(-1)  # type: ignore[no-untyped-call]
    return density


def product(one: TorchNormal, other: TorchNormal) -> Normal:
    """The normal whose density is proportional to the product of two: precisions add up.

    1 / s^2 = 1 / s_1^2 + 1 / s_2^2, m = s^2 (m_1 / s_1^2 + m_2 / s_2^2) (Sonderby et al. 2016).
    """
    precision, other_precision = one.scale.pow(-2), other.scale.pow(-2)
    total = precision + other_precision
    loc = (one.loc * precision + other.loc * other_precision) / total
    return Normal(loc, total.rsqrt(), validate_args=False)
