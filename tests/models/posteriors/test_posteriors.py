import math
from functools import partial

import pytest
import torch
from torch import nn

from vaelab.models.posteriors import (
    IAF,
    Deterministic,
    FiniteScalarQuantizer,
    FullCovarianceGaussian,
    Gaussian,
    GumbelSoftmax,
    Laplace,
    VectorQuantizer,
    VonMisesFisher,
)

FEATURES, LATENT = 5, 3
POSTERIORS = [
    Deterministic,
    partial(FiniteScalarQuantizer, levels=[5, 4, 3]),
    FullCovarianceGaussian,
    Gaussian,
    partial(GumbelSoftmax, codes=2),
    IAF,
    Laplace,
    partial(VectorQuantizer, codebook_size=4, codes=2, update="gradient"),
    VonMisesFisher,
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("posterior_class", POSTERIORS)
def test_batch_and_event_are_the_images_and_the_latent_dimensions(posterior_class):
    posterior = posterior_class(FEATURES, LATENT)
    q = posterior(torch.randn(7, FEATURES))
    z = posterior.latent_dim

    assert z == LATENT * getattr(posterior, "codes", 1)
    assert (q.batch_shape, q.event_shape) == ((7,), (z,))
    assert q.rsample((4, 2)).shape == (4, 2, 7, z)
    assert q.mean.shape == (7, z)


@pytest.mark.parametrize(
    "posterior_class", [kind for kind in POSTERIORS if "codes" not in getattr(kind, "keywords", {})]
)
def test_a_grid_of_features_will_do_as_well(posterior_class):
    posterior = posterior_class((2, 3, 4), LATENT)
    q = posterior(torch.randn(7, 2, 3, 4))

    assert q.rsample().shape == (7, posterior.latent_dim)


@pytest.mark.parametrize("posterior_class", POSTERIORS)
def test_a_posterior_that_says_it_has_a_density_has_one(posterior_class):
    posterior = posterior_class(FEATURES, LATENT)
    q = posterior(torch.randn(7, FEATURES))

    if posterior.has_density:
        assert q.log_prob(q.rsample()).shape == (7,)
    else:
        with pytest.raises(NotImplementedError):
            q.log_prob(q.rsample())


@pytest.mark.parametrize("posterior_class", POSTERIORS)
def test_a_gradient_through_a_sample_reaches_every_parameter_and_the_features(posterior_class):
    posterior = posterior_class(FEATURES, LATENT)
    features = torch.randn(7, FEATURES, requires_grad=True)

    q = posterior(features)
    weights = torch.randn(posterior.latent_dim)
    loss = (q.rsample().sin() * weights).sum()
    if getattr(q, "codebook_error", None) is not None:
        loss = loss + q.codebook_error.sum()
    loss.backward()

    for name, tensor in [("features", features), *posterior.named_parameters()]:
        assert tensor.grad.abs().sum() > 0, name


def test_a_deterministic_posterior_is_a_linear_map():
    posterior = Deterministic(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)

    torch.testing.assert_close(posterior(features).mean, features @ posterior.code.weight.T + posterior.code.bias)


def test_the_activation_is_applied_to_the_code():
    posterior = Deterministic(FEATURES, LATENT, activation="relu")
    features = torch.randn(50, FEATURES)
    code = posterior(features).rsample()

    torch.testing.assert_close(code, nn.functional.linear(features, *posterior.code.parameters()).clamp(min=0))
    assert (code == 0).any()
    assert (code > 0).any()


def test_the_gaussian_has_the_mean_and_the_log_variance_of_the_two_halves_of_its_projection():
    posterior = Gaussian(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)
    q = posterior(features)

    mean, log_variance = posterior.mean_and_log_variance(features).chunk(2, -1)
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.variance, log_variance.exp())


def test_the_gaussians_log_prob_is_the_formula_summed_over_the_latent_dimensions():
    posterior = Gaussian(FEATURES, LATENT).double()
    features, z = torch.randn(7, FEATURES).double(), torch.randn(7, LATENT).double()
    mean, log_variance = posterior.mean_and_log_variance(features).chunk(2, -1)

    expected = -0.5 * (math.log(2 * math.pi) + log_variance + (z - mean) ** 2 / log_variance.exp()).sum(1)

    torch.testing.assert_close(posterior(features).log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_the_gaussians_sample_is_mean_plus_deviation_times_noise():
    posterior = Gaussian(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)

    torch.manual_seed(1)
    z = posterior(features).rsample()
    torch.manual_seed(1)
    noise = torch.randn(7, LATENT)

    mean, log_variance = posterior.mean_and_log_variance(features).chunk(2, -1)
    torch.testing.assert_close(z, mean + (0.5 * log_variance).exp() * noise)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_gaussians_density_integrates_to_one(latent_dim):
    q = Gaussian(FEATURES, latent_dim).double()(torch.randn(1, FEATURES).double())
    width = 0.05
    axis = torch.arange(-10, 10, width, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * latent_dim).reshape(-1, 1, latent_dim)

    # A Riemann sum over a smooth density is exact to far more than this once the grid is finer than its deviation.
    assert q.log_prob(grid).exp().sum().item() * width**latent_dim == pytest.approx(1, abs=1e-6)


def test_the_full_covariance_is_that_of_a_triangle_with_the_deviations_on_its_diagonal():
    posterior = FullCovarianceGaussian(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)
    q = posterior(features)

    a, b, c, d, e, f = posterior.triangle(features).T
    zero = torch.zeros(7)
    scale = torch.stack([a.exp(), zero, zero, b, c.exp(), zero, d, e, f.exp()], 1).reshape(7, 3, 3)
    torch.testing.assert_close(q.covariance_matrix, scale @ scale.transpose(1, 2))
    assert FullCovarianceGaussian(FEATURES, 1)(features).rsample().shape == (7, 1)


def test_the_flow_is_told_of_the_features():
    posterior = IAF(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)
    with torch.no_grad():
        posterior.mean.weight.zero_()
        posterior.log_variance.weight.zero_()

    assert posterior(features).mean.std(0).min() > 0


def test_a_sphere_has_a_direction_and_a_concentration_above_one():
    q = VonMisesFisher(FEATURES, LATENT)(10 * torch.randn(70, FEATURES))

    torch.testing.assert_close(q.mean.norm(dim=-1), torch.ones(70))
    assert q.concentration.min() > 1


def test_in_one_dimension_there_is_no_sphere():
    with pytest.raises(ValueError, match="latent_dim=2"):
        VonMisesFisher(FEATURES, 1)
