"""Likelihoods of pixels and other bounded or continuous values."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.distributions import Laplace as TorchLaplace

from vaelab.models.distributions import (
    BernoulliImage,
    ContinuousBernoulliImage,
    DiscretizedLogisticImage,
    DiscretizedLogisticMixtureImage,
    OptimalGaussianImage,
)
from vaelab.models.parts import Likelihood

Shape = tuple[int, ...]  # of an event: (C, H, W) of an image, (C, T) of a signal, (D,) of a vector
Components = Annotated[int, Field(gt=0)]
PositiveScale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LOWEST_LOG_SCALE = -6.0  # of a learned scale, which else would go to 0 on images with constant pixels
LOWEST_LOG_WIDTH = -7.0  # of a logistic: below it, all mass is on one level


class Bernoulli(Likelihood):
    """p(x|z) = prod_i m_i^x_i (1 - m_i)^(1 - x_i), with means m = sigmoid(decoder's output).

    -log p is the binary cross-entropy, computed from logits. On binary images it is a likelihood. On grey
    images it is the widely used surrogate loss: sums that are not normalised over x, so an ELBO of it may be
    compared with other BCEs on the same images, but with no density and with nothing on binarized data.
    """

    normalized_over = "binary"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape

    def forward(self, logits: Tensor) -> Distribution:
        """p(x|z) from logits (*batch, C, H, W)."""
        return BernoulliImage(logits, len(self.shape))


class Gaussian(Likelihood):
    """p(x|z) = N(decoder's output, scale^2 I), with a scale that is fixed, not learned.

    -log p = sum_i (x_i - m_i)^2 / (2 scale^2) + D log(scale sqrt(2 pi)), for D = C H W pixels: squared error
    over 2 scale^2. The scale sets how much a squared error weighs against a KL divergence: the sum of
    squared errors plus beta KL is scale^2 = 1/2 with kl_weight = beta, and the mean squared error plus
    w KL is scale^2 = D/2 with kl_weight = w (or, the same optimum, scale^2 = w D/2 with kl_weight = 1).
    """

    normalized_over = "line"

    def __init__(self, shape: Shape, *, scale: PositiveScale = 0.1) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape
        self.scale = scale

    def forward(self, mean: Tensor) -> Distribution:
        """p(x|z) from means (*batch, C, H, W)."""
        scale = torch.full((), self.scale, dtype=mean.dtype, device=mean.device)
        return _independent(Normal(mean, scale, validate_args=False), self.shape)

    def extra_repr(self) -> str:
        """Describe it for `print(model)`."""
        return f"scale={self.scale}"


class SharedScaleGaussian(Likelihood):
    """p(x|z) = N(decoder's output, s^2 I), with one learned scale s for all pixels and images.

    Args:
        shape: (C, H, W) of an image.
        start: s before training.
    """

    normalized_over = "line"

    def __init__(self, shape: Shape, *, start: PositiveScale = 0.1) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape
        self.log_scale = nn.Parameter(torch.full((), start).log())

    def forward(self, mean: Tensor) -> Distribution:
        """p(x|z) from means (*batch, C, H, W)."""
        return _independent(
            Normal(mean, softly_above(self.log_scale, LOWEST_LOG_SCALE).exp(), validate_args=False), self.shape
        )


class PixelScaleGaussian(Likelihood):
    """p(x|z) = prod_i N(m_i, s_i^2): the decoder gives the mean and the logarithm of the scale of every pixel."""

    normalized_over = "line"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.parameter_shape = (2 * shape[0], *shape[1:])

    def forward(self, parameters: Tensor) -> Distribution:
        """p(x|z) from means and log-scales (*batch, 2 C, H, W)."""
        mean, log_scale = parameters.chunk(2, -len(self.shape))
        return _independent(
            Normal(mean, softly_above(log_scale, LOWEST_LOG_SCALE).exp(), validate_args=False), self.shape
        )


class OptimalScaleGaussian(Likelihood):
    """p(x|z) = N(decoder's output, sigma^2 I) with the maximum-likelihood sigma: sigma-VAE (Rybkin et al. 2021).

    While training, sigma^2 is the mean squared error of the batch's pixels (section 3.2). A sigma that is read off the
    images it scores is no density over them, so evaluation takes the running mean of the training batches' squared
    errors.

    Args:
        shape: (C, H, W) of an image.
        decay: of the running mean, a batch.
    """

    normalized_over = "line"
    couples_images = True
    squared_error: Tensor
    weight: Tensor

    def __init__(self, shape: Shape, *, decay: Annotated[float, Field(ge=0, lt=1)] = 0.99) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape
        self.decay = decay
        # Both are running means from 0 on: their quotient is the mean without the start.
        self.register_buffer("squared_error", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, mean: Tensor) -> Distribution:
        """p(x|z) from means (*batch, C, H, W)."""
        if self.training:
            return OptimalGaussianImage(mean, self._seen, len(self.shape))
        squared_error = torch.where(self.weight > 0, self.squared_error / self.weight, 1.0)
        return _independent(
            Normal(mean, optimal_log_scale(squared_error).exp().to(mean), validate_args=False), self.shape
        )

    def _seen(self, squared_error: Tensor) -> Tensor:
        self.squared_error.lerp_(squared_error.detach().to(self.squared_error), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        return optimal_log_scale(squared_error)

    def extra_repr(self) -> str:
        """Describe it for `print(model)`."""
        return f"decay={self.decay}"


class Laplace(Likelihood):
    """p(x|z) = prod_i exp(-|x_i - m_i| / scale) / (2 scale): absolute error over the scale, plus a constant.

    Args:
        shape: (C, H, W) of an image.
        scale: mean absolute error that costs one nat.
    """

    normalized_over = "line"

    def __init__(self, shape: Shape, *, scale: PositiveScale = 0.1) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape
        self.scale = scale

    def forward(self, mean: Tensor) -> Distribution:
        """p(x|z) from means (*batch, C, H, W)."""
        return _independent(TorchLaplace(mean, torch.full_like(mean, self.scale), validate_args=False), self.shape)

    def extra_repr(self) -> str:
        """Describe it for `print(model)`."""
        return f"scale={self.scale}"


class ContinuousBernoulli(Likelihood):
    """Binary cross-entropy with its normalizer, a density over grey pixels (Loaiza-Ganem & Cunningham 2019).

    log p = -BCE + sum_i log C(m_i), C(m) = 2 artanh(1 - 2m) / (1 - 2m). An ELBO of it is positive and large.
    """

    normalized_over = "interval"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape

    def forward(self, logits: Tensor) -> Distribution:
        """p(x|z) from logits (*batch, C, H, W)."""
        return ContinuousBernoulliImage(logits, len(self.shape))


class DiscretizedLogistic(Likelihood):
    """P(x|z) of 256 levels a pixel: a logistic's mass around each (Kingma et al. 2016, appendix A.3).

    The decoder gives the location and the logarithm of the scale of every pixel.
    """

    normalized_over = "levels"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.parameter_shape = (2 * shape[0], *shape[1:])

    def forward(self, parameters: Tensor) -> Distribution:
        """P(x|z) from locations and log-scales (*batch, 2 C, H, W)."""
        loc, log_scale = parameters.chunk(2, -len(self.shape))
        return DiscretizedLogisticImage(loc, softly_above(log_scale, LOWEST_LOG_WIDTH), len(self.shape))


class DiscretizedLogisticMixture(Likelihood):
    """P(x|z) of 256 levels a pixel: a mixture of logistics (PixelCNN++, Salimans et al. 2017, section 2.1).

    For each of K components and every pixel the decoder gives a logit, C locations and log-scales, and a coefficient
    for every pair of channels, squashed by tanh.

    Args:
        shape: (C, H, W) of an image.
        components: K.
    """

    normalized_over = "levels"

    def __init__(self, shape: Shape, *, components: Components = 5) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"loss=discretized_logistic_mixture is of images (C, H, W), and these are events of shape {shape}: "
                "loss=discretized_logistic, or a density such as loss=gaussian_shared_scale"
            )
        self.shape = shape
        self.components = components
        channels = shape[0]
        self.parts = [1, channels, channels, channels * (channels - 1) // 2]
        self.parameter_shape = (components * sum(self.parts), *shape[1:])

    def forward(self, parameters: Tensor) -> Distribution:
        """P(x|z) from parameters (*batch, K (1 + 2 C + C (C - 1) / 2), H, W)."""
        batch, size = parameters.shape[:-3], parameters.shape[-2:]
        parameters = parameters.reshape(*batch, self.components, -1, *size)
        logits, loc, log_scale, pairs = torch.split(parameters, self.parts, -3)  # (*batch, K, *, H, W)
        channels = self.shape[0]
        coefficients = parameters.new_zeros(*batch, self.components, channels, channels, *size)
        row, column = torch.tril_indices(channels, channels, -1, device=parameters.device)
        coefficients[..., row, column, :, :] = pairs.tanh()
        # Components that start in different places do not all learn the same.
        spread = torch.linspace(0, 1, self.components + 2, dtype=loc.dtype, device=loc.device)[1:-1]
        return DiscretizedLogisticMixtureImage(
            logits.squeeze(-3),
            loc + spread[:, None, None, None],
            softly_above(log_scale, LOWEST_LOG_WIDTH),
            coefficients,
        )

    def extra_repr(self) -> str:
        """Describe it for `print(model)`."""
        return f"components={self.components}"


def softly_above(x: Tensor, low: float) -> Tensor:
    """Return low + softplus(x - low): about x well above `low`, never below it (Rybkin et al. 2021, appendix)."""
    return low + F.softplus(x - low)


def optimal_log_scale(squared_error: Tensor) -> Tensor:
    """The logarithm of sigma = sqrt(mean squared error), softly kept above -6."""
    tiny = torch.finfo(squared_error.dtype).tiny
    return softly_above(0.5 * squared_error.clamp(min=tiny).log(), LOWEST_LOG_SCALE)


def _independent(elements: Distribution, shape: Shape) -> Distribution:
    return Independent(elements, len(shape), validate_args=False)
