"""The autoencoder: five parts that a config swaps."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


class Posterior(Protocol):
    """Features (B, F) -> q(z|x), batch (B,), event (Z,)."""

    has_density: bool

    def __call__(self, features: Tensor, /) -> Distribution:
        """q(z|x)."""


class Autoencoder(nn.Module):
    """Encoder, posterior, decoder, likelihood and prior, composed.

    q(z|x) = posterior(encoder(x)) and p(x|z) = likelihood(decoder(z)). With a `Deterministic` posterior and no
    prior it is a plain autoencoder, with a `Gaussian` one and a prior a variational autoencoder.

    Args:
        encoder: images (B, C, H, W) -> features (B, F).
        posterior: features (B, F) -> q(z|x), batch (B,), event (Z,).
        decoder: latents (*batch, Z) -> parameters of the likelihood.
        likelihood: those parameters -> p(x|z), batch (*batch), event (C, H, W).
        prior: () -> p(z), batch (), event (Z,); None for a model that has none.
    """

    encoder: Callable[[Tensor], Tensor]
    posterior: Posterior
    decoder: Callable[[Tensor], Tensor]
    likelihood: Callable[[Tensor], Distribution]
    prior: Callable[[], Distribution] | None

    def __init__(
        self,
        *,
        encoder: Callable[[Tensor], Tensor],
        posterior: Posterior,
        decoder: Callable[[Tensor], Tensor],
        likelihood: Callable[[Tensor], Distribution],
        prior: Callable[[], Distribution] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.posterior = posterior
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) of images (B, C, H, W): batch (B,), event (Z,)."""
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) of latents (*batch, Z): batch (*batch), event (C, H, W)."""
        return self.likelihood(self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        """The same as `reconstruct(x)`."""
        return self.reconstruct(x)

    def reconstruct(self, x: Tensor, *, stochastic: bool = False) -> Tensor:
        """The mean of p(x|z), (B, C, H, W), at the mean of q(z|x) or, `stochastic`, at a sample of it."""
        q = self.encode(x)
        return self.decode(q.rsample() if stochastic else q.mean).mean

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """N new images (n, C, H, W): the means of p(x|z) at z ~ p(z).

        Raises:
            ValueError: the model has no prior to sample from.
        """
        if self.prior is None:
            raise ValueError(
                "this model has no prior to sample from: nothing in its training says where in the latent "
                "space the images are; train one that has, such as model=vae"
            )
        return self.decode(self.prior().sample(torch.Size([n]))).mean

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`forward`, with a return type that a type checker sees."""
        result: Tensor = super().__call__(*args, **kwargs)
        return result
