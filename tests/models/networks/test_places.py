"""Convolutions along one, two and three axes."""

import pytest
import torch

from vaelab.models.networks import (
    ConditionalDecoder,
    ConditionalEncoder,
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
)
from vaelab.models.networks.projections import CodeProjection

EVENTS = [(2, 37), (1, 12, 9), (1, 9, 8, 11)]


@pytest.mark.parametrize("shape", EVENTS, ids=str)
@pytest.mark.parametrize("options", [{}, {"blocks": 1, "normalization": "batch"}, {"normalization": "group"}], ids=str)
def test_events_of_every_rank_are_encoded_and_come_back_in_their_shape(shape, options):
    encoder = ConvEncoder(shape, channels=[4, 6], features=10, **options)
    decoder = ConvDecoder(3, shape, channels=[6, 4], features=10, **options)

    assert encoder(torch.randn(5, *shape)).shape == (5, 10)
    assert decoder(torch.randn(2, 5, 3)).shape == (2, 5, *shape)


@pytest.mark.parametrize("shape", EVENTS, ids=str)
def test_a_grid_of_codes_has_as_many_places_as_the_event(shape):
    encoder = ConvEncoder(shape, channels=[4, 6], features=None)
    vectors = CodeProjection(encoder.features, 5)(encoder(torch.randn(3, *shape)))
    places = torch.Size(encoder.features[1:]).numel()

    assert vectors.shape == (3, places, 5)
    assert ConvDecoder(places * 5, shape, channels=[6, 4], features=None)(vectors.flatten(1)).shape == (3, *shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_with_one_place_along_the_others_is_convolved_as_the_signal_is(axis):
    """Kernels of 3-d convolutions that are zero but on the line are those of 1-d ones."""
    torch.manual_seed(0)
    signal, volume = torch.nn.Conv1d(2, 3, 3, padding=1), torch.nn.Conv3d(2, 3, 3, padding=1)
    with torch.no_grad():
        volume.weight.zero_()
        at = [slice(None), slice(None), 1, 1, 1]
        at[2 + axis] = slice(None)
        volume.weight[tuple(at)] = signal.weight
        volume.bias.copy_(signal.bias)
    x = torch.randn(4, 2, 9)
    shape = [4, 2, 1, 1, 1]
    shape[2 + axis] = 9
    torch.testing.assert_close(volume(x.reshape(shape)).flatten(2), signal(x))


@pytest.mark.parametrize("shape", [(7,), (2, 16), (1, 8, 8), (1, 4, 4, 4)], ids=str)
def test_labels_go_with_events_of_every_rank(shape):

    encoder, decoder = ConditionalEncoder(MLPEncoder, shape, 3), ConditionalDecoder(MLPDecoder, 2, shape, 3)
    y = torch.tensor([0, 2])
    assert encoder(torch.randn(2, *shape), y).shape == (2, 400)
    assert decoder(torch.randn(2, 2), y).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(7,), (1, 4, 4, 4, 4)], ids=str)
def test_events_that_are_no_signals_images_or_volumes_are_refused(shape):
    with pytest.raises(ValueError, match=r"these are events of shape .*encoder=mlp decoder=mlp"):
        ConvEncoder(shape)
    with pytest.raises(ValueError, match="encoder=mlp"):
        ConvDecoder(2, shape)


def test_a_signal_that_is_too_short_is_refused_in_its_own_words():
    with pytest.raises(ValueError, match=r"3 stride-2 layers do not fit a signal of 7: it can be halved 2 times"):
        ConvEncoder((1, 7), channels=[1, 2, 3])
