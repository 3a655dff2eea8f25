"""A distribution over binary images whose pixels depend on those before them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from vaelab.models.distributions.elementary import BernoulliImage
from vaelab.models.distributions.images import Image
from vaelab.models.precision import in_full

SWEEPS = 4  # of `mean`


class AutoregressiveBernoulliImage(Image):
    """Bernoullis, one a pixel, whose logits depend on the pixels before: theta_0 + f_0 + sum_{k>0} theta_k f_k.

    Args:
        theta: (*batch, K, C, H, W).
        before: images (N, C, H, W) -> the features f, (N, K C, H, W), each of the pixels before its place.
        reach: the rows and columns that a feature looks back, at most.
    """

    support = constraints.independent(constraints.boolean, 3)  # type: ignore[no-untyped-call]

    def __init__(self, theta: Tensor, before: Callable[[Tensor], Tensor], reach: int) -> None:
        self.theta, self.before, self.reach = theta, before, reach
        super().__init__(theta.shape[:-4] + theta.shape[-3:], 3)

    @property
    def mean(self) -> Tensor:
        """The probability of each pixel where those before it are their own such probabilities, (*batch, C, H, W).

        It stands for E[x], which has no closed form. It is found by a few sweeps over the image, each of which hands
        on what the one before found, from black pixels on.
        """
        mean = torch.zeros_like(self.theta[..., 0, :, :, :])
        for _ in range(SWEEPS):
            mean = _logits(self.theta, self._features(mean)).sigmoid()
        return mean

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of binary images (*, C, H, W) in nats, (*batch)."""
        return BernoulliImage(_logits(self.theta, self._features(value)), 3).log_prob(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Binary images (*sample_shape, *batch, C, H, W), pixel by pixel."""
        with torch.no_grad():
            uniform = self._uniform(sample_shape, self.theta)
            images = torch.zeros_like(uniform)
            for row in range(images.shape[-2]):
                for column in range(images.shape[-1]):
                    top, left = max(row - self.reach, 0), max(column - self.reach, 0)
                    features = self._features(images[..., top : row + 1, left : column + self.reach + 1])
                    features = features[..., -1:, column - left : column - left + 1]
                    here = ..., slice(row, row + 1), slice(column, column + 1)
                    images[here] = (uniform[here] < _logits(self.theta[here], features).sigmoid()).to(images)
            return images

    def _features(self, x: Tensor) -> Tensor:
        """(*, K, C, H, W) of images (*, C, H, W)."""
        features = in_full(self.before(x.reshape(-1, *x.shape[-3:])))
        return features.reshape(*x.shape[:-3], *self.theta.shape[-4:-2], *x.shape[-2:])


def _logits(theta: Tensor, features: Tensor) -> Tensor:
    """Of theta and features (*, K, C, H, W), (*, C, H, W)."""
    weighted = (theta[..., 1:, :, :, :] * features[..., 1:, :, :, :]).sum(-4)
    return theta[..., 0, :, :, :] + features[..., 0, :, :, :] + weighted
