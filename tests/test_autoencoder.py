import pytest
import torch
from torch import nn

from vaelab.autoencoder import Autoencoder
from vaelab.likelihoods import Bernoulli
from vaelab.likelihoods import Gaussian as GaussianLikelihood
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.posteriors import Deterministic, Gaussian
from vaelab.priors import StandardNormal

SHAPE, LATENT = (2, 3, 4), 5


def autoencoder(posterior_class=Gaussian, *, prior=True):
    encoder = MLPEncoder(SHAPE, hidden=[16])
    likelihood = Bernoulli(SHAPE)
    return Autoencoder(
        encoder=encoder,
        posterior=posterior_class(encoder.features, LATENT),
        decoder=MLPDecoder(LATENT, likelihood.parameter_shape, hidden=[16]),
        likelihood=likelihood,
        prior=StandardNormal(LATENT) if prior else None,
    )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(6, *SHAPE)


@pytest.mark.parametrize("posterior_class", [Deterministic, Gaussian])
def test_encode_and_decode_return_distributions_over_latents_and_images(posterior_class, images):
    model = autoencoder(posterior_class)
    q = model.encode(images)
    p = model.decode(q.rsample((3, 2)))

    assert (q.batch_shape, q.event_shape) == ((6,), (LATENT,))
    assert (p.batch_shape, p.event_shape) == ((3, 2, 6), SHAPE)
    assert p.log_prob(images).shape == (3, 2, 6)


def test_encode_and_decode_are_the_composition_of_the_parts(images):
    model = autoencoder()
    z = torch.randn(6, LATENT)

    assert model.encode(images).mean.equal(model.posterior.mean(model.encoder(images)))
    assert model.decode(z).mean.equal(torch.sigmoid(model.decoder(z)))


def test_a_reconstruction_is_the_mean_decoded_at_the_mean_code(images):
    model = autoencoder()
    expected = model.decode(model.encode(images).mean).mean

    assert model.reconstruct(images).equal(expected)
    assert model(images).equal(expected)


def test_a_stochastic_reconstruction_is_decoded_at_a_sampled_code(images):
    model = autoencoder()

    torch.manual_seed(1)
    first = model.reconstruct(images, stochastic=True)
    second = model.reconstruct(images, stochastic=True)
    torch.manual_seed(1)
    z = model.encode(images).rsample()

    assert first.equal(model.decode(z).mean)
    assert not first.equal(second)


def test_a_plain_autoencoder_reconstructs_the_same_stochastic_or_not(images):
    model = autoencoder(Deterministic, prior=False)

    assert model.reconstruct(images, stochastic=True).equal(model.reconstruct(images))


@pytest.mark.parametrize("n", [1, 7])
def test_samples_are_decoded_from_the_prior(n):
    model = autoencoder()

    torch.manual_seed(1)
    samples = model.sample(n)
    torch.manual_seed(1)
    z = torch.randn(n, LATENT)

    assert samples.shape == (n, *SHAPE)
    torch.testing.assert_close(samples, model.decode(z).mean)
    assert not samples.requires_grad


def test_without_a_prior_sampling_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"no prior to sample from.*model=vae"):
        autoencoder(Deterministic, prior=False).sample(1)


def test_its_parameters_are_those_of_its_parts():
    names = {name.split(".")[0] for name, _ in autoencoder().named_parameters()}

    assert names == {"encoder", "posterior", "decoder"}


def test_a_state_dict_carries_the_whole_model(images):
    model, other = autoencoder(), autoencoder()
    assert not other(images).equal(model(images))

    other.load_state_dict(model.state_dict())

    assert other(images).equal(model(images))


def test_parts_may_be_any_callables(images):
    flat = nn.Flatten()
    model = Autoencoder(
        encoder=lambda x: flat(x),
        posterior=Deterministic(24, 24),
        decoder=lambda z: z.unflatten(-1, SHAPE),
        likelihood=GaussianLikelihood(SHAPE),
    )
    nn.init.eye_(model.posterior.code.weight)
    nn.init.zeros_(model.posterior.code.bias)

    torch.testing.assert_close(model(images), images)
