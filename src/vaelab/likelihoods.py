"""Likelihoods p(x|z): the decoder's output -> a distribution over images.

A likelihood is made with the shape (C, H, W) of an image and says in `parameter_shape` what a decoder has to
return for one. Called with parameters (*batch, *parameter_shape) it returns a distribution with batch shape
(*batch) and event shape (C, H, W), whose `log_prob` is summed over the pixels, in nats.
The reconstruction loss of the config group `loss` is -log p(x|z).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaelab.distributions import BernoulliImage

ImageShape = tuple[int, int, int]  # channels, height, width
PositiveScale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Bernoulli(nn.Module):
    """p(x|z) = prod_i m_i^x_i (1 - m_i)^(1 - x_i), with means m = sigmoid(decoder's output).

    -log p is the binary cross-entropy, computed from logits. On binary images it is a likelihood. On grey
    images it is the widely used surrogate loss: sums that are not normalised over x, so an ELBO of it may be
    compared with other BCEs on the same images, but with no density and with nothing on binarized data.
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.parameter_shape = shape

    def forward(self, logits: Tensor) -> Distribution:
        """p(x|z) from logits (*batch, C, H, W)."""
        return BernoulliImage(logits)


class Gaussian(nn.Module):
    """p(x|z) = N(decoder's output, scale^2 I), with a scale that is fixed, not learned.

    -log p = sum_i (x_i - m_i)^2 / (2 scale^2) + D log(scale sqrt(2 pi)), for D = C H W pixels: squared error
    over 2 scale^2. The scale sets how much a squared error weighs against a KL divergence: the sum of
    squared errors plus beta KL is scale^2 = 1/2 with kl_weight = beta, and the mean squared error plus
    w KL is scale^2 = D/2 with kl_weight = w (or, the same optimum, scale^2 = w D/2 with kl_weight = 1).
    """

    def __init__(self, shape: ImageShape, *, scale: PositiveScale = 0.1) -> None:
        super().__init__()
        self.parameter_shape = shape
        self.scale = scale

    def forward(self, mean: Tensor) -> Distribution:
        """p(x|z) from means (*batch, C, H, W)."""
        scale = torch.full((), self.scale, dtype=mean.dtype, device=mean.device)
        return Independent(Normal(mean, scale, validate_args=False), 3, validate_args=False)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"scale={self.scale}"
