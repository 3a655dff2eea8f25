"""Rows of a table: numbers and categories."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import one_hot


class MixedColumns(Distribution):
    """Independent columns: N(m_j, s_j^2) of a number, a categorical distribution of a one-hot category.

    log p(x) = sum over numbers of log N(x_j; m_j, s_j^2) + sum over categories of sum_k x_k log softmax(l)_k.

    Shapes: `parameters` m and l, (*batch, D); `log_scale` log s of the numbers, in their order; event (D,).

    Args:
        parameters: means of numbers and logits of categories, column after column.
        log_scale: of the numbers.
        groups: how many of the D each column has: 1 of a number, more of a category.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)

    def __init__(self, parameters: Tensor, log_scale: Tensor, groups: Sequence[int]) -> None:
        self.parameters, self.log_scale, self.groups = parameters, log_scale, list(groups)
        super().__init__(parameters.shape[:-1], parameters.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Means of numbers and probabilities of categories, (*batch, D)."""
        columns = torch.split(self.parameters, self.groups, -1)
        return torch.cat([column if column.shape[-1] == 1 else column.softmax(-1) for column in columns], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of numbers plus log-probability of categories, in nats, (*batch)."""
        total, number = value.new_zeros(()), 0
        for x, parameter in zip(
            torch.split(value, self.groups, -1), torch.split(self.parameters, self.groups, -1), strict=True
        ):
            if x.shape[-1] == 1:
                log_scale, number = self.log_scale[number], number + 1
                error = ((x - parameter) * torch.exp(-log_scale)).squeeze(-1)
                total = total - 0.5 * error.square() - log_scale - 0.5 * math.log(2 * math.pi)
            else:
                total = total + (x * parameter.log_softmax(-1)).sum(-1)
        return total

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Rows with one-hot categories, (*sample_shape, *batch, D)."""
        with torch.no_grad():
            parameters = self.parameters.expand(self._extended_shape(torch.Size(sample_shape)))
            drawn, number = [], 0
            for parameter in torch.split(parameters, self.groups, -1):
                if parameter.shape[-1] == 1:
                    drawn.append(parameter + self.log_scale[number].exp() * torch.randn_like(parameter))
                    number += 1
                else:
                    uniform = torch.rand_like(parameter).clamp(min=torch.finfo(parameter.dtype).tiny)
                    chosen = (parameter - (-uniform.log()).log()).argmax(-1)  # Gumbel's maximum
                    drawn.append(one_hot(chosen, parameter.shape[-1]).to(parameter.dtype))
            return torch.cat(drawn, -1)
