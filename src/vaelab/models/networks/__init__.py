"""Networks: tensor in, tensor out, no probability in them.

An encoder is made with the shape (C, H, W) of an image and says in `features` how many numbers it returns for
one: (B, C, H, W) -> (B, features), or the shape of a grid of them. A decoder is made with the latent size and the
shape it has to return: (*batch, Z) -> (*batch, *shape).
"""

from vaelab.models.networks.conditional import ConditionalDecoder, ConditionalEncoder
from vaelab.models.networks.convolutional import ConvDecoder, ConvEncoder
from vaelab.models.networks.discriminator import Discriminator, ImageDiscriminator, PatchDiscriminator
from vaelab.models.networks.mlp import GatedMLPDecoder, GatedMLPEncoder, MLPDecoder, MLPEncoder
from vaelab.models.networks.spectral import SpectralDecoder

__all__ = [
    "ConditionalDecoder",
    "ConditionalEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "Discriminator",
    "GatedMLPDecoder",
    "GatedMLPEncoder",
    "ImageDiscriminator",
    "MLPDecoder",
    "MLPEncoder",
    "PatchDiscriminator",
    "SpectralDecoder",
]
