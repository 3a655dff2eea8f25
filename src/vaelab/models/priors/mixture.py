"""A learned mixture of Gaussians."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MultivariateNormal, Normal

from vaelab.models.distributions import Mixture as MixtureDistribution
from vaelab.models.parts import Prior

Positive = Annotated[int, Field(gt=0)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Covariance = Literal["diagonal", "full"]


class Mixture(Prior):
    """p(z) = sum_k w_k N(m_k, C_k), all of it learned.

    Where it is fitted to the codes of a trained model it begins at k-means and expectation maximization, with that
    number of components, of those to choose from, whose likelihood of held-out codes is the highest.

    Args:
        latent_dim: Z.
        components: how many; of several numbers, where it is fitted to codes, the best.
        covariance: C_k `diagonal`, or `full`.
        spread: standard deviation of the means before training.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        components: Positive | Annotated[list[Positive], Field(min_length=1)] = 10,
        covariance: Covariance = "diagonal",
        spread: Scale = 1.0,
    ) -> None:
        super().__init__()
        self.choices = [components] if isinstance(components, int) else sorted(set(components))
        self.fewest_codes = self.in_use = most = self.choices[-1]
        self.covariance = covariance
        self.logits = nn.Parameter(torch.zeros(most))
        self.means = nn.Parameter(spread * torch.randn(most, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(most, latent_dim))
        if covariance == "full":
            self.below = nn.Parameter(torch.zeros(most, latent_dim, latent_dim))  # L_k below its diagonal

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        used = slice(self.in_use)
        means, scales = self.means[used], self.log_scales[used].exp()
        if self.covariance == "full":
            triangles = self.below[used].tril(-1) + scales.diag_embed()
            return mixture(self.logits[used], MultivariateNormal(means, scale_tril=triangles, validate_args=False))
        components = Normal(means, scales, validate_args=False)
        return mixture(self.logits[used], Independent(components, 1, validate_args=False))

    @torch.no_grad()
    def start(self, codes: Tensor, held_out: Tensor) -> None:
        """Begin at the best mixture that expectation maximization finds from k-means, in float64."""
        from sklearn.mixture import GaussianMixture

        known, unknown = codes.double().cpu().numpy(), held_out.double().cpu().numpy()
        kind = "full" if self.covariance == "full" else "diag"
        floor = 1e-4 * known.var(0).mean().item() + 1e-12
        found = []
        for number in self.choices:
            seed = int(torch.randint(2**31, ()))
            fitted = GaussianMixture(number, covariance_type=kind, reg_covar=floor, tol=1e-4, random_state=seed)
            found.append((fitted.fit(known).score(unknown), number, fitted))
        _, self.in_use, best = max(found, key=lambda each: each[0])
        self.logits[: self.in_use] = torch.from_numpy(best.weights_).log()
        self.means[: self.in_use] = torch.from_numpy(best.means_)
        covariances = torch.from_numpy(best.covariances_)
        if self.covariance == "full":
            triangles = torch.linalg.cholesky(covariances)
            self.below[: self.in_use] = triangles
            self.log_scales[: self.in_use] = triangles.diagonal(dim1=-2, dim2=-1).log()
        else:
            self.log_scales[: self.in_use] = covariances.log() / 2

    def get_extra_state(self) -> Tensor:
        """How many components are in use, for a checkpoint."""
        return torch.tensor(self.in_use)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it up.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 < int(state) <= len(self.logits):
            raise ValueError(f"{int(state)} components are in use of {len(self.logits)}")
        self.in_use = int(state)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"components={self.in_use}, covariance={self.covariance}"


def mixture(logits: Tensor, components: Distribution) -> Distribution:
    """The mixture of components, batch (K,), with weights softmax(logits)."""
    weights = Categorical(logits=logits, validate_args=False)
    return MixtureDistribution(weights, components, validate_args=False)
