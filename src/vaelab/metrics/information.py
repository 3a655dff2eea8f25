"""Mutual information of codes (N, Z) and factors (N, F), integers from 0, for each dimension.

Mutual information is that of histograms, as in disentanglement_lib (Locatello et al. 2019): each dimension of the
codes has 20 bins of equal width between its smallest and its largest value.
"""

import numpy as np
import torch
from torch import Tensor

BINS = 20


def binned(codes: Tensor, bins: int = BINS) -> Tensor:
    """The bin of each code, (N, Z), int64: `bins` of equal width over each dimension's range."""
    low, high = codes.min(0).values, codes.max(0).values
    width = (high - low).where(high > low, torch.ones_like(low))
    return ((codes - low) / width * bins).long().clamp(max=bins - 1)


def mutual_information(codes: Tensor, factors: Tensor, bins: int = BINS) -> Tensor:
    """I(z_j; v_k) in nats of each dimension and factor, (Z, F), float64."""
    found = binned(codes, bins)
    return torch.tensor(
        [[_of_two(z, v) for v in factors.T] for z in found.T],
        dtype=torch.float64,
    )


def entropies(factors: Tensor) -> Tensor:
    """H(v_k) in nats of each factor, (F,), float64."""
    shares = (torch.bincount(v).double() / len(v) for v in factors.T)
    return torch.stack([torch.special.entr(share).sum() for share in shares])


def mutual_information_gap(information: Tensor, entropy: Tensor) -> float:
    """MIG: the mean over factors of (I of the best dimension - I of the second) / H(v_k), of I (Z, F) and H (F,).

    Chen et al. (2018), eq. 6. 1 where each factor is told by one dimension alone, 0 where two tell it equally.

    Raises:
        ValueError: there is one dimension.
    """
    if len(information) < 2:
        raise ValueError("a gap between dimensions needs 2 or more")
    best, second = information.topk(2, dim=0).values
    gap: float = ((best - second) / entropy).mean().item()
    return gap


def modularity(information: Tensor) -> float:
    """The mean over dimensions of how little a dimension tells about factors other than its best, of I (Z, F).

        1 - sum_{k != best} I(z_j; v_k)^2 / ((F - 1) I(z_j; v_best)^2)

    Ridgeway & Mozer (2018); 0 of a dimension that tells nothing. Not low for noise: what a finite set
    seems to tell by chance has a best factor, too.
    """
    squared = information.square()
    best = squared.max(1).values
    others = squared.sum(1) - best
    score = 1 - others / (best * (information.shape[1] - 1)).where(best > 0, torch.ones_like(best))
    mean: float = score.where(best > 0, torch.zeros_like(best)).mean().item()
    return mean


def _of_two(a: Tensor, b: Tensor) -> float:
    counts = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(counts, (a.numpy(), b.numpy()), 1)
    joint = torch.from_numpy(counts) / len(a)
    independent = joint.sum(1, keepdim=True) * joint.sum(0)
    some = joint > 0
    return max(0.0, (joint[some] * (joint[some] / independent[some]).log()).sum().item())
