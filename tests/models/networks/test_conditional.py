import pytest
import torch
from torch import nn

from vaelab.losses import Step, elbo
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.networks import (
    ConditionalDecoder,
    ConditionalEncoder,
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
)
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal

SHAPE, CLASSES, LATENT = (1, 8, 8), 3, 2


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def model(encoder=MLPEncoder, decoder=MLPDecoder):
    conditional = ConditionalEncoder(encoder, SHAPE, CLASSES)
    return Autoencoder(
        encoder=conditional,
        posterior=Gaussian(conditional.features, LATENT),
        decoder=ConditionalDecoder(decoder, LATENT, SHAPE, CLASSES),
        likelihood=Bernoulli(SHAPE),
        prior=StandardNormal(LATENT),
    )


@pytest.mark.parametrize("networks", [(MLPEncoder, MLPDecoder), (ConvEncoder, ConvDecoder)])
def test_posterior_and_likelihood_depend_on_the_label(networks):
    m, x = model(*networks), torch.rand(1, *SHAPE)
    z = torch.randn(4, 1, LATENT)
    q = [m.encode(x, torch.tensor([label])).mean for label in range(CLASSES)]
    p = [m.decode(z, torch.tensor([label])).mean for label in range(CLASSES)]

    assert p[0].shape == (4, 1, *SHAPE)
    assert not q[0].allclose(q[1])
    assert not p[0].allclose(p[1])


def test_a_batch_is_its_images_one_by_one():
    m, x, labels = model(), torch.rand(5, *SHAPE), torch.tensor([0, 2, 1, 1, 0])
    z = torch.randn(3, 5, LATENT)

    for number, label in enumerate(labels):
        alone = m.encode(x[number : number + 1], label[None])
        torch.testing.assert_close(m.encode(x, labels).mean[number], alone.mean[0])
        one = m.decode(z[:, number : number + 1], label[None]).mean[:, 0]
        torch.testing.assert_close(m.decode(z, labels).mean[:, number], one)


def test_a_linear_first_layer_sees_the_label_as_one_hot_numbers():
    encoder = ConditionalEncoder(lambda shape: MLPEncoder(shape, hidden=[6]), SHAPE, CLASSES)
    linear = encoder.network.layers[1]
    x, labels = torch.rand(5, *SHAPE), torch.tensor([0, 2, 1, 1, 0])

    of_label = encoder.plane @ linear.weight[:, 64:].T  # (K, 6)
    expected = nn.functional.linear(x.flatten(1), linear.weight[:, :64], linear.bias) + of_label[labels]

    torch.testing.assert_close(encoder(x, labels), expected.relu())


def test_samples_are_of_the_class_that_is_asked_for():
    m = model()
    torch.manual_seed(1)
    samples = m.sample(4, labels=torch.tensor([2, 2, 0, 1]))
    torch.manual_seed(1)
    z = torch.randn(4, LATENT)

    assert samples.equal(m.decode(z, torch.tensor([2, 2, 0, 1])).mean)
    torch.manual_seed(1)
    assert m.sample(4).equal(m.decode(z, torch.tensor([0, 1, 2, 0])).mean)  # every class in turn


def test_a_gradient_reaches_every_parameter():
    m = model()
    elbo()(Step(m, torch.rand(50, *SHAPE), torch.arange(50) % CLASSES))["loss"].backward()

    for name, parameter in m.named_parameters():
        assert parameter.grad.any(), name


def test_without_labels_it_says_what_to_do():
    m = model()

    for call in (lambda: m.encode(torch.rand(1, *SHAPE)), lambda: m.decode(torch.zeros(1, LATENT))):
        with pytest.raises(ValueError, match="conditional on labels: give those of the images"):
            call()


def test_labels_for_a_model_that_is_not_conditional():
    encoder = MLPEncoder(SHAPE)
    m = Autoencoder(
        encoder=encoder,
        posterior=Gaussian(encoder.features, LATENT),
        decoder=MLPDecoder(LATENT, SHAPE),
        likelihood=Bernoulli(SHAPE),
        prior=StandardNormal(LATENT),
    )

    x, labels = torch.rand(3, *SHAPE), torch.zeros(3, dtype=torch.int64)
    assert m.reconstruct(x, labels).equal(m.reconstruct(x))  # which it ignores
    with pytest.raises(ValueError, match="conditional=true"):
        m.sample(3, labels=torch.zeros(3, dtype=torch.int64))
