"""Latents in layers: z = (z_1, ..., z_L), z_1 next to the image.

The layers stand one after the other in one vector z, and posterior and prior are distributions over all of it, so that
every objective takes them as it takes any others. `latent_dim` is the size of z_1; the sizes of the layers above it are
the knob `above` of posterior, prior and decoder. The KL divergence has no closed form: it is
estimated by samples (kl=monte_carlo).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions import GaussianChain, Normal, product
from vaelab.models.networks.activations import Activation, activation_module
from vaelab.models.networks.mlp import Widths, dense_layers
from vaelab.models.networks.projections import Features, linear
from vaelab.models.parts import Posterior, Prior, UnsuitableError

if TYPE_CHECKING:
    from vaelab.models.autoencoder import Autoencoder

Sizes = Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]


class BottomUp(Posterior):
    """q(z|x) = q(z_1|x) q(z_2|z_1) ...: every layer from the one below it (Burda et al. 2015, section 5).

    Args:
        features: size F of the encoder's output.
        latent_dim: size of z_1.
        above: sizes of z_2, ...
        hidden: widths of the hidden layers from one latent layer to the next.
        activation: applied after every hidden layer.
    """

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        above: Sizes,
        hidden: Widths | None = None,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.layers = [latent_dim, *above]
        self.latent_dim = sum(self.layers)
        self.first = NormalOf(features, latent_dim)
        self.upwards = nn.ModuleList(
            [
                NormalGiven(below, layer, hidden=hidden or [100, 100], activation=activation)
                for below, layer in pairwise(self.layers)
            ]
        )

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (Z_1 + Z_2 + ...,)."""
        return GaussianChain(self.first(features), list(self.upwards), sizes=self.layers, downwards=False)


class TopDown(Prior):
    """p(z) = p(z_L) ... p(z_1|z_2), p(z_L) = N(0, I): every layer from the one above it.

    Args:
        latent_dim: size of all of z.
        above: sizes of z_2, ...; z_1 has the rest.
        hidden: widths of the hidden layers from one latent layer to the next.
        activation: applied after every hidden layer.

    Raises:
        ValueError: nothing is left for z_1.
    """

    zero: Tensor
    one: Tensor

    def __init__(
        self, latent_dim: int, *, above: Sizes, hidden: Widths | None = None, activation: Activation = "tanh"
    ) -> None:
        super().__init__()
        self.sizes = [_first(latent_dim, above, self), *above]
        self.downwards = nn.ModuleList(
            [
                NormalGiven(layer, below, hidden=hidden or [100, 100], activation=activation)
                for layer, below in pairwise(self.sizes[::-1])
            ]
        )
        self.register_buffer("zero", torch.zeros(above[-1]), persistent=False)
        self.register_buffer("one", torch.ones(above[-1]), persistent=False)

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z_1 + Z_2 + ...,)."""
        top = Normal(self.zero, self.one, validate_args=False)
        return GaussianChain(top, self.conditionals(), sizes=self.sizes, downwards=True)

    def conditionals(self) -> list["NormalGiven"]:
        """p(z_{L-1}|z_L), ..., p(z_1|z_2)."""
        return list(self.downwards)  # type: ignore[arg-type]


class Ladder(Posterior):
    """q(z|x) = q(z_L|x) ... q(z_1|z_2, x): the prior's way down, corrected by the image (Sonderby et al. 2016).

    On the way up each layer has an estimate N(m_l(d_l), s_l(d_l)^2) from deterministic features d_l; on the way down,
    q(z_l|z_{l+1}, x) is its product with the prior's p(z_l|z_{l+1}). Goes with prior=top_down.

    Args:
        features: size F of the encoder's output, d_1.
        latent_dim: size of z_1.
        above: sizes of z_2, ...
        hidden: widths of the hidden layers from d_l to d_{l+1}.
        activation: applied after every hidden layer.
    """

    conditionals: Callable[[], list["NormalGiven"]]  # of the prior, from the top down

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        above: Sizes,
        hidden: Widths | None = None,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        self.layers = [latent_dim, *above]
        self.latent_dim = sum(self.layers)
        widths = hidden or [100, 100]
        below: list[Features] = [features, *[widths[-1]] * len(above)]  # sizes of d_1, d_2, ...
        self.estimates = nn.ModuleList([NormalOf(d, size) for d, size in zip(below, self.layers, strict=True)])
        self.upwards = nn.ModuleList(
            [
                nn.Sequential(linear(d, widths[0]), activation_module(activation), *dense_layers(widths, activation))
                for d in below[:-1]
            ]
        )

    def bind(self, model: "Autoencoder") -> None:
        """Take the prior's conditionals."""
        prior = model.prior
        if not isinstance(prior, TopDown) or prior.sizes != self.layers:
            sizes = f" of layers {prior.sizes}" if isinstance(prior, TopDown) else ""
            raise UnsuitableError(
                f"{{}} shares its way down with a prior of the same layers {self.layers}, and the prior is {{}}{sizes}",
                self,
                prior if prior is not None else "none",
                fits=[TopDown],
            )
        self.conditionals = prior.conditionals  # a method and no submodule: its parameters are the model's once

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (Z_1 + Z_2 + ...,)."""
        estimates, d = [self.estimates[0](features)], features
        for up, estimate in zip(self.upwards, self.estimates[1:], strict=False):
            d = up(d)
            estimates.append(estimate(d))

        def corrected(prior: NormalGiven, estimate: Normal) -> Callable[[Tensor], Normal]:
            return lambda layer: product(estimate, prior(layer))

        ways = [corrected(p, estimate) for p, estimate in zip(self.conditionals(), estimates[-2::-1], strict=True)]
        return GaussianChain(estimates[-1], ways, sizes=self.layers, downwards=True)


class FirstLayer(nn.Module):
    """A decoder that sees z_1 alone: p(x|z) = p(x|z_1).

    Args:
        latent_dim: size of all of z.
        shape: what one output looks like: the likelihood's `parameter_shape`.
        above: sizes of z_2, ...
        network: the decoder of z_1.

    Raises:
        ValueError: nothing is left for z_1.
    """

    def __init__(self, latent_dim: int, shape: Sequence[int], *, above: Sizes, network: Callable[..., Any]) -> None:
        super().__init__()
        self.size = _first(latent_dim, above, self)
        self.network = network(self.size, shape)

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z_1), (*batch, *shape), of latents (*batch, Z)."""
        parameters: Tensor = self.network(z[..., : self.size])
        return parameters


class NormalGiven(nn.Module):
    """p(z|y) = N(mean(h), diag(exp(log_variance(h)))), h = MLP(y)."""

    def __init__(self, given: int, size: int, *, hidden: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.layers = nn.Sequential(*dense_layers([given, *hidden], activation))
        self.estimate = NormalOf([given, *hidden][-1], size)

    def forward(self, y: Tensor) -> Normal:
        """The normal over z (*, size), of y (*, given)."""
        result: Normal = self.estimate(self.layers(y))
        return result


class NormalOf(nn.Module):
    """N(mean(h), diag(exp(log_variance(h)))), both linear."""

    def __init__(self, features: Features, size: int) -> None:
        super().__init__()
        self.mean = linear(features, size)
        self.log_variance = linear(features, size)

    def forward(self, h: Tensor) -> Normal:
        """The normal over (*, size), of features h."""
        return Normal(self.mean(h), (0.5 * self.log_variance(h)).exp(), validate_args=False)


def _first(latent_dim: int, above: Sequence[int], part: nn.Module) -> int:
    """The size of z_1."""
    if latent_dim <= sum(above):
        raise UnsuitableError(
            f"{{}} has layers of {list(above)} above z_1, and z has {latent_dim} numbers: it goes with a "
            "posterior of the same `above`",
            part,
            fits=[BottomUp, Ladder],
        )
    return latent_dim - sum(above)
