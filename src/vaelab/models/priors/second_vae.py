"""A VAE of codes."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import SharedScaleGaussian
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.networks.mlp import Widths
from vaelab.models.parts import Prior
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors.basic import StandardNormal
from vaelab.models.priors.standardisation import Standardisation


class SecondVAE(Prior):
    """p(z) = int p(z|u) N(u; 0, I) du: a VAE whose data are the codes of the first one (Dai & Wipf 2019, section 3).

    p(z|u) = N(D(u), s^2 I) with one learned s. Fitting it maximizes the ELBO of codes. The density has no closed form:
    `log_prob` is log p(z|u) + log p(u) - log q(u|z) at one u ~ q(u|z), of which the exponential is p(z) in
    expectation. An importance-weighted log-likelihood with it is one of z and u together, and so a lower bound still.

    Args:
        latent_dim: Z.
        size: of u; None for Z, as in the paper.
        hidden: widths of the hidden layers of both networks.
    """

    def __init__(
        self, latent_dim: int, *, size: Annotated[int, Field(gt=0)] | None = None, hidden: Widths | None = None
    ) -> None:
        super().__init__()
        widths, inner = hidden or [512, 512], size or latent_dim
        encoder = MLPEncoder((latent_dim,), hidden=widths)
        self.units = Standardisation(latent_dim)
        self.vae = Autoencoder(
            encoder=encoder,
            posterior=Gaussian(encoder.features, inner),
            decoder=MLPDecoder(inner, (latent_dim,), hidden=widths[::-1]),
            likelihood=SharedScaleGaussian((latent_dim,), start=1.0),
            prior=StandardNormal(inner),
        )

    def start(self, codes: Tensor, held_out: Tensor) -> None:
        """Take the units of the codes."""
        self.units.start(codes)

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        return self.units(MarginalOfVAE(self.vae))  # type: ignore[no-any-return]


class MarginalOfVAE(Distribution):
    """p(x) of a VAE over vectors (D,): samples, and an estimate of the density whose exponential is unbiased."""

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    has_rsample = True

    def __init__(self, vae: Autoencoder) -> None:
        self.vae = vae
        super().__init__(torch.Size(), torch.Size(vae.likelihood.shape), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """A sample of p(x|u) at u ~ p(u), (*sample_shape, D)."""
        assert self.vae.prior is not None
        drawn: Tensor = self.vae.decode(self.vae.prior().sample(torch.Size(sample_shape))).rsample()
        return drawn

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p(x|u) + log p(u) - log q(u|x), u ~ q(u|x), in nats, (*sample)."""
        assert self.vae.prior is not None
        rows = value.reshape(-1, value.shape[-1])
        q = self.vae.encode(rows)
        u = q.rsample()
        weights = self.vae.decode(u).log_prob(rows) + self.vae.prior().log_prob(u) - q.log_prob(u)
        log_prob: Tensor = weights.reshape(value.shape[:-1])
        return log_prob
