import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from vaelab.likelihoods import Bernoulli, Gaussian

SHAPE = (3, 4, 5)


@pytest.fixture
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def parameters():
    return 3 * torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("likelihood", [Bernoulli(SHAPE), Gaussian(SHAPE)], ids=str)
@pytest.mark.parametrize("batch", [(), (6,), (2, 6)], ids=str)
def test_the_event_is_an_image_and_the_rest_is_batch(likelihood, batch):
    p = likelihood(torch.zeros(*batch, *likelihood.parameter_shape))

    assert (p.batch_shape, p.event_shape) == (batch, SHAPE)
    assert p.log_prob(torch.zeros(SHAPE)).shape == batch
    assert p.mean.shape == (*batch, *SHAPE)


@pytest.mark.parametrize("grey", [True, False])
def test_bernoullis_log_prob_is_the_negative_binary_cross_entropy(images, parameters, grey):
    x = images if grey else images.round()

    log_prob = Bernoulli(SHAPE)(parameters).log_prob(x)

    cross_entropy = F.binary_cross_entropy_with_logits(parameters, x, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(log_prob, -cross_entropy, rtol=1e-12, atol=0)
    m = 1 / (1 + (-parameters).exp())
    by_hand = (x * m.log() + (1 - x) * (1 - m).log()).sum((1, 2, 3))
    torch.testing.assert_close(log_prob, by_hand, rtol=1e-9, atol=0)


def test_bernoullis_mean_is_the_sigmoid(parameters):
    torch.testing.assert_close(Bernoulli(SHAPE)(parameters).mean, 1 / (1 + (-parameters).exp()))


def test_bernoulli_stays_exact_where_a_sigmoid_rounds_to_zero_or_one():
    p = Bernoulli((1, 1, 2))(torch.tensor([[[[300.0, -300.0]]]]))

    assert p.log_prob(torch.tensor([[[1.0, 0.0]]])).item() == 0
    assert p.log_prob(torch.tensor([[[0.0, 1.0]]])).item() == -600


def test_bernoullis_probabilities_of_all_binary_images_add_up_to_one():
    p = Bernoulli((1, 2, 2))(torch.tensor([[[0.3, -2.0], [1.5, 4.0]]], dtype=torch.float64))
    images = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64).reshape(-1, 1, 2, 2)

    assert p.log_prob(images).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_bernoulli_is_no_density_over_grey_images():
    p = Bernoulli((1, 1, 1))(torch.zeros(1, 1, 1, dtype=torch.float64))
    grey = torch.linspace(0, 1, 1001, dtype=torch.float64).reshape(-1, 1, 1, 1)

    # exp(-BCE) at logit 0 is 1/2 for every grey value, so its integral over [0, 1] is 1/2.
    assert torch.trapezoid(p.log_prob(grey).exp(), dx=0.001).item() == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.5])
def test_gaussians_log_prob_is_the_formula_with_its_constant(images, parameters, scale):
    squared_error = (images - parameters).square().sum((1, 2, 3))
    constant = math.prod(SHAPE) * math.log(scale * math.sqrt(2 * math.pi))

    log_prob = Gaussian(SHAPE, scale=scale)(parameters).log_prob(images)

    torch.testing.assert_close(-log_prob, squared_error / (2 * scale**2) + constant, rtol=1e-12, atol=0)


def test_gaussians_mean_is_what_the_decoder_says(parameters):
    assert Gaussian(SHAPE, scale=0.3)(parameters).mean.equal(parameters)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (2, 1, 1)], ids=str)
def test_gaussians_density_integrates_to_one(shape):
    dims = math.prod(shape)
    p = Gaussian(shape, scale=0.4)(torch.linspace(-0.5, 0.7, dims, dtype=torch.float64).reshape(shape))
    width = 0.05
    axis = torch.arange(-5, 5, width, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dims).reshape(-1, *shape)

    assert p.log_prob(grid).exp().sum().item() * width**dims == pytest.approx(1, abs=1e-9)


def test_gaussians_samples_have_its_scale():
    torch.manual_seed(0)
    samples = Gaussian((1, 1, 1), scale=0.4)(torch.zeros(1, 1, 1)).sample((20_000,))

    assert samples.std().item() == pytest.approx(0.4, abs=5 * 0.4 / math.sqrt(2 * 20_000))


def test_double_precision_stays_double():
    mean = torch.zeros(SHAPE, dtype=torch.float64)

    assert Gaussian(SHAPE, scale=0.1)(mean).log_prob(mean).item() == pytest.approx(
        -math.prod(SHAPE) * math.log(0.1 * math.sqrt(2 * math.pi)), rel=1e-14
    )
