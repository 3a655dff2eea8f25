"""The Frechet distance between two sets of features, from moments that are accumulated batch by batch."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments:
    """Number, mean and covariance of rows (N, D), in float64: memory grows with D^2 and not with N.

    Batches are merged as in Chan et al. (1983), so a mean far from 0 costs no digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.scatter = torch.zeros(())  # sum of (x - mean)(x - mean)^T

    def add(self, rows: Tensor) -> None:
        """Add rows (B, D)."""
        rows = rows.double()
        other = Moments()
        other.count, other.mean = len(rows), rows.mean(0)
        centred = rows - other.mean
        other.scatter = centred.T @ centred
        self._merge(other)

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows together."""
        both = Moments()
        both._merge(self)
        both._merge(other)
        return both

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (D, D).

        Raises:
            ValueError: there are no more rows than features, so it would be singular.
        """
        features = self.mean.numel()
        if self.count <= features:
            raise ValueError(too_few(self.count, features))
        return self.scatter / (self.count - 1)

    def _merge(self, other: "Moments") -> None:
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.scatter = other.count, other.mean, other.scatter
            return
        total = self.count + other.count
        difference = other.mean - self.mean
        self.scatter = self.scatter + other.scatter + difference.outer(difference) * (self.count * other.count / total)
        self.mean = self.mean + difference * (other.count / total)
        self.count = total


def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared Frechet (2-Wasserstein) distance between Gaussians with these moments.

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

    Heusel et al. (2017), eq. 6. The trace of the root is that of (C1^(1/2) C2 C1^(1/2))^(1/2), from the eigenvalues of
    symmetric matrices. Biased upwards by about a constant over N, see `extrapolated`.

    Raises:
        ValueError: one of them has no more rows than features.
    """
    a, b = first.covariance, second.covariance
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    trace = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    distance: float = ((first.mean - second.mean).square().sum() + a.trace() + b.trace() - 2 * trace).item()
    return max(0.0, distance)


def too_few(images: int, features: int) -> str:
    """Raised where a covariance would be singular."""
    return f"{images} images are too few for a covariance of {features} features: it takes more images than features"


class Frechet(NamedTuple):
    """The distance of all, the mean of those of two halves, and its extrapolation to infinitely many."""

    whole: float
    half: float
    extrapolated: float


def extrapolated(first: tuple[Moments, Moments], second: tuple[Moments, Moments]) -> Frechet:
    """Frechet distance of two sets, each given as two halves, at two sizes and without its bias in 1/N.

    The distance of N and M rows is too large by a/N + b/M (Chong & Forsyth 2020). Halves double this, so
    that 2 F(N, M) - F(N/2, M/2) is free of it; F of the halves is the mean over both.

    Raises:
        ValueError: a half has no more rows than features.
    """
    whole = frechet_distance(first[0] + first[1], second[0] + second[1])
    half = (frechet_distance(first[0], second[0]) + frechet_distance(first[1], second[1])) / 2
    return Frechet(whole, half, 2 * whole - half)
