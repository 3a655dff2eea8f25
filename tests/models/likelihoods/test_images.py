import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from vaelab.models.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    OptimalScaleGaussian,
    PixelScaleGaussian,
    SharedScaleGaussian,
)

SHAPE = (3, 4, 5)
LIKELIHOODS = [
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    OptimalScaleGaussian,
    PixelScaleGaussian,
    SharedScaleGaussian,
]


@pytest.fixture
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def parameters():
    return 3 * torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", LIKELIHOODS)
@pytest.mark.parametrize("batch", [(), (6,), (2, 6)], ids=str)
def test_the_event_is_an_image_and_the_rest_is_batch(kind, batch):
    likelihood = kind(SHAPE)
    assert likelihood.shape == SHAPE
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


def grid(low, high, width):
    """Midpoints of cells between low and high, as one-pixel images."""
    return (torch.arange(low, high, width, dtype=torch.float64) + width / 2).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("likelihood", "parameters"),
    [
        (SharedScaleGaussian((1, 1, 1), start=0.3), [0.2]),
        (PixelScaleGaussian((1, 1, 1)), [0.2, -1.0]),
        (OptimalScaleGaussian((1, 1, 1)).eval(), [0.2]),
        (Laplace((1, 1, 1), scale=0.3), [0.2]),
        *[(ContinuousBernoulli((1, 1, 1)), [logit]) for logit in (-40.0, -3.0, -0.049, 0.0, 1e-6, 0.051, 7.0)],
    ],
    ids=str,
)
def test_a_density_integrates_to_one_with_the_mean_and_the_samples_that_it_says(likelihood, parameters):
    p = likelihood.double()(torch.tensor(parameters, dtype=torch.float64).reshape(-1, 1, 1))
    width = 1e-4
    low, high = (0, 1) if likelihood.normalized_over == "interval" else (-15, 15)
    x = grid(low, high, width)
    density = p.log_prob(x).exp()

    assert density.sum().item() * width == pytest.approx(1, abs=1e-5)  # the midpoint rule at the Laplace's kink
    mean = (density * x.flatten()).sum().item() * width
    assert p.mean.item() == pytest.approx(mean, abs=1e-5)
    second = (density * x.flatten() ** 2).sum().item() * width
    torch.manual_seed(0)
    samples = p.sample((40_000,))
    deviation = math.sqrt(second - mean**2)
    assert samples.mean().item() == pytest.approx(mean, abs=5 * deviation / 200)
    assert samples.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("logit", [-80.0, -5.0, -0.05, -0.0499, 0.0, 1e-4, 0.0499, 0.05, 5.0, 80.0])
def test_the_continuous_bernoullis_normaliser_is_that_of_the_paper(logit):
    with_normaliser = ContinuousBernoulli((1, 1, 1))(torch.full((1, 1, 1), logit, dtype=torch.float64))
    without = Bernoulli((1, 1, 1))(torch.full((1, 1, 1), logit, dtype=torch.float64))
    x = torch.full((1, 1, 1), 0.3, dtype=torch.float64)

    normaliser = (with_normaliser.log_prob(x) - without.log_prob(x)).exp().item()

    # C(m) = 2 artanh(1 - 2m) / (1 - 2m), where 1 - 2m = -tanh(logit / 2); 2 at m = 1/2.
    assert normaliser == pytest.approx(logit / math.tanh(logit / 2) if logit else 2, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_continuous_bernoullis_samples_have_the_distribution_function_of_their_noise(dtype, monkeypatch):
    """F(x) = (exp(l x) - 1) / (exp(l) - 1) = u, to the precision of the numbers, for every l."""
    logits = torch.tensor(
        [-30, -3, -0.0501, -0.0499, -1e-3, -1e-7, 0, 1e-7, 1e-3, 0.0499, 0.0501, 3, 30.0], dtype=dtype
    )
    p = ContinuousBernoulli((1, 1, 1))(logits.reshape(-1, 1, 1, 1))
    u = torch.linspace(0.01, 0.99, 99, dtype=dtype).reshape(-1, 1, 1, 1, 1)
    monkeypatch.setattr(type(p), "_uniform", lambda self, shape, like: u.expand(*shape, *like.shape))

    x, l = p.sample((99,)).double(), logits.double().reshape(-1, 1, 1, 1)  # noqa: E741
    reached = torch.where(l == 0, x, torch.expm1(l * x) / torch.where(l == 0, 1, torch.expm1(l)))

    torch.testing.assert_close(reached, u.double().expand_as(x), rtol=0, atol=4e-6 if dtype == torch.float32 else 1e-7)


def test_the_continuous_bernoulli_has_the_numbers_and_gradients_of_torchs():
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64).reshape(-1, 1, 1, 1).requires_grad_()
    theirs = torch.distributions.ContinuousBernoulli(logits=logits)
    ours = ContinuousBernoulli((1, 1, 1))(logits)
    x = torch.full((1, 1, 1), 0.7, dtype=torch.float64)

    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x).flatten(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(ours.log_prob(x).sum(), logits)
    torch.testing.assert_close(gradient, (x - ours.mean), rtol=1e-9, atol=1e-9)  # an exponential family's score


def test_the_optimal_scale_is_the_root_mean_squared_error_of_the_batch(images, parameters):
    log_prob = OptimalScaleGaussian(SHAPE)(parameters).log_prob(images)

    sigma = (images - parameters).square().mean().sqrt().item()
    best = Gaussian(SHAPE, scale=sigma)(parameters).log_prob(images)
    torch.testing.assert_close(log_prob, best, rtol=1e-2, atol=0)  # the soft clip moves log sigma by exp(-6) or less
    for other in (0.9, 1.1):
        assert Gaussian(SHAPE, scale=other * sigma)(parameters).log_prob(images).sum() < best.sum()


def test_the_optimal_scale_stops_at_exp_of_minus_six(images):
    log_prob = OptimalScaleGaussian(SHAPE)(images).log_prob(images)

    torch.testing.assert_close(log_prob, Gaussian(SHAPE, scale=math.exp(-6))(images).log_prob(images))


def test_evaluation_takes_the_running_mean_of_the_training_batches_squared_errors(images, parameters):
    likelihood = OptimalScaleGaussian(SHAPE, decay=0.5).double()
    for offset in (1.0, 3.0):
        likelihood(images + offset).log_prob(images)

    evaluated = likelihood.eval()(parameters).log_prob(images)

    squared_error = (0.25 * 1 + 0.5 * 9) / 0.75  # weights 1/4 and 1/2, which have to add up to one
    expected = Gaussian(SHAPE, scale=math.sqrt(squared_error))(parameters).log_prob(images)
    torch.testing.assert_close(evaluated, expected, rtol=1e-2, atol=0)
    again = likelihood(parameters).log_prob(images)
    assert again.equal(evaluated)  # evaluation leaves it alone


def test_a_learned_scale_ends_at_the_root_mean_squared_error(images, parameters):
    likelihood = SharedScaleGaussian(SHAPE, start=1.0).double()
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood(parameters).log_prob(images).mean()).backward()
        optimizer.step()

    sigma = (images - parameters).square().mean().sqrt()
    assert likelihood(parameters).base_dist.scale.mean().item() == pytest.approx(sigma.item(), rel=1e-3)


def every_level():
    return torch.linspace(0, 1, 256, dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("loc", [-0.5, 0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("log_scale", [-9.0, -6.0, -3.0, 0.0, 3.0])
def test_the_discretized_logistics_256_levels_add_up_to_one_around_its_mean(loc, log_scale):
    parameters = torch.tensor([loc, log_scale], dtype=torch.float64).reshape(2, 1, 1)
    p = DiscretizedLogistic((1, 1, 1))(parameters)
    probability = p.log_prob(every_level()).exp()

    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    mean = (probability * every_level().flatten()).sum().item()
    assert p.mean.item() == pytest.approx(mean, abs=0.5 / 255)


def test_the_discretized_logistic_is_the_difference_of_two_sigmoids():
    p = DiscretizedLogistic((1, 1, 1))(torch.tensor([0.4, -2.0], dtype=torch.float64).reshape(2, 1, 1))
    x = torch.tensor(100 / 255, dtype=torch.float64)
    scale = math.exp(-7 + math.log1p(math.exp(-2 + 7)))

    by_hand = torch.sigmoid((x - 0.4 + 0.5 / 255) / scale) - torch.sigmoid((x - 0.4 - 0.5 / 255) / scale)

    assert p.log_prob(x.reshape(1, 1, 1)).exp().item() == pytest.approx(by_hand.item(), rel=1e-10)


def test_the_discretized_logistic_stays_finite_far_from_its_location_in_single_precision():
    parameters = torch.tensor([50.0, -9.0]).reshape(2, 1, 1).requires_grad_()
    log_prob = DiscretizedLogistic((1, 1, 1))(parameters).log_prob(torch.full((1, 1, 1), 0.5))
    log_prob.backward()

    assert log_prob.isfinite()
    assert parameters.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_mixtures_levels_add_up_to_one_over_all_channels(channels):
    likelihood = DiscretizedLogisticMixture((channels, 1, 1), components=3)
    torch.manual_seed(0)
    parameters = torch.randn(likelihood.parameter_shape, dtype=torch.float64)
    levels = torch.cartesian_prod(*[every_level().flatten()] * channels).reshape(-1, channels, 1, 1)
    p = likelihood(parameters)
    probability = p.log_prob(levels).exp()

    assert probability.sum().item() == pytest.approx(1, abs=1e-10)
    torch.manual_seed(0)
    samples = p.sample((20_000,))
    mean = (probability[:, None] * levels.flatten(1)).sum(0)
    # Five standard errors: a level's deviation is 1/2 at most.
    torch.testing.assert_close(samples.flatten(1).mean(0), mean, atol=5 * 0.5 / math.sqrt(20_000), rtol=0)
    assert samples.mul(255).sub(samples.mul(255).round()).abs().max() < 1e-9
    first = mean[0].item()
    assert p.mean.flatten()[0].item() == pytest.approx(first, abs=0.5 / 255)


def test_a_channel_of_the_mixture_follows_those_before_it():
    likelihood = DiscretizedLogisticMixture((3, 1, 1), components=1)
    # logit; locations of red, green, blue; log-scales; coefficients green-red, blue-red, blue-green before tanh.
    parameters = torch.tensor([0.0, *[-0.4] * 3, *[-4.0] * 3, 9.0, -9.0, 9.0]).reshape(-1, 1, 1)
    p = likelihood(parameters)

    def log_prob(*colour):
        return p.log_prob(torch.tensor(colour).reshape(3, 1, 1)).item()

    # Locations are 0.1, 0.1 + red and 0.1 - red + green.
    assert log_prob(0.1, 0.2, 0.2) > max(log_prob(0.1, 0.1, 0.2), log_prob(0.1, 0.2, 0.1), log_prob(0.2, 0.2, 0.2))
    torch.testing.assert_close(p.mean.flatten(), torch.tensor([0.1, 0.2, 0.2]), atol=0.02, rtol=0)


def test_one_component_of_a_grey_mixture_is_a_discretized_logistic(images):
    x = images[:, :1]
    torch.manual_seed(0)
    logit, loc, log_scale = torch.randn(3, 6, 1, 4, 5, dtype=torch.float64)

    mixture = DiscretizedLogisticMixture((1, 4, 5), components=1)(torch.cat([logit, loc, log_scale], 1))
    single = DiscretizedLogistic((1, 4, 5))(torch.cat([loc + 0.5, log_scale], 1))

    torch.testing.assert_close(mixture.log_prob(x), single.log_prob(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(mixture.mean, single.mean, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_a_gradient_reaches_the_decoder_and_every_parameter(kind):
    likelihood = kind(SHAPE)
    torch.manual_seed(0)
    output = torch.randn(2, *likelihood.parameter_shape, requires_grad=True)

    likelihood(output).log_prob(torch.rand(2, *SHAPE)).sum().backward()

    for tensor in [output, *likelihood.parameters()]:
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()
