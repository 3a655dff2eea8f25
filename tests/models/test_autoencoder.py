import pytest
import torch
from torch import nn

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Delta
from vaelab.models.latents import arc, line
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Deterministic, Gaussian
from vaelab.models.priors import StandardNormal

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

    assert model.encode(images).mean.equal(model.posterior.mean_and_log_variance(model.encoder(images))[:, :LATENT])
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


def test_samples_may_be_drawn_from_another_distribution_than_the_prior():
    model = autoencoder(Deterministic, prior=False)
    point = torch.full((LATENT,), 0.3)

    samples = model.sample(3, prior=Delta(point))

    torch.testing.assert_close(samples, model.decode(point.expand(3, -1)).mean)


def test_stochastic_samples_draw_the_pixels_too():
    samples = autoencoder().sample(20, stochastic=True)

    assert samples.unique().tolist() == [0, 1]


@pytest.mark.parametrize("spherical", [False, True])
def test_the_ends_of_an_interpolation_are_the_reconstructions(spherical, images):
    model = autoencoder()
    first, last = images[:3], images[3:]

    path = model.interpolate(first, last, 5, spherical=spherical)

    assert path.shape == (5, 3, *SHAPE)
    torch.testing.assert_close(path[0], model.reconstruct(first))
    torch.testing.assert_close(path[-1], model.reconstruct(last))
    codes = model.encode(first).mean, model.encode(last).mean
    middle = (arc if spherical else line)(*codes, 5)[2]
    torch.testing.assert_close(path[2], model.decode(middle).mean)
    assert not path.requires_grad


def test_a_stochastic_interpolation_goes_between_sampled_codes(images):
    model = autoencoder()
    torch.manual_seed(1)
    path = model.interpolate(images[:3], images[3:], 3, stochastic=True)
    torch.manual_seed(1)
    codes = model.encode(images[:3]).sample(), model.encode(images[3:]).sample()

    torch.testing.assert_close(path, model.decode(line(*codes, 3)).mean)


def test_a_traversal_changes_one_dimension_at_a_time():
    model = autoencoder()
    z, values = torch.randn(LATENT), torch.randn(LATENT, 4)

    images = model.traverse(z, values)

    assert images.shape == (LATENT, 4, *SHAPE)
    for dimension in range(LATENT):
        for number in range(4):
            changed = z.clone()
            changed[dimension] = values[dimension, number]
            torch.testing.assert_close(images[dimension, number], model.decode(changed).mean)


def plane_model(*, prior):
    encoder = MLPEncoder(SHAPE, hidden=[16])
    return Autoencoder(
        encoder=encoder,
        posterior=Gaussian(encoder.features, 2),
        decoder=MLPDecoder(2, SHAPE, hidden=[16]),
        likelihood=Bernoulli(SHAPE),
        prior=StandardNormal(2) if prior else None,
    )


def test_the_manifold_is_decoded_on_the_priors_quantiles():
    model = plane_model(prior=True)

    images = model.manifold(3)

    assert images.shape == (3, 3, *SHAPE)
    outer = 0.9674216  # of a standard normal, a sixth is above
    torch.testing.assert_close(images[1, 1], model.decode(torch.zeros(2)).mean)
    torch.testing.assert_close(images[0, 1], model.decode(torch.tensor([0.0, outer])).mean)
    torch.testing.assert_close(images[2, 2], model.decode(torch.tensor([outer, -outer])).mean)


def test_without_a_prior_the_manifold_is_that_of_the_codes_quantiles():
    model = plane_model(prior=False)
    codes = torch.rand(101, 2)

    images = model.manifold(1, codes=codes)

    torch.testing.assert_close(images[0, 0], model.decode(codes.median(0).values).mean)
    with pytest.raises(ValueError, match="give codes"):
        model.manifold(3)


def test_a_manifold_of_more_than_two_dimensions_is_refused():
    with pytest.raises(ValueError, match=f"2 latent dimensions, this model has {LATENT}"):
        autoencoder().manifold(3)


@pytest.mark.parametrize("shape", [(4, 24), (2, 3, 4), (4, 1, 3, 4)])
def test_images_of_another_shape_are_told_the_right_one(shape):
    with pytest.raises(ValueError, match=r"x should be floats of shape \(N, 2, 3, 4\); found torch.float32 of shape"):
        autoencoder().encode(torch.zeros(shape))


def test_bytes_and_latents_of_another_size_are_told_what_would_be_right():
    model = autoencoder()
    with pytest.raises(ValueError, match=r"found torch.uint8"):
        model.reconstruct(torch.zeros(4, *SHAPE, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"z should be of shape \(N, 5\), or \(..., 5\); found \(4, 6\)"):
        model.decode(torch.zeros(4, 6))
