import math

import pytest
import torch
from scipy.special import ive
from torch import nn
from torch.distributions import kl_divergence

from vaelab.models.distributions import HypersphericalUniform, VonMisesFisher
from vaelab.models.distributions.sphere import PROPOSALS, _slope_of_cosine

DIMS = [2, 3, 4, 10, 50]
CONCENTRATIONS = [0.01, 1.0, 10.0, 100.0, 5000.0]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def von_mises_fisher(dim, kappa, batch=1, dtype=torch.float64):
    direction = nn.functional.normalize(torch.randn(batch, dim, dtype=dtype), dim=-1)
    return VonMisesFisher(direction, torch.full((batch,), float(kappa), dtype=dtype))


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kappa", CONCENTRATIONS)
def test_normaliser_and_mean_cosine_are_the_bessel_functions_that_they_should_be(dim, kappa):
    q = von_mises_fisher(dim, kappa)
    order = dim / 2 - 1
    log_normaliser = order * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - (math.log(ive(order, kappa)) + kappa)

    assert q.log_prob(q.mean).item() == pytest.approx(log_normaliser + kappa, rel=1e-10, abs=1e-9)
    assert q.mean_cosine.item() == pytest.approx(ive(order + 1, kappa) / ive(order, kappa), rel=1e-10)
    assert q.log_prob(-q.mean).item() == pytest.approx(log_normaliser - kappa, rel=1e-10, abs=1e-9)


@pytest.mark.parametrize("dim", DIMS)
def test_single_precision_loses_nothing_that_matters(dim):
    for kappa in CONCENTRATIONS:
        double, single = von_mises_fisher(dim, kappa), von_mises_fisher(dim, kappa, dtype=torch.float32)
        uniform = HypersphericalUniform(torch.zeros(()), dim)

        kl = kl_divergence(double, uniform).item()
        assert kl_divergence(single, uniform).item() == pytest.approx(kl, rel=1e-4, abs=1e-5)


def test_the_densities_integrate_to_one_on_circle_and_sphere():
    angle = (torch.arange(20_000, dtype=torch.float64) + 0.5) * 2 * math.pi / 20_000
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    height = (torch.arange(4000, dtype=torch.float64) + 0.5) / 2000 - 1  # of equal areas (Archimedes)
    sphere = torch.stack([height, (1 - height**2).sqrt(), torch.zeros_like(height)], -1)
    at_pole = VonMisesFisher(torch.eye(3, dtype=torch.float64)[0], torch.tensor(7.0, dtype=torch.float64))

    for p in (von_mises_fisher(2, 7.0), HypersphericalUniform(torch.zeros(()), 2)):
        assert p.log_prob(circle).exp().mean().item() * 2 * math.pi == pytest.approx(1, abs=1e-9)
    for p in (at_pole, HypersphericalUniform(torch.zeros(()), 3)):
        assert p.log_prob(sphere).exp().mean().item() * 4 * math.pi == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kappa", [0.01, 2.0, 100.0])
def test_samples_lie_on_the_sphere_with_the_cosine_and_the_directions_that_they_should_have(dim, kappa):
    q = von_mises_fisher(dim, kappa)
    z = q.rsample((20_000,)).squeeze(1)
    cosine = z @ q.mean[0]

    torch.testing.assert_close(z.norm(dim=-1), torch.ones(20_000, dtype=torch.float64))
    mean = q.mean_cosine.item()
    variance = 1 - mean**2 - (dim - 1) / kappa * mean  # of cos(theta)
    assert cosine.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / 20_000))
    assert cosine.var().item() == pytest.approx(variance, rel=0.1)
    tangent = nn.functional.normalize(z - cosine[:, None] * q.mean, dim=-1)
    assert tangent.mean(0).norm().item() < 5 / math.sqrt(20_000)


def test_no_sample_is_left_without_an_accepted_proposal():
    # The worst acceptance rate of Wood's envelope, over dimensions and concentrations, is above 0.6.
    assert 0.4**PROPOSALS < 1e-15
    for dim in DIMS:
        for kappa in CONCENTRATIONS:
            q = von_mises_fisher(dim, kappa)
            b = (dim - 1) / (2 * kappa + math.hypot(2 * kappa, dim - 1))
            x = (1 - b) / (1 + b)
            beta = torch.distributions.Beta((dim - 1) / 2, (dim - 1) / 2).sample((10_000,)).double()
            w = (1 - (1 + b) * beta) / (1 - (1 - b) * beta)
            log_ratio = kappa * w + (dim - 1) * torch.log(1 - x * w) - kappa * x - (dim - 1) * math.log(1 - x**2)
            assert log_ratio.exp().mean().item() > 0.6, (dim, q)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kappa", [1.0, 20.0, 400.0])
def test_the_gradient_of_samples_in_the_concentration_is_that_of_the_mean(dim, kappa):
    n = 20_000
    concentration = torch.full((n,), kappa, dtype=torch.float64, requires_grad=True)
    direction = torch.eye(dim, dtype=torch.float64)[0].expand(n, dim)
    (slopes,) = torch.autograd.grad(VonMisesFisher(direction, concentration).rsample()[:, 0].sum(), concentration)

    mean = von_mises_fisher(dim, kappa).mean_cosine.item()
    expected = 1 - mean**2 - (dim - 1) / kappa * mean  # dA / dkappa (Sra 2012)
    assert slopes.mean().item() == pytest.approx(expected, abs=5 * slopes.std().item() / math.sqrt(n))


@pytest.mark.parametrize("dim", [3, 20])
@pytest.mark.parametrize("kappa", [1.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_of_a_cosine_is_that_of_its_distribution_function_in_both_tails(dim, kappa, dtype):
    """Against differences of the probability of what lies between theta and the nearer pole, on a fine grid."""
    cosines = torch.tensor([-0.999, -0.99, -0.8, -0.1, 0.3, 0.9, 0.999], dtype=torch.float64)
    grid = torch.linspace(0, math.pi, 400_001, dtype=torch.float64)[1:-1]
    step = 1e-4

    def density(k):
        log_p = k * (grid.cos() - 1) + (dim - 2) * grid.sin().log()
        return (log_p - log_p.logsumexp(0)).exp() / (math.pi / 400_000)

    p = [density(kappa + shift) for shift in (-step, 0, step)]
    mean = (p[1] * grid.cos()).sum().item() * math.pi / 400_000
    expected = []
    for cosine in cosines:
        theta = math.acos(cosine)
        below = grid <= theta
        side, sign = (below, 1) if cosine >= mean else (~below, -1)
        change = sign * (p[2][side] - p[0][side]).sum() * (math.pi / 400_000) / (2 * step)
        expected.append(math.sin(theta) * change / p[1][below.sum() - 1])
    q = von_mises_fisher(dim, kappa)
    slopes = _slope_of_cosine(
        cosines.to(dtype), torch.full((7,), kappa, dtype=dtype), q.mean_cosine.expand(7).to(dtype), dim
    )

    # The grid's cells end up to half a cell from theta.
    torch.testing.assert_close(slopes.double(), torch.stack(expected), rtol=5e-3, atol=1e-6)


def test_the_gradient_of_samples_reaches_the_direction():
    direction = nn.functional.normalize(torch.randn(4, 5), dim=-1).requires_grad_()

    VonMisesFisher(direction, torch.full((4,), 3.0)).rsample().pow(3).sum().backward()

    assert direction.grad.isfinite().all()
    assert direction.grad.any()


@pytest.mark.parametrize("dim", DIMS)
def test_the_kl_to_the_uniform_is_the_mean_of_the_log_ratio(dim):
    q, p = von_mises_fisher(dim, 5.0), HypersphericalUniform(torch.zeros((), dtype=torch.float64), dim)
    z = q.rsample((20_000,))
    ratio = q.log_prob(z) - p.log_prob(z)

    error = 5 * ratio.std().item() / math.sqrt(20_000)
    assert kl_divergence(q, p).item() == pytest.approx(ratio.mean().item(), abs=error)


def test_uniform_samples_are_unit_vectors_around_zero():
    z = HypersphericalUniform(torch.zeros(()), 6).sample((20_000,))

    torch.testing.assert_close(z.norm(dim=-1), torch.ones(20_000))
    torch.testing.assert_close(z.T.cov(), torch.eye(6) / 6, atol=0.01, rtol=0)
