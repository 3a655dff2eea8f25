"""Compare two sets of features by kernel distance, precision and recall, density and coverage."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**22  # of rows whose kernel or distance is in memory


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


def kernel_distance(x: Tensor, y: Tensor, *, paired: bool = False) -> Estimate:
    """Squared maximum mean discrepancy of x (N, D) and y (M, D) under k(a, b) = (a.b / D + 1)^3, unbiased.

        1/(N(N-1)) sum_{i!=j} k(x_i, x_j) + 1/(M(M-1)) sum_{i!=j} k(y_i, y_j) - 2/(NM) sum_ij k(x_i, y_j)

    Binkowski et al. (2018), on all rows and not on subsets of them; it may be below 0. The standard error
    is the jackknife's, over rows of x and rows of y: in expectation not too small (Efron & Stein 1981), and too large
    by at most a factor of sqrt(2), where the two distributions are the same.

    Args:
        x: features.
        y: others.
        paired: row i of y is made of row i of x, as a reconstruction is: the two are left out of the third sum, which
            keeps the estimate unbiased, and rows are deleted in pairs.

    Raises:
        ValueError: there are fewer than 3 rows, or paired sets of different sizes.
    """
    n, m = len(x), len(y)
    if min(n, m) < 3:
        raise ValueError(f"a kernel distance needs 3 images or more of each kind, and there are {min(n, m)}")
    if paired and n != m:
        raise ValueError(f"paired sets should have the same number of rows; found {n} and {m}")
    x, y = x.double(), y.double()
    within_x, within_y = _row_sums(x, x, skip_diagonal=True), _row_sums(y, y, skip_diagonal=True)
    of_x = _row_sums(x, y, skip_diagonal=paired)  # of each x over the y
    of_y = _row_sums(y, x, skip_diagonal=paired)
    sums = within_x.sum(), within_y.sum(), of_x.sum()
    value = _mmd(*sums, n, m, paired)
    if paired:
        left = _mmd(sums[0] - 2 * within_x, sums[1] - 2 * within_y, sums[2] - of_x - of_y, n - 1, n - 1, paired)
        variance = _jackknife(left)
    else:
        without_x = _mmd(sums[0] - 2 * within_x, sums[1], sums[2] - of_x, n - 1, m, paired)
        without_y = _mmd(sums[0], sums[1] - 2 * within_y, sums[2] - of_y, n, m - 1, paired)
        variance = _jackknife(without_x) + _jackknife(without_y)
    return Estimate(value.item(), variance.sqrt().item())


class Fidelity(NamedTuple):
    """Overlap of generated and real features."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def fidelity(real: Tensor, generated: Tensor, *, manifold: int = 3, ball: int = 5) -> Fidelity:
    """Precision and recall, density and coverage of features (N, D) and (M, D).

    Precision is the share of generated rows within the ball around some real row that reaches to its `manifold`-th
    nearest other real row, recall the same with the sets exchanged (Kynkaanniemi et al. 2019). Density is
    the mean number of real balls, to the `ball`-th neighbour, that a generated row is in, divided by `ball`; coverage
    the share of real balls with a generated row in it (Naeem et al. 2020). Standard errors are those of a
    mean over rows, the other set being given.

    Raises:
        ValueError: there are no more rows than neighbours.
    """
    least = max(manifold, ball) + 1
    if min(len(real), len(generated)) < least:
        raise ValueError(
            f"{least - 1} neighbours need {least} images or more, and there are {min(len(real), len(generated))}"
        )
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = _radii(real, (manifold, ball)), _radii(generated, (manifold,))
    near_real = torch.zeros(len(generated), dtype=torch.bool, device=real.device)
    near_generated, covered = [], []
    balls = torch.zeros(len(generated), dtype=torch.float64, device=real.device)
    for rows, distances in _distances(real, generated):  # (B, M)
        near_real |= (distances <= real_radii[rows, 0, None]).any(0)
        near_generated.append((distances <= generated_radii[:, 0]).any(1))
        inside = distances <= real_radii[rows, 1, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
    of_rows = (near_real, torch.cat(near_generated), balls / ball, torch.cat(covered))
    return Fidelity(*(_mean(values.double()) for values in of_rows))


def _mmd(within_x: Tensor, within_y: Tensor, across: Tensor, n: int, m: int, paired: bool) -> Tensor:
    pairs = n * (n - 1) if paired else n * m
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / pairs


def _jackknife(left_out: Tensor) -> Tensor:
    """Variance of an estimate from those with one of n rows left out, (n,)."""
    n = len(left_out)
    return (n - 1) / n * (left_out - left_out.mean()).square().sum()


def _row_sums(x: Tensor, y: Tensor, *, skip_diagonal: bool) -> Tensor:
    """Sum_j k(x_i, y_j) of each row of x, (N,), less that of j = i where the diagonal is skipped."""
    sums = torch.cat([_kernel(part @ y.T, x.shape[1]).sum(1) for part in x.split(_at_once(y))])
    return sums - _kernel((x * y).sum(1), x.shape[1]) if skip_diagonal else sums


def _kernel(products: Tensor, features: int) -> Tensor:
    return (products / features + 1) ** 3


def _radii(rows: Tensor, neighbours: tuple[int, ...]) -> Tensor:
    """Squared distance of each row to its k-th nearest other row, (N, len(neighbours))."""
    found = []
    for numbers, distances in _distances(rows, rows):
        own = torch.arange(len(rows), device=rows.device)[numbers]
        distances[torch.arange(len(own), device=rows.device), own] = -1  # itself, before all others
        nearest = distances.topk(max(neighbours) + 1, largest=False).values
        found.append(nearest[:, list(neighbours)])
    return torch.cat(found)


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared Euclidean distances (B, M) of some rows of x at a time, and which these are."""
    size, norms = _at_once(y), y.square().sum(1)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        squared = part.square().sum(1, keepdim=True) + norms - 2 * part @ y.T
        yield slice(start, start + size), squared.clamp_(min=0)


def _at_once(y: Tensor) -> int:
    return max(1, PAIRS_AT_ONCE // len(y))


def _mean(values: Tensor) -> Estimate:
    return Estimate(values.mean().item(), values.std().item() / len(values) ** 0.5)
