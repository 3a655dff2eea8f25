from math import prod

import pytest
import torch
from torch import nn

from vaelab.models.networks import GatedMLPDecoder, GatedMLPEncoder, MLPDecoder, MLPEncoder
from vaelab.models.networks.mlp import GatedLinear

SHAPE = (2, 3, 5)


@pytest.mark.parametrize("hidden", [[], [7], [11, 7], None], ids=str)
def test_the_encoder_returns_as_many_features_as_it_says(hidden):
    encoder = MLPEncoder(SHAPE, hidden=hidden)

    assert encoder(torch.rand(4, *SHAPE)).shape == (4, encoder.features)
    assert encoder.features == (hidden[-1] if hidden else prod(SHAPE) if hidden == [] else 400)


@pytest.mark.parametrize("hidden", [[], [7], [11, 7]], ids=str)
@pytest.mark.parametrize("batch", [(), (4,), (6, 4), (2, 6, 4)], ids=str)
def test_the_decoder_returns_an_image_for_every_latent(hidden, batch):
    decoder = MLPDecoder(3, SHAPE, hidden=hidden)
    z = torch.randn(*batch, 3)
    images = decoder(z)

    assert images.shape == (*batch, *SHAPE)
    one_by_one = torch.stack([decoder(latent[None])[0] for latent in z.reshape(-1, 3)])
    torch.testing.assert_close(images.reshape(-1, *SHAPE), one_by_one)


def test_the_layers_are_linear_maps_with_the_activation_after_each_hidden_one():
    encoder = MLPEncoder(SHAPE, hidden=[7, 6], activation="tanh").double()
    decoder = MLPDecoder(6, SHAPE, hidden=[7], activation="tanh").double()
    x = torch.rand(4, *SHAPE, dtype=torch.float64)
    w1, b1, w2, b2 = encoder.parameters()
    v1, c1, v2, c2 = decoder.parameters()

    h = torch.tanh(torch.tanh(x.reshape(4, -1) @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(encoder(x), h)
    expected = (torch.tanh(h @ v1.T + c1) @ v2.T + c2).reshape(4, *SHAPE)
    torch.testing.assert_close(decoder(h), expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", nn.functional.leaky_relu),
        ("elu", nn.functional.elu),
        ("gelu", nn.functional.gelu),
        ("silu", nn.functional.silu),
        ("softplus", nn.functional.softplus),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_an_activation_is_the_function_of_its_name(name, function):
    decoder = MLPDecoder(6, SHAPE, hidden=[], output_activation=name)
    linear = nn.functional.linear(z := torch.randn(4, 6), *decoder.parameters())

    torch.testing.assert_close(decoder(z), function(linear).reshape(4, *SHAPE))


def test_without_an_output_activation_the_output_is_on_the_whole_line():
    torch.manual_seed(0)
    output = MLPDecoder(6, SHAPE)(10 * torch.randn(50, 6))

    assert output.min() < 0
    assert output.max() > 1


def test_two_networks_share_no_widths():
    MLPEncoder(SHAPE, hidden=[7])

    assert MLPEncoder(SHAPE).features == 400


@pytest.mark.parametrize("hidden", [[7], [11, 7], None], ids=str)
@pytest.mark.parametrize("batch", [(), (4,), (6, 4)], ids=str)
def test_gated_networks_have_the_shapes_of_the_others(hidden, batch):
    encoder, decoder = GatedMLPEncoder(SHAPE, hidden=hidden), GatedMLPDecoder(3, SHAPE, hidden=hidden)

    assert encoder(torch.rand(4, *SHAPE)).shape == (4, encoder.features)
    assert decoder(torch.randn(*batch, 3)).shape == (*batch, *SHAPE)


def test_a_gated_layer_is_a_linear_map_times_the_sigmoid_of_another():
    layer, x = GatedLinear(3, 4), torch.randn(5, 3)
    value, gate = (nn.functional.linear(x, *linear.parameters()) for linear in (layer.value, layer.gate))

    torch.testing.assert_close(layer(x), value / (1 + (-gate).exp()))


@pytest.mark.parametrize("normalization", ["batch", "layer", "group"])
def test_both_maps_of_a_gated_layer_are_normalized(normalization):
    layer, x = GatedLinear(3, 16, normalization), torch.randn(50, 3)

    torch.testing.assert_close(layer(x), layer.value(x) * layer.gate(x).sigmoid())
    for h in (layer.value(x), layer.gate(x)):
        over = {"batch": h.T, "layer": h, "group": h.reshape(-1, 4)}[normalization]
        torch.testing.assert_close(over.mean(1), torch.zeros(len(over)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalization", ["batch", "layer", "group"])
def test_normalization_gives_each_activation_mean_zero_and_variance_one(normalization):
    encoder = MLPEncoder(SHAPE, hidden=[16], normalization=normalization)
    h = encoder.layers[:-1](torch.rand(50, *SHAPE))

    over = {"batch": h.T, "layer": h, "group": h.reshape(-1, 4)}[normalization]
    torch.testing.assert_close(over.mean(1), torch.zeros(len(over)), atol=1e-5, rtol=0)
    if normalization != "group":
        torch.testing.assert_close(over.var(1, correction=0), torch.ones(len(over)), atol=1e-2, rtol=0)


@pytest.mark.parametrize("normalization", ["batch", "layer", "group"])
@pytest.mark.parametrize("decoder_of", [MLPDecoder, GatedMLPDecoder])
def test_a_normalized_decoder_takes_any_number_of_samples_and_trains_every_parameter(normalization, decoder_of):
    decoder = decoder_of(3, SHAPE, hidden=[8, 8], normalization=normalization)
    images = decoder(torch.randn(6, 4, 3))
    (images * torch.randn(images.shape)).sum().backward()

    assert images.shape == (6, 4, *SHAPE)
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name
