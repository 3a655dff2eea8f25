"""An autoregressive density over the codes of an image."""

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.distributions.codes import CodeSequence
from vaelab.models.networks.transformer import CausalTransformer
from vaelab.models.parts import CodePosterior, ConditionalPrior, UnsuitableError
from vaelab.models.posteriors import FiniteScalarQuantizer, VectorQuantizer

if TYPE_CHECKING:
    from vaelab.models.autoencoder import Autoencoder

Positive = Annotated[int, Field(gt=0)]
MOST_CODES = 2**16  # in a codebook: each is an output of the network


class CodeTransformer(ConditionalPrior):
    """p(z) = prod_l p(c_l | c_1, ..., c_{l-1}), c the codes of an image in the order of the posterior's row.

    Row by row of the grid, of several codes of a place one after the other, of several grids the smallest first. A
    causal transformer gives each factor (van den Oord et al. 2017, section 3.3, have a PixelCNN; Esser et al. 2021 a
    transformer). With `conditional` it is p(z|y), and p(z) the mean over the classes.

    Args:
        latent_dim: size of z.
        classes: how many different labels there are.
        conditional: whether it is told the labels.
        width: of the transformer.
        layers: of the transformer.
        heads: of each layer.
        dropout: in training.
        temperature: logits are divided by it when codes are drawn; below 1, likely ones become likelier.
        top_k: codes are drawn of the so many likeliest; None for all.
    """

    space = "codes"
    takes_classes = True
    shifts: Tensor

    def __init__(
        self,
        latent_dim: int,
        classes: int,
        *,
        conditional: bool = False,
        width: Positive = 128,
        layers: Positive = 4,
        heads: Positive = 4,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        top_k: Positive | None = None,
    ) -> None:
        super().__init__()
        if conditional and classes < 2:
            raise ValueError("prior.conditional=true tells labels apart, and the data have no two of them")
        self.classes = classes if conditional else None
        self.sizes = {"width": width, "layers": layers, "heads": heads}
        self.dropout, self.temperature, self.top_k = dropout, temperature, top_k

    def bind(self, model: "Autoencoder") -> None:
        """Make the network for the posterior's codes."""
        posterior = model.posterior
        if not isinstance(posterior, CodePosterior):
            raise UnsuitableError(
                "{} is over codes, and those of {} are continuous; prior=mixture and prior=flow are over vectors",
                self,
                posterior,
                fits=[VectorQuantizer, FiniteScalarQuantizer],
            )
        if posterior.codebook_size > MOST_CODES:
            raise UnsuitableError(
                f"{{}} has an output for each code, at most {MOST_CODES:,}, and {{}} has {posterior.codebook_size:,}",
                self,
                posterior,
            )
        books = posterior.codebook_of_each()
        books = torch.zeros(posterior.codes, dtype=torch.int64) if books is None else books
        kinds = len(posterior.grids) * posterior.per_place
        self.register_buffer("shifts", posterior.codebook_size * books, persistent=False)
        self.network = CausalTransformer(
            posterior.codebook_size * kinds,
            posterior.codebook_size,
            posterior.codes,
            self.classes or 1,
            **self.sizes,
            dropout=self.dropout,
        )
        self.vectors, self.numbers = posterior.vectors, posterior.numbers

    def forward(self, y: Tensor | None = None) -> Distribution:
        """p(z|y): batch (B,), event (Z,); without labels, p(z): batch ()."""
        return CodeSequence(
            self.network,
            self.shifts,
            vectors=self.vectors,
            numbers=self.numbers,
            classes=self.classes,
            y=y if self.classes is not None else None,
            temperature=self.temperature,
            top_k=self.top_k,
        )
