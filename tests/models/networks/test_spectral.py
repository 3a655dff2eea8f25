import torch
from torch import nn

from vaelab.models.networks import ConvDecoder, Discriminator, MLPDecoder, SpectralDecoder


def test_every_layer_stretches_no_direction_more_than_once() -> None:
    torch.manual_seed(0)
    decoder = SpectralDecoder(3, (1, 4, 5), network=lambda z, shape: MLPDecoder(z, shape, hidden=[8, 9]))
    for _ in range(50):  # each pass is a step of the power iteration
        decoder(torch.zeros(2, 3))
    norms = [torch.linalg.matrix_norm(m.weight, 2) for m in decoder.modules() if isinstance(m, nn.Linear)]
    assert len(norms) == 3
    torch.testing.assert_close(torch.stack(norms), torch.ones(3), atol=1e-3, rtol=0)
    a, b = torch.randn(2, 1000, 3)
    decoder.eval()
    assert ((decoder(a) - decoder(b)).flatten(1).norm(dim=1) <= 1.001 * (a - b).norm(dim=1)).all()


def test_convolutions_are_normalised_too() -> None:
    decoder = SpectralDecoder(3, (1, 8, 8), network=ConvDecoder)
    layers = [m for m in decoder.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert all(hasattr(layer, "parametrizations") for layer in layers)
    assert decoder(torch.zeros(2, 3)).shape == (2, 1, 8, 8)


def test_a_discriminator_gives_one_logit_an_image() -> None:
    assert Discriminator(4, hidden=[5]).forward(torch.zeros(7, 4)).shape == (7,)
