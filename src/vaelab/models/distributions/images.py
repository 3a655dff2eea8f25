"""Distributions over images and other events: densities over values in [0, 1], probabilities of 256 levels.

The event is (C, H, W), or has another number of dimensions, `event_dims`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

LEVELS = 256
STEP = 1 / (LEVELS - 1)  # from one level to the next, of images in [0, 1]


class Image(Distribution):
    """Base of the distributions here: the event is an image, arguments are not validated, samples have no gradient."""

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)

    def __init__(self, shape: torch.Size, event_dims: int) -> None:
        self.event_dims = event_dims
        split = len(shape) - event_dims
        super().__init__(shape[:split], shape[split:], validate_args=False)

    def _uniform(self, sample_shape: Any, like: Tensor) -> Tensor:
        """Draws from the open interval (0, 1), (*sample_shape, *batch, *event)."""
        tiny = torch.finfo(like.dtype).tiny
        shape = self._extended_shape(torch.Size(sample_shape))
        return torch.rand(shape, dtype=like.dtype, device=like.device).clamp(min=tiny)


class ContinuousBernoulliImage(Image):
    """Independent continuous Bernoullis (Loaiza-Ganem & Cunningham 2019), one a pixel, over [0, 1].

    p(x) = C m^x (1 - m)^(1 - x), m = sigmoid(l). In terms of the logit l it is p(x) = exp(l x) / A(l) with
    A(l) = int_0^1 exp(l t) dt = (exp(l) - 1) / l, which needs no case for large |l|; around l = 0 (m = 1/2) it is
    taken by its Taylor series.

    Shapes: `logits` (*batch, C, H, W).
    """

    support = constraints.independent(constraints.unit_interval, 3)  # type: ignore[no-untyped-call]

    def __init__(self, logits: Tensor, event_dims: int = 3) -> None:
        self.logits = logits
        super().__init__(logits.shape, event_dims)

    @property
    def mean(self) -> Tensor:
        """E[x] = 1 / (1 - exp(-l)) - 1 / l, (*batch, C, H, W); it is not m."""
        near, l = self._split()  # noqa: E741 (the logit, as in the formula)
        return torch.where(near, 0.5 + self.logits / 12 - self.logits**3 / 720, -1 / torch.expm1(-l) - 1 / l)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of grey images, in nats, (*batch)."""
        near, l = self._split()  # noqa: E741
        size = l.abs()
        # log A(l) = max(l, 0) + log((1 - exp(-|l|)) / |l|)
        far = l.clamp(min=0) + torch.log(-torch.expm1(-size)) - torch.log(size)
        log_normaliser = torch.where(near, self.logits / 2 + self.logits**2 / 24 - self.logits**4 / 2880, far)
        return (self.logits * value - log_normaliser).flatten(-self.event_dims).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Grey images, (*sample_shape, *batch, C, H, W), by the inverse of the distribution function."""
        with torch.no_grad():
            u = self._uniform(sample_shape, self.logits)
            near, l = self._split()  # noqa: E741
            # log(1 + u (exp(l) - 1)) / l, which at 0 is u; far from 0 with the larger exponential taken out.
            least = torch.finfo(self.logits.dtype).eps
            small = torch.where(self.logits.abs() < least, least, self.logits)
            close = torch.log1p(u * torch.expm1(small.clamp(-1, 1))) / small
            far = torch.logaddexp(u.log() + l, torch.log1p(-u)) / l
            return torch.where(near, close, far).clamp(0, 1)

    def _split(self) -> tuple[Tensor, Tensor]:
        """Where the Taylor series is exact to the last bits, and logits that are safe to divide by."""
        near = self.logits.abs() < 0.05
        return near, torch.where(near, torch.ones_like(self.logits), self.logits)


class OptimalGaussianImage(Image):
    """N(mean, sigma^2 I) with the maximum-likelihood sigma of the images that `log_prob` gets: sigma^2 = MSE.

    Rybkin et al. 2021, section 3.2: the maximum-likelihood sigma of a batch, in closed form.

    Args:
        mean: (*batch, C, H, W).
        log_sigma_of: mean squared error of all pixels -> log sigma.
    """

    def __init__(self, mean: Tensor, log_sigma_of: Callable[[Tensor], Tensor], event_dims: int = 3) -> None:
        self.loc = mean
        self.log_sigma_of = log_sigma_of
        super().__init__(mean.shape, event_dims)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch, C, H, W)."""
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """-sum_i (x_i - m_i)^2 / (2 sigma^2) - D log(sigma sqrt(2 pi)) in nats, (*batch)."""
        squared_error = (value - self.loc).square()
        log_sigma = self.log_sigma_of(squared_error.mean())
        constant = log_sigma + 0.5 * math.log(2 * math.pi)
        return (-0.5 * squared_error * torch.exp(-2 * log_sigma) - constant).flatten(-self.event_dims).sum(-1)


class DiscretizedLogisticImage(Image):
    """Independent logistics, one a pixel, discretized to 256 levels 0, 1/255, ..., 1 (Kingma et al. 2016).

    P(x) = sigmoid((x - m + h) / s) - sigmoid((x - m - h) / s) with h = 1/510; the first level takes all that is below
    it, the last all that is above. The 256 probabilities of a pixel add up to 1.

    Shapes: `loc` m and `log_scale` log s, (*batch, C, H, W).
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, event_dims: int = 3) -> None:
        self.loc, self.log_scale = loc, log_scale
        super().__init__(loc.shape, event_dims)

    @property
    def mean(self) -> Tensor:
        """The mean of the logistic cut off at 0 and 1, (*batch, C, H, W): that of the levels to half a level."""
        return clipped_logistic_mean(self.loc, self.log_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of images, to the nearest level, in nats, (*batch)."""
        return level_log_prob(value, self.loc, self.log_scale).flatten(-self.event_dims).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Images of the 256 levels, (*sample_shape, *batch, C, H, W)."""
        with torch.no_grad():
            noise = torch.logit(self._uniform(sample_shape, self.loc))
            return to_level(self.loc + self.log_scale.exp() * noise)


class DiscretizedLogisticMixtureImage(Image):
    """A mixture of K discretized logistics a pixel (Salimans et al. 2017, section 2).

    The channels of a pixel share the component, and the mean of a channel moves linearly with the values of the
    channels before it: m_c + sum_{d < c} a_cd x_d.

    Shapes: `logits` (*batch, K, H, W); `loc` and `log_scale` (*batch, K, C, H, W); `coefficients`
    (*batch, K, C, C, H, W), of which those of a channel d < c are read.
    """

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, coefficients: Tensor) -> None:
        self.logits, self.loc, self.log_scale, self.coefficients = logits, loc, log_scale, coefficients
        super().__init__(loc.shape[:-4] + loc.shape[-3:], 3)

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch, C, H, W), to half a level; a channel is taken at the means of those before it."""
        channels: list[Tensor] = []
        for channel in range(self.event_shape[0]):
            loc = self._loc_given(channels)
            channels.append(clipped_logistic_mean(loc, self.log_scale[..., channel, :, :]))  # (*batch, K, H, W)
        weights = self.logits.softmax(-3)
        return torch.stack([(weights * channel).sum(-3) for channel in channels], -3)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of images, to the nearest level, in nats, (*batch)."""
        value = value.unsqueeze(-4)  # (..., 1, C, H, W)
        seen: list[Tensor] = []
        log_prob = self.logits.log_softmax(-3)  # (*batch, K, H, W)
        for channel in range(self.event_shape[0]):
            x = value[..., channel, :, :]
            log_prob = log_prob + level_log_prob(x, self._loc_given(seen), self.log_scale[..., channel, :, :])
            seen.append(x)
        return log_prob.logsumexp(-3).flatten(-2).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Images of the 256 levels, (*sample_shape, *batch, C, H, W)."""
        with torch.no_grad():
            noise = torch.logit(self._uniform(sample_shape, self.loc))  # (*sample, *batch, C, H, W)
            shape = (*torch.Size(sample_shape), *self.logits.shape)
            uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
            chosen = (self.logits - (-uniform.log()).log()).argmax(-3, keepdim=True)  # Gumbel's maximum
            channels: list[Tensor] = []
            for channel in range(self.event_shape[0]):
                loc = self._loc_given(channels).expand(shape).gather(-3, chosen)  # (*sample, *batch, 1, H, W)
                scale = self.log_scale[..., channel, :, :].exp().expand(shape).gather(-3, chosen)
                channels.append(to_level(loc + scale * noise[..., channel : channel + 1, :, :]))
            return torch.cat(channels, -3)

    def _loc_given(self, seen: list[Tensor]) -> Tensor:
        """Means (..., K, H, W) of the channel after those `seen`, each (..., 1 or K, H, W)."""
        channel = len(seen)
        loc = self.loc[..., channel, :, :]
        for before, x in enumerate(seen):
            loc = loc + self.coefficients[..., channel, before, :, :] * x
        return loc


def level_log_prob(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of each pixel's nearest level under a logistic, in nats.

    With a and b the standardised upper and lower edge of the level's bin, sigmoid(a) - sigmoid(b) =
    sigmoid(a) sigmoid(-b) (1 - exp(b - a)): three logarithms, none of which cancels.
    """
    level = to_level(x)
    precision = torch.exp(-log_scale)
    upper = (level - loc + STEP / 2) * precision
    lower = (level - loc - STEP / 2) * precision
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-STEP * precision))
    first, last = F.logsigmoid(upper), F.logsigmoid(-lower)
    return torch.where(level < STEP / 2, first, torch.where(level > 1 - STEP / 2, last, inside))


def clipped_logistic_mean(loc: Tensor, log_scale: Tensor) -> Tensor:
    """E[min(max(x, 0), 1)] = int_0^1 P(x > t) dt = s (softplus(m / s) - softplus((m - 1) / s))."""
    scale = log_scale.exp()
    return (scale * (F.softplus(loc / scale) - F.softplus((loc - 1) / scale))).clamp(0, 1)


def to_level(x: Tensor) -> Tensor:
    """The nearest of the levels 0, 1/255, ..., 1."""
    return (x / STEP).round().clamp(0, LEVELS - 1) * STEP
