"""The likelihood of a row of a table, which has numbers and categories."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions import MixedColumns
from vaelab.models.likelihoods.images import LOWEST_LOG_SCALE, PositiveScale, Shape, softly_above
from vaelab.models.parts import Likelihood


class Columns(Likelihood):
    """p(x|z) of a row: a Gaussian for each number, a categorical distribution for each category.

    The decoder gives the mean of every number, and the logits of the values of every category, which stand in x as
    one-hot vectors. Each number has a learned scale of its own.

    Args:
        shape: (D,) of a row.
        groups: how many of the D numbers each column has: 1, or as many as a category has values; () for 1 each.
        start: the scales before training.

    Raises:
        ValueError: a row is no vector.
    """

    normalized_over = "columns"
    takes_columns = True  # is made with `groups`, too

    def __init__(self, shape: Shape, groups: Sequence[int] = (), *, start: PositiveScale = 0.3) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ValueError(
                f"loss=columns is of rows of a table, and these are events of shape {shape}: take another loss"
            )
        self.shape = self.parameter_shape = shape
        self.groups = tuple(groups) or (1,) * shape[0]
        numbers = sum(size == 1 for size in self.groups)
        self.log_scale = nn.Parameter(torch.full((numbers,), start).log())

    def forward(self, parameters: Tensor) -> Distribution:
        """p(x|z) from means and logits (*batch, D)."""
        return MixedColumns(parameters, softly_above(self.log_scale, LOWEST_LOG_SCALE), self.groups)
