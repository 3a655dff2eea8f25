"""The autoencoder: five parts that a config swaps."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


class Posterior(Protocol):
    """Features (B, F) -> q(z|x), batch (B,), event (Z,)."""

    has_density: bool
    latent_dim: int  # Z

    def __call__(self, features: Tensor, /) -> Distribution:
        """q(z|x)."""


@runtime_checkable
class Joined(Protocol):
    """A posterior or prior that is made of the model's other parts too, such as a VampPrior."""

    def join(self, model: "Autoencoder") -> None:
        """Take what it needs of `model`, which is otherwise complete; raise ValueError where that is missing."""


@runtime_checkable
class Conditional(Protocol):
    """An encoder or decoder that has to know the labels of its images."""

    classes: int

    def given(self, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """The network for images with these labels (B,)."""


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

    With a conditional encoder or decoder, q(z|x, y) and p(x|z, y), it is used through `given(labels)`.
    """

    encoder: Callable[[Tensor], Tensor]
    posterior: Posterior
    decoder: Callable[[Tensor], Tensor]
    likelihood: Callable[[Tensor], Distribution]
    prior: Callable[[], Distribution] | None
    classes: int | None  # of the labels that the model is conditional on

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
        networks: list[object] = [encoder, decoder]
        self.classes = next((network.classes for network in networks if isinstance(network, Conditional)), None)
        others: list[object] = [posterior, prior]
        for part in others:
            if isinstance(part, Joined):
                part.join(self)

    def given(self, labels: Tensor) -> "Autoencoder":
        """The same model for images with these labels (B,), where it is conditional; else itself."""
        if self.classes is None:
            return self
        return Autoencoder(
            encoder=self.encoder.given(labels) if isinstance(self.encoder, Conditional) else self.encoder,
            posterior=self.posterior,
            decoder=self.decoder.given(labels) if isinstance(self.decoder, Conditional) else self.decoder,
            likelihood=self.likelihood,
            prior=self.prior,
        )

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
    def sample(self, n: int, *, labels: Tensor | None = None) -> Tensor:
        """N new images (n, C, H, W): the means of p(x|z) at z ~ p(z).

        Args:
            n: how many.
            labels: of a conditional model, (n,); by default every class in turn.

        Raises:
            ValueError: the model has no prior to sample from, or there are labels and it is not conditional.
        """
        if self.prior is None:
            raise ValueError(
                "this model has no prior to sample from: nothing in its training says where in the latent "
                "space the images are; train one that has, such as model=vae"
            )
        z = self.prior().sample(torch.Size([n]))
        if self.classes is None:
            if labels is not None:
                raise ValueError("this model is not conditional on labels: train one with conditional=true")
            return self.decode(z).mean
        if labels is None:
            labels = torch.arange(n, device=z.device) % self.classes
        return self.given(labels).decode(z).mean

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`forward`, with a return type that a type checker sees."""
        result: Tensor = super().__call__(*args, **kwargs)
        return result
