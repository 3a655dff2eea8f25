"""Which way a metric is better."""

from typing import Literal

Mode = Literal["min", "max"]

LOWER = {"loss", "reconstruction", "kl", "mse"}
HIGHER = {"elbo"}


def direction(metric: str) -> Mode | None:
    """Whether the lowest or the highest value of a metric is the best; None where that is not known.

    >>> direction("val/loss"), direction("val/elbo"), direction("val/my_term")
    ('min', 'max', None)
    """
    name = metric.rpartition("/")[2]
    return "min" if name in LOWER else "max" if name in HIGHER else None
