import math

import pytest
import torch
from torch import nn

from vaelab.posteriors import Deterministic, Gaussian

FEATURES, LATENT = 5, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("posterior_class", [Deterministic, Gaussian])
def test_batch_and_event_are_the_images_and_the_latent_dimensions(posterior_class):
    q = posterior_class(FEATURES, LATENT)(torch.randn(7, FEATURES))

    assert (q.batch_shape, q.event_shape) == ((7,), (LATENT,))
    assert q.rsample((4, 2)).shape == (4, 2, 7, LATENT)


@pytest.mark.parametrize("posterior_class", [Deterministic, Gaussian])
def test_a_posterior_that_says_it_has_a_density_has_one(posterior_class):
    posterior = posterior_class(FEATURES, LATENT)
    q = posterior(torch.randn(7, FEATURES))

    if posterior.has_density:
        assert q.log_prob(q.rsample()).shape == (7,)
    else:
        with pytest.raises(NotImplementedError):
            q.log_prob(q.rsample())


@pytest.mark.parametrize("posterior_class", [Deterministic, Gaussian])
def test_a_gradient_through_a_sample_reaches_every_parameter_and_the_features(posterior_class):
    posterior = posterior_class(FEATURES, LATENT)
    features = torch.randn(7, FEATURES, requires_grad=True)

    posterior(features).rsample().square().sum().backward()

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


def test_the_gaussian_has_the_mean_and_the_log_variance_of_its_two_projections():
    posterior = Gaussian(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)
    q = posterior(features)

    torch.testing.assert_close(q.mean, posterior.mean(features))
    torch.testing.assert_close(q.variance, posterior.log_variance(features).exp())


def test_the_gaussians_log_prob_is_the_formula_summed_over_the_latent_dimensions():
    posterior = Gaussian(FEATURES, LATENT).double()
    features, z = torch.randn(7, FEATURES).double(), torch.randn(7, LATENT).double()
    mean, log_variance = posterior.mean(features), posterior.log_variance(features)

    expected = -0.5 * (math.log(2 * math.pi) + log_variance + (z - mean) ** 2 / log_variance.exp()).sum(1)

    torch.testing.assert_close(posterior(features).log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_the_gaussians_sample_is_mean_plus_deviation_times_noise():
    posterior = Gaussian(FEATURES, LATENT)
    features = torch.randn(7, FEATURES)

    torch.manual_seed(1)
    z = posterior(features).rsample()
    torch.manual_seed(1)
    noise = torch.randn(7, LATENT)

    mean, log_variance = posterior.mean(features), posterior.log_variance(features)
    torch.testing.assert_close(z, mean + (0.5 * log_variance).exp() * noise)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_gaussians_density_integrates_to_one(latent_dim):
    q = Gaussian(FEATURES, latent_dim).double()(torch.randn(1, FEATURES).double())
    width = 0.05
    axis = torch.arange(-10, 10, width, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * latent_dim).reshape(-1, 1, latent_dim)

    # A Riemann sum over a smooth density is exact to far more than this once the grid is finer than its deviation.
    assert q.log_prob(grid).exp().sum().item() * width**latent_dim == pytest.approx(1, abs=1e-6)
