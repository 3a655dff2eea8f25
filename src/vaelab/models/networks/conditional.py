"""Networks that know the labels of their images: q(z|x, y) and p(x|z, y) (Kingma et al. 2014; Sohn et al. 2015)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.convolutional import Grid

GRID_AND_LABELS = (
    "a decoder with features=null takes z as a grid of vectors, and conditional=true puts a label before them: "
    "conditional=false, or another posterior with decoder.features=256"
)
NO_LABELS = "this model is conditional on labels: use model.given(labels), or model.sample(n, labels=...)"


class ConditionalEncoder(nn.Module):
    """An encoder of images that have a plane more, learned for each label, y @ plane with one-hot y.

    For an encoder whose first layer is linear that is as much as one-hot labels beside the pixels.

    Args:
        encoder: shape (C, H, W) -> encoder.
        shape: (C, H, W) of an image.
        classes: of the labels, which go from 0 to classes - 1.
    """

    def __init__(self, encoder: Callable[[tuple[int, int, int]], Any], shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.classes = classes
        self.plane = nn.Parameter(torch.randn(classes, height * width))
        self.network = encoder((channels + 1, height, width))
        self.features = self.network.features

    def given(self, labels: Tensor) -> "Labelled":
        """The encoder of images with these labels (B,)."""
        return Labelled(self, labels)

    def with_labels(self, x: Tensor, one_hot: Tensor) -> Tensor:
        """Features (B, F) of images (B, C, H, W) with one-hot labels (B, classes)."""
        plane = (one_hot.to(x.dtype) @ self.plane).reshape(-1, 1, *x.shape[-2:])
        features: Tensor = self.network(torch.cat([x, plane], 1))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Refuse: without labels there is no q(z|x, y)."""
        raise ValueError(NO_LABELS)


class ConditionalDecoder(nn.Module):
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
            raise ValueError(GRID_AND_LABELS)

    def given(self, labels: Tensor) -> "Labelled":
        """The decoder of latents of images with these labels (B,)."""
        return Labelled(self, labels)

    def with_labels(self, z: Tensor, one_hot: Tensor) -> Tensor:
        """The likelihood's parameters of latents (*sample, B, Z) of images with one-hot labels (B, classes)."""
        parameters: Tensor = self.network(torch.cat([one_hot.to(z.dtype).expand(*z.shape[:-1], -1), z], -1))
        return parameters

    def forward(self, z: Tensor) -> Tensor:
        """Refuse: without labels there is no p(x|z, y)."""
        raise ValueError(NO_LABELS)


class Labelled(nn.Module):
    """A conditional network for images with these labels (B,): it has its parameters, and labels no more to ask for."""

    def __init__(self, conditional: ConditionalEncoder | ConditionalDecoder, labels: Tensor) -> None:
        super().__init__()
        self.conditional = conditional
        self.labels = labels

    def forward(self, given: Tensor) -> Tensor:
        """What the network makes of images, or of latents."""
        return self.conditional.with_labels(given, F.one_hot(self.labels, self.conditional.classes))
