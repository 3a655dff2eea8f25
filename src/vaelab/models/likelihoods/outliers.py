"""A likelihood that is robust to outliers."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import StudentT as TorchStudentT

from vaelab.models.likelihoods.images import LOWEST_LOG_SCALE, PositiveScale, Shape, softly_above
from vaelab.models.parts import Likelihood

Degrees = Annotated[float, Field(gt=1, allow_inf_nan=False)]


class StudentT(Likelihood):
    """p(x|z) = prod_i t((x_i - m_i) / s) / s, Student's t with `degrees` of freedom and one learned scale s.

    An error e costs (degrees + 1) / 2 log(1 + e^2 / (degrees s^2)): quadratic where it is small, logarithmic where it
    is large (Lange et al. 1989). With many degrees it is a Gaussian.

    Args:
        shape: of an event.
        degrees: of freedom, above 1, so that there is a mean.
        start: s before training.
    """

    normalized_over = "line"

    def __init__(self, shape: Shape, *, degrees: Degrees = 4.0, start: PositiveScale = 0.1) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape
        self.degrees = degrees
        self.log_scale = nn.Parameter(torch.full((), start).log())

    def forward(self, mean: Tensor) -> Distribution:
        """p(x|z) from means (*batch, *shape)."""
        scale = softly_above(self.log_scale, LOWEST_LOG_SCALE).exp()
        degrees = torch.full_like(mean, self.degrees)
        return Independent(
            TorchStudentT(degrees, mean, scale, validate_args=False), len(self.shape), validate_args=False
        )

    def extra_repr(self) -> str:
        """Describe it for `print(model)`."""
        return f"degrees={self.degrees}"
