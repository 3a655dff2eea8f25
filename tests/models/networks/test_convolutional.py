import pytest
import torch
from torch import nn

from vaelab.models.networks import ConvDecoder, ConvEncoder
from vaelab.models.networks.convolutional import Grid, ResidualBlock

SIZES = [(8, 8), (9, 9), (8, 13), (13, 8), (11, 10), (28, 28), (31, 17), (32, 32)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_an_image_of_any_size_comes_back_in_its_size(size, channels, layers):
    shape = (channels, *size)
    encoder = ConvEncoder(shape, channels=[4] * layers, features=6)
    decoder = ConvDecoder(5, shape, channels=[4] * layers, features=6)

    features = encoder(torch.rand(2, *shape))
    assert features.shape == (2, encoder.features) == (2, 6)
    assert decoder(torch.randn(2, 5)).shape == (2, *shape)


@pytest.mark.parametrize("size", range(8, 41))
def test_the_default_networks_take_every_size_from_8_up(size):
    shape = (1, size, 48 - size)
    images = ConvDecoder(2, shape)(torch.randn(1, 2))

    assert images.shape == (1, *shape)
    assert ConvEncoder(shape)(images).shape == (1, 256)


def test_each_layer_of_the_encoder_halves_the_size_and_rounds_down():
    encoder = ConvEncoder((1, 31, 17), channels=[2, 3, 4])
    x, sizes = torch.rand(1, 1, 31, 17), []
    for layer in encoder.layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            sizes.append(tuple(x.shape[1:]))

    assert sizes == [(2, 15, 8), (3, 7, 4), (4, 3, 2)]


def test_the_decoder_goes_through_the_encoders_sizes_in_reverse():
    decoder = ConvDecoder(5, (1, 31, 17), channels=[4, 3, 2])
    x, sizes = torch.rand(1, 5), []
    for layer in decoder.layers:
        x = layer(x)
        if isinstance(layer, nn.Unflatten | nn.ConvTranspose2d):
            sizes.append(tuple(x.shape[1:]))

    assert sizes == [(4, 3, 2), (3, 7, 4), (2, 15, 8), (1, 31, 17)]


@pytest.mark.parametrize("batch", [(), (4,), (1, 4), (6, 4), (2, 3, 4)], ids=str)
def test_leading_dimensions_of_the_latents_are_kept(batch):
    decoder = ConvDecoder(5, (1, 9, 8), channels=[4], features=6)
    z = torch.randn(*batch, 5)
    images = decoder(z)

    assert images.shape == (*batch, 1, 9, 8)
    one_by_one = torch.cat([decoder(latent[None]) for latent in z.reshape(-1, 5)])
    torch.testing.assert_close(images.reshape(-1, 1, 9, 8), one_by_one)


@pytest.mark.parametrize("size", [(7, 28), (28, 7), (4, 4), (1, 1)], ids=str)
def test_an_image_too_small_for_the_layers_is_an_error_that_says_how_many_fit(size):
    possible = {7: 2, 4: 2, 1: 0}[min(size)]
    message = rf"3 stride-2 layers do not fit .*{size[0]} x {size[1]}.*at most {possible} channels"

    with pytest.raises(ValueError, match=message):
        ConvEncoder((1, *size), channels=[2, 2, 2])
    with pytest.raises(ValueError, match=message):
        ConvDecoder(5, (1, *size), channels=[2, 2, 2])


@pytest.mark.parametrize("size", [(2, 2), (4, 7), (7, 4), (8, 8), (15, 16)], ids=str)
def test_the_number_of_layers_that_the_error_allows_does_fit(size):
    with pytest.raises(ValueError, match="at most") as error:
        ConvEncoder((1, *size), channels=[2] * 10)
    possible = int(str(error.value).split("at most ")[1].split()[0])

    images = ConvDecoder(5, (1, *size), channels=[2] * possible)(torch.randn(1, 5))
    assert ConvEncoder((1, *size), channels=[2] * possible)(images).shape == (1, 256)
    with pytest.raises(ValueError, match="at most"):
        ConvEncoder((1, *size), channels=[2] * (possible + 1))


@pytest.mark.parametrize("output_activation", [None, "sigmoid"])
def test_the_hidden_activation_is_not_applied_to_the_output(output_activation):
    decoder = ConvDecoder(5, (1, 8, 8), channels=[4], activation="relu", output_activation=output_activation)
    output = decoder(10 * torch.randn(20, 5))

    assert (output.min() < 0) == (output_activation is None)
    assert output.min() != 0


def test_a_gradient_reaches_every_parameter():
    shape = (3, 11, 9)
    encoder, decoder = ConvEncoder(shape), ConvDecoder(256, shape)

    decoder(encoder(torch.rand(4, *shape))).square().sum().backward()

    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad.any(), name


@pytest.mark.parametrize("normalization", [None, "batch", "layer", "group"])
@pytest.mark.parametrize("features", [6, None])
@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("size", [(8, 8), (11, 10)], ids=str)
def test_every_kind_of_network_takes_every_size_and_trains_every_parameter(normalization, features, blocks, size):
    shape, knobs = (3, *size), {"features": features, "normalization": normalization, "blocks": blocks}
    encoder = ConvEncoder(shape, channels=[4, 8], **knobs)
    grid = encoder(torch.rand(5, *shape))
    assert grid.shape == (5, *([features] if features else encoder.features))
    decoder = ConvDecoder(grid[0].numel(), shape, channels=[8, 4], **knobs)
    images = decoder(grid.flatten(1))
    (images * torch.randn(images.shape)).sum().backward()

    assert images.shape == (5, *shape)
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad.any(), name


def test_a_residual_block_adds_to_what_it_is_given():
    block = ResidualBlock(4, "relu")
    x = torch.randn(2, 4, 5, 5)
    first, second = block.change[1], block.change[3]

    torch.testing.assert_close(block(x), x + second(first(x.relu()).relu()))


def test_the_decoder_of_a_grid_takes_its_vectors_place_by_place():
    z = torch.arange(2 * 3 * 4.0).reshape(1, -1)
    grid = Grid(24, 2, 3)(z)

    assert grid.shape == (1, 4, 2, 3)
    assert grid[0, :, 1, 2].tolist() == [20, 21, 22, 23]


def test_a_z_that_is_no_grid_is_refused_with_what_would_fit():
    with pytest.raises(ValueError, match=r"grid of 2 x 2, and z has 10 numbers.*decoder.features=256"):
        ConvDecoder(10, (1, 8, 8), features=None)
