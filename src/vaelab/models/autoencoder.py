"""The autoencoder: five parts that a config swaps."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.latents import arc, grid_lines, line, plane
from vaelab.models.precision import is_mixed

NOTHING_BETWEEN_CODES = (
    "z is codes out of a finite set, and between two of them there is nothing that the decoder knows: "
    "reconstructions, samples and embeddings show what they hold"
)


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

    @property
    def space(self) -> str:
        """Where z is: "real vectors", "the unit sphere" or "codes"."""
        return str(getattr(self.posterior, "space", "real vectors"))

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) of images (B, C, H, W): batch (B,), event (Z,)."""
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) of latents (*batch, Z): batch (*batch), event (C, H, W)."""
        parameters = self.decoder(z)
        return self.likelihood(parameters.float() if is_mixed(parameters) else parameters)

    def forward(self, x: Tensor) -> Tensor:
        """The same as `reconstruct(x)`."""
        return self.reconstruct(x)

    def reconstruct(self, x: Tensor, *, stochastic: bool = False) -> Tensor:
        """The mean of p(x|z), (B, C, H, W), at the mean of q(z|x) or, `stochastic`, at a sample of it."""
        q = self.encode(x)
        return self.decode(q.rsample() if stochastic else q.mean).mean

    @torch.no_grad()
    def sample(
        self, n: int, *, labels: Tensor | None = None, prior: Distribution | None = None, stochastic: bool = False
    ) -> Tensor:
        """N new images (n, C, H, W): the means of p(x|z) at z ~ p(z) or, `stochastic`, samples of p(x|z).

        Args:
            n: how many.
            labels: of a conditional model, (n,); by default every class in turn.
            prior: what to take for p(z), such as `latents.fitted_gaussian` of codes.
            stochastic: draw the pixels as well.

        Raises:
            ValueError: the model has no prior to sample from and none is given, or there are labels and it is not
                conditional.
        """
        if prior is None and self.prior is None:
            raise ValueError(
                "this model has no prior to sample from: nothing in its training says where in the latent "
                "space the images are; train one that has, such as model=vae, or give a distribution fitted to codes"
            )
        if labels is not None and self.classes is None:
            raise ValueError("this model is not conditional on labels: train one with conditional=true")
        p_z = prior or self.prior()  # type: ignore[misc]  # one of them is there
        z = p_z.sample(torch.Size([n]))
        if labels is None and self.classes is not None:
            labels = torch.arange(n, device=z.device) % self.classes
        p_x = (self if labels is None else self.given(labels)).decode(z)
        return p_x.sample() if stochastic else p_x.mean

    @torch.no_grad()
    def interpolate(
        self, first: Tensor, last: Tensor, steps: int, *, spherical: bool = False, stochastic: bool = False
    ) -> Tensor:
        """Images (steps, B, C, H, W) on the way from images `first` to images `last`, (B, C, H, W).

        The means of p(x|z) on the line between the means of q(z|x) or, `spherical`, on the arc between them; or,
        `stochastic`, between samples of q(z|x). The ends are the reconstructions. On the unit sphere it is always the
        arc.

        Raises:
            ValueError: z is codes.
        """
        if self.space == "codes":
            raise ValueError(NOTHING_BETWEEN_CODES)
        a, b = (q.sample() if stochastic else q.mean for q in (self.encode(first), self.encode(last)))
        along = arc if spherical or self.space == "the unit sphere" else line
        return self.decode(along(a, b, steps)).mean

    @torch.no_grad()
    def traverse(self, z: Tensor, values: Tensor) -> Tensor:
        """Images (Z, K, C, H, W): the means of p(x|z) where dimension j of z, (Z,), is values[j, k], (Z, K).

        Raises:
            ValueError: z is codes, or on the unit sphere.
        """
        self.require_real_vectors()
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)[:, None]  # (Z, 1, Z)
        return self.decode(torch.where(own, values[..., None], z)).mean

    @torch.no_grad()
    def manifold(self, n: int, *, codes: Tensor | None = None) -> Tensor:
        """Images (n, n, C, H, W): the means of p(x|z) over a plane of two latent dimensions.

        z is on a grid that has the same probability between any two of its lines: the prior's inverse CDF at
        1/2n, 3/2n, ... in each dimension (Kingma & Welling 2014, appendix A) or, of `codes` (N, 2), their quantiles.
        Dimension 0 grows from left to right, dimension 1 from bottom to top.

        Raises:
            ValueError: z has not two dimensions, or no codes are given and the prior has no inverse CDF; or z is codes,
                or on the unit sphere.
        """
        self.require_real_vectors()
        return self.decode(plane(grid_lines(n, prior=self.prior() if self.prior else None, codes=codes))).mean

    def require_real_vectors(self) -> None:
        """Refuse to give each dimension a value of its own where z cannot be any vector.

        Raises:
            ValueError: z is codes, or on the unit sphere.
        """
        if self.space == "codes":
            raise ValueError(NOTHING_BETWEEN_CODES)
        if self.space != "real vectors":
            raise ValueError(
                f"z is on {self.space}, where no dimension can change without another: an interpolation follows it"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`forward`, with a return type that a type checker sees."""
        result: Tensor = super().__call__(*args, **kwargs)
        return result
