"""Networks that know the labels of their images: q(z|x, y) and p(x|z, y) (Kingma et al. 2014; Sohn et al. 2015)."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.convolutional import Grid
from vaelab.models.parts import Conditional, UnsuitableError


class ConditionalEncoder(Conditional):
    """An encoder of images that have a plane more, learned for each label, y @ plane with one-hot y; vectors a number.

    For an encoder whose first layer is linear that is as much as one-hot labels beside the pixels.

    Args:
        encoder: shape (C, H, W) -> encoder.
        shape: (C, H, W) of an image.
        classes: of the labels, which go from 0 to classes - 1.
    """

    def __init__(self, encoder: Callable[[tuple[int, ...]], Any], shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, *sizes = shape
        self.classes = classes
        self.plane = nn.Parameter(torch.randn(classes, prod(sizes)))
        self.network = encoder((channels + 1, *sizes))
        self.features = self.network.features

    def forward(self, given: Tensor, y: Tensor) -> Tensor:
        """Features (B, F) of images (B, C, H, W) with labels y (B,)."""
        one_hot = F.one_hot(y, self.classes).to(given.dtype)
        plane = (one_hot @ self.plane).reshape(-1, 1, *given.shape[2:])
        features: Tensor = self.network(torch.cat([given, plane], 1))
        return features


class ConditionalDecoder(Conditional):
    """A decoder of latents that have the one-hot label in front, where one that takes a part of z takes its first.

    Args:
        decoder: (latent_dim, shape) -> decoder.
        latent_dim: size Z of the latent variable.
        shape: what one output looks like: the likelihood's `parameter_shape`.
        classes: of the labels.
    """

    def __init__(
        self, decoder: Callable[[int, Sequence[int]], Any], latent_dim: int, shape: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.classes = classes
        self.network = decoder(latent_dim + classes, shape)
        if any(isinstance(module, Grid) for module in self.network.modules()):
            raise UnsuitableError(
                "{} with features=null takes z as a grid of vectors, and a label cannot be put before those: take an "
                "unconditional model, or another posterior with features=256",
                self.network,
            )

    def forward(self, given: Tensor, y: Tensor) -> Tensor:
        """The likelihood's parameters of latents (*sample, B, Z) of images with labels y (B,)."""
        one_hot = F.one_hot(y, self.classes).to(given.dtype)
        parameters: Tensor = self.network(torch.cat([one_hot.expand(*given.shape[:-1], -1), given], -1))
        return parameters
