"""The autoencoder: five parts that a config swaps."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.latents import arc, grid_lines, line, plane
from vaelab.models.parts import (
    Conditional,
    ConditionalPrior,
    Likelihood,
    PartName,
    Posterior,
    Prior,
    Space,
    coupling_module,
)
from vaelab.models.precision import in_full

NOTHING_BETWEEN_CODES = (
    "z consists of codes from a finite set, and the decoder has not seen values between them: reconstruct, sample and "
    "embed work"
)


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

    Where encoder or decoder is `Conditional`, the model is q(z|x, y) and p(x|z, y), and needs labels y (B,) wherever
    they are an argument; other models ignore them.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        posterior: Posterior,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.posterior = posterior
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.frozen: list[PartName] = []
        networks = [network for network in (encoder, decoder) if isinstance(network, Conditional)]
        self.classes: int | None = networks[0].classes if networks else None  # of the labels it is conditional on
        posterior.bind(self)
        if prior is not None:
            prior.bind(self)

    @property
    def space(self) -> Space:
        """Where z is."""
        return self.posterior.space

    def coupling(self) -> nn.Module | None:
        """Return the first part that, in training, couples the images of a batch; None where none does."""
        return coupling_module(self)

    def freeze(self, parts: Sequence[PartName]) -> None:
        """Have training leave these parts as they are: no gradients, and always in evaluation mode."""
        for name in parts:
            self.get_submodule(name).requires_grad_(False)
        self.frozen = list(parts)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Go to training or evaluation mode; frozen parts are never in training mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """q(z|x), or q(z|x, y), of images (B, C, H, W) with labels (B,): batch (B,), event (Z,)."""
        if x.shape[1:] != self.likelihood.shape or not x.is_floating_point():
            expected = ", ".join(["N", *map(str, self.likelihood.shape)])
            raise ValueError(f"x should be floats of shape ({expected}); found {x.dtype} of shape {tuple(x.shape)}")
        q: Distribution = self.posterior(self._of(self.encoder, x, y))
        return q

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x|z), or p(x|z, y), of latents (*batch, Z): batch (*batch), event (C, H, W).

        Labels are (B,), or (1,) where they are the same for all.
        """
        if z.shape[-1] != self.posterior.latent_dim:
            size = self.posterior.latent_dim
            raise ValueError(f"z should be of shape (N, {size}), or (..., {size}); found {tuple(z.shape)}")
        parameters = self._of(self.decoder, z, y)
        p: Distribution = self.likelihood(in_full(parameters))
        return p

    def _of(self, network: nn.Module, given: Tensor, y: Tensor | None) -> Tensor:
        if self.classes is None or not isinstance(network, Conditional):
            result: Tensor = network(given)
        elif y is None:
            raise ValueError("this model is conditional on labels: give those of the images, (B,), too")
        else:
            result = network(given, y)
        return result

    def p_z(self, y: Tensor | None = None) -> Distribution:
        """p(z): batch (), event (Z,); of a prior that is told labels (B,), p(z|y): batch (B,)."""
        assert self.prior is not None
        p: Distribution = self.prior(y) if isinstance(self.prior, ConditionalPrior) else self.prior()
        return p

    @property
    def sampled_classes(self) -> int | None:
        """How many labels samples can be of; None where they are of none."""
        return self.classes or (self.prior.classes if isinstance(self.prior, ConditionalPrior) else None)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The same as `reconstruct(x, y)`."""
        return self.reconstruct(x, y)

    def reconstruct(self, x: Tensor, y: Tensor | None = None, *, stochastic: bool = False) -> Tensor:
        """The mean of p(x|z), (B, C, H, W), at the mean of q(z|x) or, `stochastic`, at a sample of it."""
        q = self.encode(x, y)
        return self.decode(q.rsample() if stochastic else q.mean, y).mean

    @torch.no_grad()
    def sample(
        self, n: int, *, labels: Tensor | None = None, prior: Distribution | None = None, stochastic: bool = False
    ) -> Tensor:
        """Return n new images (n, C, H, W): the means of p(x|z) at z ~ p(z) or, `stochastic`, samples of p(x|z).

        Args:
            n: how many.
            labels: of a conditional model, (n,); by default every class in turn.
            prior: replaces p(z), such as `latents.fitted_gaussian` of codes.
            stochastic: draw the pixels as well.

        Raises:
            ValueError: the model has no prior to sample from and none is given, or there are labels and it is not
                conditional.
        """
        if prior is None and self.prior is None:
            raise ValueError(
                "this model has no prior to sample from: training does not constrain where in the latent space codes "
                "lie; train a model with a prior, such as model=vae, or give a distribution fitted to codes"
            )
        if labels is not None and self.sampled_classes is None:
            raise ValueError("this model is not conditional on labels: train one with conditional=true")
        if labels is None and self.sampled_classes is not None:
            labels = torch.arange(n, device=next(self.parameters()).device) % self.sampled_classes
        p_z = prior or self.p_z(labels)
        z = p_z.sample(torch.Size([n] if not p_z.batch_shape else []))
        p_x = self.decode(z, labels)
        return p_x.sample() if stochastic else p_x.mean

    @torch.no_grad()
    def interpolate(
        self,
        first: Tensor,
        last: Tensor,
        steps: int,
        y: Tensor | None = None,
        *,
        spherical: bool = False,
        stochastic: bool = False,
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
        a, b = (q.sample() if stochastic else q.mean for q in (self.encode(first, y), self.encode(last, y)))
        along = arc if spherical or self.space == "the unit sphere" else line
        return self.decode(along(a, b, steps), y).mean

    @torch.no_grad()
    def traverse(self, z: Tensor, values: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (Z, K, C, H, W): the means of p(x|z) where dimension j of z, (Z,), is values[j, k], (Z, K).

        Raises:
            ValueError: z is codes, or on the unit sphere.
        """
        self.require_real_vectors()
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)[:, None]  # (Z, 1, Z)
        return self.decode(torch.where(own, values[..., None], z), y).mean

    @torch.no_grad()
    def manifold(self, n: int, y: Tensor | None = None, *, codes: Tensor | None = None) -> Tensor:
        """Images (n, n, C, H, W): the means of p(x|z) over a plane of two latent dimensions.

        z is on a grid that has the same probability between any two of its lines: the prior's inverse CDF at
        1/2n, 3/2n, ... in each dimension (Kingma & Welling 2014, appendix A) or, of `codes` (N, 2), their quantiles.
        Dimension 0 grows from left to right, dimension 1 from bottom to top.

        Raises:
            ValueError: z does not have two dimensions, or no codes are given and the prior has no inverse CDF; or z is
                codes, or on the unit sphere.
        """
        self.require_real_vectors()
        return self.decode(plane(grid_lines(n, prior=self.prior() if self.prior else None, codes=codes)), y).mean

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
