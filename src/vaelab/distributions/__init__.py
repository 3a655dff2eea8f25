"""Distributions that `torch.distributions` does not have.

Shapes are said as torch says them: a distribution has a batch shape (independent draws, one an image)
and an event shape (what one draw is). `log_prob` sums over the event and keeps the batch.
"""

from vaelab.distributions.elementary import BernoulliImage, Delta, Normal
from vaelab.distributions.images import (
    ContinuousBernoulliImage,
    DiscretizedLogisticImage,
    DiscretizedLogisticMixtureImage,
    OptimalGaussianImage,
)

__all__ = [
    "BernoulliImage",
    "ContinuousBernoulliImage",
    "Delta",
    "DiscretizedLogisticImage",
    "DiscretizedLogisticMixtureImage",
    "Normal",
    "OptimalGaussianImage",
]
