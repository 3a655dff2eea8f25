import pytest
import torch
from torch import nn

from vaelab.losses import ELBO
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
    q = [m.given(torch.tensor([label])).encode(x).mean for label in range(CLASSES)]
    p = [m.given(torch.tensor([label])).decode(z).mean for label in range(CLASSES)]

    assert p[0].shape == (4, 1, *SHAPE)
    assert not q[0].allclose(q[1])
    assert not p[0].allclose(p[1])


def test_a_batch_is_its_images_one_by_one():
    m, x, labels = model(), torch.rand(5, *SHAPE), torch.tensor([0, 2, 1, 1, 0])
    z = torch.randn(3, 5, LATENT)
    together = m.given(labels)

    for number, label in enumerate(labels):
        alone = m.given(label[None])
        torch.testing.assert_close(together.encode(x).mean[number], alone.encode(x[number : number + 1]).mean[0])
        one = alone.decode(z[:, number : number + 1]).mean[:, 0]
        torch.testing.assert_close(together.decode(z).mean[:, number], one)


def test_a_linear_first_layer_sees_the_label_as_one_hot_numbers():
    encoder = ConditionalEncoder(lambda shape: MLPEncoder(shape, hidden=[6]), SHAPE, CLASSES)
    linear = encoder.network.layers[1]
    x, labels = torch.rand(5, *SHAPE), torch.tensor([0, 2, 1, 1, 0])

    of_label = encoder.plane @ linear.weight[:, 64:].T  # (K, 6)
    expected = nn.functional.linear(x.flatten(1), linear.weight[:, :64], linear.bias) + of_label[labels]

    torch.testing.assert_close(encoder.given(labels)(x), expected.relu())


def test_samples_are_of_the_class_that_is_asked_for():
    m = model()
    torch.manual_seed(1)
    samples = m.sample(4, labels=torch.tensor([2, 2, 0, 1]))
    torch.manual_seed(1)
    z = torch.randn(4, LATENT)

    assert samples.equal(m.given(torch.tensor([2, 2, 0, 1])).decode(z).mean)
    torch.manual_seed(1)
    assert m.sample(4).equal(m.given(torch.tensor([0, 1, 2, 0])).decode(z).mean)  # every class in turn


def test_a_gradient_reaches_every_parameter():
    m = model()
    ELBO()(m.given(torch.arange(50) % CLASSES), torch.rand(50, *SHAPE), 0)["loss"].backward()

    for name, parameter in m.named_parameters():
        assert parameter.grad.any(), name


def test_without_labels_it_says_what_to_do():
    m = model()

    for call in (lambda: m.encode(torch.rand(1, *SHAPE)), lambda: m.decode(torch.zeros(1, LATENT))):
        with pytest.raises(ValueError, match=r"model.given\(labels\)"):
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

    assert m.given(torch.zeros(3, dtype=torch.int64)) is m
    with pytest.raises(ValueError, match="conditional=true"):
        m.sample(3, labels=torch.zeros(3, dtype=torch.int64))
