"""The better direction of metrics."""

from typing import Literal

Mode = Literal["min", "max"]

LOWER = {"loss", "reconstruction", "kl", "mse"}
HIGHER = {"elbo"}


def direction(metric: str) -> Mode | None:
    """Return whether the lowest or the highest value of a metric is the best; None if that is not known.

    >>> direction("val/loss"), direction("val/elbo"), direction("val/my_term")
    ('min', 'max', None)
    """
    name = metric.rpartition("/")[2]
    return "min" if name in LOWER else "max" if name in HIGHER else None
