import math

import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from vaelab.metrics.frechet import Moments, extrapolated, frechet_distance


def moments(rows: torch.Tensor, batch: int = 1000) -> Moments:
    found = Moments()
    for part in rows.split(batch):
        found.add(part)
    return found


def exactly(mean: torch.Tensor, covariance: torch.Tensor) -> Moments:
    """Moments that are those of a Gaussian, of very many rows."""
    found = Moments()
    found.count, found.mean, found.scatter = 1_000_001, mean.double(), covariance.double() * 1_000_000
    return found


def test_between_gaussians_it_has_its_closed_form() -> None:
    scales, others = torch.tensor([0.5, 1.0, 3.0]).double(), torch.tensor([2.0, 1.0, 0.1]).double()
    means = torch.tensor([1.0, 0.0, -2.0]).double(), torch.tensor([0.0, 0.5, 1.0]).double()
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    turned = [rotation @ torch.diag(scale**2) @ rotation.T for scale in (scales, others)]

    found = frechet_distance(*(exactly(mean, cov) for mean, cov in zip(means, turned, strict=True)))

    # Covariances that commute: the sum of (s1 - s2)^2 over their axes.
    closed = (means[0] - means[1]).square().sum() + (scales - others).square().sum()
    assert found == pytest.approx(closed.item(), rel=1e-10)
    assert frechet_distance(exactly(means[0], turned[0]), exactly(means[0], turned[0])) == pytest.approx(0, abs=1e-10)


def test_covariances_that_do_not_commute_agree_with_the_matrix_root_of_scipy() -> None:
    from scipy.linalg import sqrtm

    generator = torch.Generator().manual_seed(2)
    a, b = (torch.cov(torch.randn(5, 40, generator=generator).double()) for _ in range(2))
    zero = torch.zeros(5)

    closed = torch.trace(a + b).item() - 2 * sqrtm((a @ b).numpy()).trace().real

    assert frechet_distance(exactly(zero, a), exactly(zero, b)) == pytest.approx(closed, rel=1e-9)


def test_the_same_features_give_torchmetrics_distance() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(500, 16, generator=generator).double()
    y = torch.randn(700, 16, generator=generator).double() @ torch.randn(16, 16, generator=generator).double() + 0.3

    theirs = _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)).item()

    assert frechet_distance(moments(x), moments(y)) == pytest.approx(theirs, abs=1e-4)


def test_moments_of_batches_are_those_of_all_rows_far_from_zero_too() -> None:
    rows = torch.randn(1003, 4, generator=torch.Generator().manual_seed(4)).double() + 1e6

    parts = moments(rows[:500], 7) + moments(rows[500:], 64)

    assert parts.count == 1003
    assert torch.allclose(parts.mean, rows.mean(0), rtol=1e-14)
    assert torch.allclose(parts.covariance, torch.cov(rows.T), rtol=1e-8)


def test_the_extrapolation_removes_the_bias_of_finite_sets() -> None:
    dimensions, size = 10, 200
    found = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(size, dimensions, generator=generator) for _ in range(2))
        halves = [(moments(rows[: size // 2]), moments(rows[size // 2 :])) for rows in (x, y)]
        found.append(extrapolated(halves[0], halves[1]))
    whole, half, limit = (torch.tensor(values) for values in zip(*found, strict=True))

    # Both sets are of N(0, I): the true distance is 0, that of finite sets falls as 1/N.
    assert half.mean().item() == pytest.approx(2 * whole.mean().item(), rel=0.1)
    error = limit.std().item() / math.sqrt(len(limit))
    assert abs(limit.mean().item()) < 3 * error + 0.02 * whole.mean().item()
    assert whole.mean().item() > 10 * abs(limit.mean().item())


def test_no_more_images_than_features_are_refused() -> None:
    rows = torch.randn(16, 16)

    with pytest.raises(ValueError, match="16 images are too few for a covariance of 16 features"):
        frechet_distance(moments(rows), moments(rows))
