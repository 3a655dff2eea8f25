"""Networks: tensor in, tensor out, no probability in them.

An encoder is made with the shape (C, H, W) of an image and says in `features` how many numbers it returns for
one: (B, C, H, W) -> (B, features). A decoder is made with the latent size and the shape it has to return:
(*batch, Z) -> (*batch, *shape).
"""

from vaelab.networks.convolutional import ConvDecoder, ConvEncoder
from vaelab.networks.mlp import MLPDecoder, MLPEncoder

__all__ = ["ConvDecoder", "ConvEncoder", "MLPDecoder", "MLPEncoder"]
