import math

import pytest
import torch
from scipy import integrate
from torch.distributions import Independent, Normal, kl_divergence

from vaelab.models.distributions import Flowed, GaussianChain, Laplace, MultivariateNormal, product
from vaelab.models.distributions import Normal as OwnNormal
from vaelab.models.networks.flows import flow


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def normal(*shape):
    return OwnNormal(torch.randn(*shape, dtype=torch.float64), 0.3 + torch.rand(*shape, dtype=torch.float64))


def independent(*shape):
    return Independent(normal(*shape), 1)


def dependent(batch, dim):
    scale = torch.randn(batch, dim, dim, dtype=torch.float64).tril(-1)
    scale = scale + (0.3 + torch.rand(batch, dim, dtype=torch.float64)).diag_embed()
    return MultivariateNormal(torch.randn(batch, dim, dtype=torch.float64), scale_tril=scale)


def curved(batch, dim):
    """A normal that an autoregressive flow bends, off its start near the identity."""
    torch.manual_seed(1)
    transform = flow("maf", dim, context=2, transforms=2, hidden=[8]).double().transform
    for parameter in transform.parameters():
        parameter.data.mul_(1.4)
    return Flowed(independent(batch, dim), transform(torch.randn(batch, 2, dtype=torch.float64)))


def chain(batch, *, downwards):
    def given(y):
        return OwnNormal(0.8 * y + 0.2 * y**2, 0.4 + 0.3 * torch.sigmoid(y))

    return GaussianChain(normal(batch, 1), [given], sizes=[1, 1], downwards=downwards)


PAIRS = {
    "dependent": lambda: dependent(3, 2),
    "laplace": lambda: Independent(Laplace(*torch.rand(2, 3, 2, dtype=torch.float64).add(0.2)), 1),
    "flowed": lambda: curved(3, 2),
    "upwards": lambda: chain(3, downwards=False),
    "downwards": lambda: chain(3, downwards=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAIRS)
def test_a_density_in_two_dimensions_integrates_to_one_with_the_moments_of_its_samples(kind):
    p = PAIRS[kind]()
    assert (p.batch_shape, p.event_shape) == ((3,), (2,))
    width = 0.05
    axis = torch.arange(-12, 14, width, dtype=torch.float64) + width / 2
    grid = torch.cartesian_prod(axis, axis)[:, None]  # (N, 1, 2)
    density = p.log_prob(grid).exp() * width**2  # (N, 3)

    # The Riemann sum is that coarse only at the kink of the Laplace.
    torch.testing.assert_close(density.sum(0), torch.ones(3, dtype=torch.float64), atol=3e-3, rtol=0)
    mean = (density[..., None] * grid).sum(0)
    square = (density[..., None] * grid**2).sum(0)
    mixed = (density * grid[..., 0] * grid[..., 1]).sum(0)
    z = p.rsample((100_000,))
    torch.testing.assert_close(z.mean(0), mean, atol=0.03, rtol=0.02)
    torch.testing.assert_close(z.square().mean(0), square, atol=0.03, rtol=0.04)
    torch.testing.assert_close(z.prod(-1).mean(0), mixed, atol=0.05, rtol=0.04)


@pytest.mark.parametrize("kind", ["dependent", "laplace"])
def test_the_closed_form_of_the_kl_is_the_mean_of_the_log_ratio(kind):
    q, p = PAIRS[kind](), independent(2)
    z = q.sample((200_000,))
    ratio = q.log_prob(z) - p.log_prob(z)

    error = 5 * ratio.std(0).max().item() / math.sqrt(200_000)
    torch.testing.assert_close(kl_divergence(q, p), ratio.mean(0), atol=error, rtol=0)


def test_the_kl_of_a_diagonal_covariance_is_that_of_independent_normals():
    q = independent(3, 4)
    same = MultivariateNormal(q.mean, scale_tril=q.stddev.diag_embed())
    p = independent(4)

    torch.testing.assert_close(kl_divergence(same, p), kl_divergence(q, p), rtol=1e-12, atol=0)


def test_a_multivariate_normal_has_no_kl_to_what_is_not_normal():
    with pytest.raises(NotImplementedError, match="Laplace"):
        kl_divergence(dependent(3, 2), Independent(Laplace(torch.zeros(2), torch.ones(2)), 1))


def test_the_covariance_of_samples_is_that_of_the_triangle():
    q = dependent(1, 3)
    z = q.rsample((100_000,)).squeeze(1)

    torch.testing.assert_close(z.T.cov(), q.covariance_matrix[0], atol=0.03, rtol=0.03)


def test_laplaces_noise_is_that_of_the_formula():
    loc, scale = torch.zeros(4, 3), torch.full((4, 3), 2.0)
    torch.manual_seed(1)
    z = Laplace(loc, scale).rsample((5,))
    torch.manual_seed(1)
    u = 2 * torch.rand(5, 4, 3) - 1

    torch.testing.assert_close(z, -2 * u.sign() * (1 - u.abs()).log(), rtol=1e-4, atol=1e-6)


def test_a_flow_inverts_and_the_density_of_its_own_sample_needs_no_inverse():
    p = curved(3, 4)
    z = p.rsample((5,))
    remembered, anew = p.log_prob(z), p.log_prob(z.clone())

    torch.testing.assert_close(remembered, anew, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(p.flow.call_and_ladj(p.flow.inv(z))[0], z, rtol=1e-6, atol=1e-6)


def test_the_density_of_a_constant_sample_is_a_function_of_the_parameters():
    p = curved(3, 4)
    loc = p.base.base_dist.loc.requires_grad_()

    z = p.sample()
    (gradient,) = torch.autograd.grad(p.log_prob(z).sum(), loc)

    assert not z.requires_grad
    assert gradient.any()


@pytest.mark.parametrize("downwards", [False, True])
def test_a_chains_layers_are_drawn_one_after_the_other(downwards):
    p = chain(3, downwards=downwards)
    z = p.rsample((7,))
    first, second = (z[..., 1:], z[..., :1]) if downwards else (z[..., :1], z[..., 1:])

    by_hand = p.first.log_prob(first) + p.conditionals[0](first).log_prob(second)

    torch.testing.assert_close(p.log_prob(z), by_hand.squeeze(-1), rtol=1e-12, atol=0)


def test_a_linear_chain_is_the_joint_normal():
    """z_2 ~ N(1, 0.5^2), z_1 | z_2 ~ N(2 z_2, 0.3^2)."""
    top = OwnNormal(torch.ones(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64))
    p = GaussianChain(top, [lambda y: OwnNormal(2 * y, torch.full_like(y, 0.3))], sizes=[1, 1], downwards=True)
    covariance = torch.tensor([[4 * 0.25 + 0.09, 0.5], [0.5, 0.25]], dtype=torch.float64)
    joint = torch.distributions.MultivariateNormal(torch.tensor([2.0, 1.0], dtype=torch.float64), covariance)
    z = torch.randn(6, 2, dtype=torch.float64)

    torch.testing.assert_close(p.log_prob(z), joint.log_prob(z), rtol=1e-9, atol=0)
    torch.testing.assert_close(p.mean, joint.mean)


def test_the_product_of_two_normals_is_proportional_to_their_densities():
    one, other = normal(5), normal(5)
    both = product(one, other)
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]

    difference = one.log_prob(z) + other.log_prob(z) - both.log_prob(z)

    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=1e-10, atol=1e-10)
    total, _ = integrate.quad(lambda x: both.log_prob(torch.tensor(x)).exp()[0].item(), -30, 30, points=[both.loc[0]])
    assert total == pytest.approx(1, abs=1e-6)
    assert isinstance(both, Normal)
