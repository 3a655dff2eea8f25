import copy
import math

import pytest
import torch

from vaelab.losses import IWAE, Step, elbo
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.hierarchy import BottomUp, FirstLayer, Ladder, TopDown
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.networks import MLPDecoder, MLPEncoder

SHAPE, FIRST, ABOVE = (1, 3, 3), 4, [3, 2]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def model(posterior_class=BottomUp, above=ABOVE, prior_above=None):
    encoder = MLPEncoder(SHAPE, hidden=[8], activation="tanh")
    posterior = posterior_class(encoder.features, FIRST, above=above, hidden=[6, 5])
    return Autoencoder(
        encoder=encoder,
        posterior=posterior,
        decoder=FirstLayer(
            posterior.latent_dim, SHAPE, above=above, network=lambda z, shape: MLPDecoder(z, shape, hidden=[8])
        ),
        likelihood=Bernoulli(SHAPE),
        prior=TopDown(posterior.latent_dim, above=prior_above or above, hidden=[6, 5]),
    )


@pytest.mark.parametrize("posterior_class", [BottomUp, Ladder])
def test_z_holds_all_layers_of_posterior_and_prior(posterior_class):
    m = model(posterior_class)
    q, p = m.encode(torch.rand(5, *SHAPE)), m.prior()
    z = q.rsample((7,))

    assert z.shape == (7, 5, 4 + 3 + 2)
    assert q.log_prob(z).shape == p.log_prob(z).shape == (7, 5)
    assert p.sample((6,)).shape == (6, 9)
    assert m.sample(6).shape == (6, *SHAPE)
    assert m.reconstruct(torch.rand(5, *SHAPE)).shape == (5, *SHAPE)


@pytest.mark.parametrize("posterior_class", [BottomUp, Ladder])
def test_a_gradient_reaches_every_parameter(posterior_class):
    m = model(posterior_class)
    elbo(kl="monte_carlo")(Step(m, torch.rand(50, *SHAPE)))["loss"].backward()

    for name, parameter in m.named_parameters():
        assert parameter.grad.any(), name


def test_the_bottom_up_posterior_is_the_product_of_its_conditionals():
    m = model()
    x = torch.rand(5, *SHAPE)
    z = m.encode(x).rsample()
    layers = z.split([4, 3, 2], -1)
    features = m.encoder(x)

    def log_normal(estimate, y, layer):
        variance = estimate.log_variance(y).exp()
        return -0.5 * ((layer - estimate.mean(y)) ** 2 / variance + (2 * math.pi * variance).log()).sum(-1)

    expected = log_normal(m.posterior.first, features, layers[0])
    for up, below, layer in zip(m.posterior.upwards, layers, layers[1:], strict=False):
        expected = expected + log_normal(up.estimate, up.layers(below), layer)
    torch.testing.assert_close(m.encode(x).log_prob(z), expected)

    down_2, down_1 = m.prior.downwards
    standard = -0.5 * (layers[2] ** 2 + math.log(2 * math.pi)).sum(-1)
    expected = standard + log_normal(down_2.estimate, down_2.layers(layers[2]), layers[1])
    expected = expected + log_normal(down_1.estimate, down_1.layers(layers[1]), layers[0])
    torch.testing.assert_close(m.prior().log_prob(z), expected)


def test_a_ladder_whose_estimates_say_nothing_is_its_prior_below_the_top():
    m = model(Ladder)
    with torch.no_grad():
        for estimate in m.posterior.estimates[:-1]:
            estimate.log_variance.weight.zero_()
            estimate.log_variance.bias.fill_(40.0)
    x = torch.rand(5, *SHAPE)
    q = m.encode(x)
    z = q.rsample()
    top = z[:, -2:]

    estimate = q.first
    difference = estimate.log_prob(top).sum(-1) + 0.5 * (top**2 + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(q.log_prob(z) - m.prior().log_prob(z), difference, rtol=1e-4, atol=1e-4)


def test_the_image_depends_on_the_first_layer_alone():
    m = model()
    z = torch.randn(5, 9)
    other = torch.cat([z[:, :4], torch.randn(5, 5)], 1)

    assert m.decode(z).mean.equal(m.decode(other).mean)


@pytest.mark.parametrize("posterior_class", [BottomUp, Ladder])
def test_more_samples_tighten_the_bound(posterior_class):
    m = model(posterior_class)
    x = torch.rand(200, *SHAPE).round()

    bounds = [IWAE(samples=k)(Step(m, x))["loss"].item() for k in (1, 50)]

    assert bounds[1] < bounds[0]


def test_a_ladder_needs_a_prior_of_its_own_layers():
    with pytest.raises(ValueError, match=r"same layers \[4, 3, 2\], and the prior is TopDown of layers \[5, 4\]"):
        model(Ladder, prior_above=[4])


@pytest.mark.parametrize(
    "part", [lambda: TopDown(5, above=[3, 2]), lambda: FirstLayer(5, SHAPE, above=[5], network=None)]
)
def test_layers_that_leave_nothing_for_the_first_are_refused(part):
    with pytest.raises(ValueError, match="above z_1"):
        part()


def test_a_copy_of_a_ladder_has_the_copys_prior():
    m = model(Ladder)
    other = copy.deepcopy(m)
    with torch.no_grad():
        for parameter in other.prior.parameters():
            parameter.zero_()

    x = torch.rand(5, *SHAPE)
    assert not other.encode(x).mean.equal(m.encode(x).mean)
