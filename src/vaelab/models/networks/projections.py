"""Linear maps from an encoder's features, flat (B, F) or a grid (B, C, H, W), to what a posterior needs."""

from math import prod

from torch import Tensor, nn

from vaelab.models.networks.convolutional import CONVOLUTIONS
from vaelab.models.precision import full_precision
from vaelab.performance.linear import Linear

Features = int | tuple[int, ...]


class FullPrecisionLinear(Linear):
    """x W' + b in the precision of its weights, whatever that of the products around it."""

    def forward(self, x: Tensor) -> Tensor:
        """(*, outputs) of (*, features)."""
        with full_precision(x):
            return super().forward(x.to(self.weight.dtype))


def linear(features: Features, outputs: int) -> nn.Module:
    """Features -> (B, outputs); a grid is flattened."""
    if isinstance(features, int):
        return FullPrecisionLinear(features, outputs)
    return nn.Sequential(nn.Flatten(), FullPrecisionLinear(prod(features), outputs))


class CodeProjection(nn.Module):
    """Features -> L vectors of D numbers, (B, L, D): one a place of a grid, or L of flat features.

    Args:
        features: size F of the features, or shape (C, H, W) of a grid of them.
        size: D.
        codes: L; None for as many as the grid has places, or 1.

    `grid` is the shape of the places: (H, W), or (L,) of flat features.

    Raises:
        ValueError: `codes` is not the number of the grid's places.
    """

    def __init__(self, features: Features, size: int, codes: int | None = None) -> None:
        super().__init__()
        if isinstance(features, int):
            self.codes = codes or 1
            self.grid: tuple[int, ...] = (self.codes,)
            self.layers = nn.Sequential(Linear(features, self.codes * size), nn.Unflatten(-1, (self.codes, size)))
            return
        channels, *sizes = features
        self.codes, self.grid = prod(sizes), tuple(sizes)
        if codes not in (None, self.codes):
            raise ValueError(
                f"posterior.codes={codes} does not go with the encoder's grid of {' x '.join(map(str, sizes))}, which "
                "has a code at each place: leave it null, or take an encoder with flat features (encoder.features=256)"
            )
        self.layers = nn.Sequential(CONVOLUTIONS[len(sizes)](channels, size, 1), nn.Flatten(2))  # (B, D, L)

    def forward(self, features: Tensor) -> Tensor:
        """The vectors, (B, L, D)."""
        with full_precision(features):
            vectors: Tensor = self.layers(features.to(next(self.parameters()).dtype))
        return vectors if features.dim() == 2 else vectors.transpose(1, 2)
