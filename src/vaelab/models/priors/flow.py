"""A normalizing flow."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.networks.flows import FlowKind
from vaelab.models.networks.flows import flow as make_flow
from vaelab.models.parts import Prior
from vaelab.models.priors.standardisation import Standardisation

Positive = Annotated[int, Field(gt=0)]


class FlowPrior(Prior):
    """p(z): what a learned invertible map makes of N(0, I).

    Args:
        latent_dim: Z.
        flow: `realnvp` (Dinh et al. 2017), `maf` (Papamakarios et al. 2017) or `nsf` (Durkan et al. 2019).
        transforms: how many, one after the other.
        hidden: widths of the hidden layers of the networks in them.
        standardised: it is of codes in units of their own mean and standard deviation, which it takes where it is
            fitted to the codes of a trained model.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        flow: FlowKind = "realnvp",
        transforms: Positive = 6,
        hidden: list[Positive] | None = None,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.units = Standardisation(latent_dim) if standardised else None
        self.flow = make_flow(flow, latent_dim, transforms=transforms, hidden=hidden or [128, 128])

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        p: Distribution = self.flow()
        return p if self.units is None else self.units(p)

    def start(self, codes: Tensor, held_out: Tensor) -> None:
        """Take the units of the codes."""
        if self.units is not None:
            self.units.start(codes)
