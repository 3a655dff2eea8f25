"""Networks that know the labels of their images: q(z|x, y) and p(x|z, y) (Kingma et al. 2014; Sohn et al. 2015)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, cat, nn

NO_LABELS = "this model is conditional on labels: use model.given(labels), or model.sample(n, labels=...)"


class ConditionalEncoder(nn.Module):
    """An encoder of images that have a plane more, learned for each label.

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
        self.plane = nn.Embedding(classes, height * width)
        self.network = encoder((channels + 1, height, width))
        self.features = self.network.features

    def given(self, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """The encoder of images with these labels (B,)."""

        def encode(x: Tensor) -> Tensor:
            plane = self.plane(labels).reshape(-1, 1, *x.shape[-2:])
            features: Tensor = self.network(cat([x, plane], 1))
            return features

        return encode

    def forward(self, x: Tensor) -> Tensor:
        """Refuse: without labels there is no q(z|x, y)."""
        raise ValueError(NO_LABELS)


class ConditionalDecoder(nn.Module):
    """A decoder of latents that have the one-hot label beside them.

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

    def given(self, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """The decoder of latents (*sample, B, Z) of images with these labels (B,)."""

        def decode(z: Tensor) -> Tensor:
            one_hot = F.one_hot(labels, self.classes).to(z.dtype).expand(*z.shape[:-1], -1)
            parameters: Tensor = self.network(cat([z, one_hot], -1))
            return parameters

        return decode

    def forward(self, z: Tensor) -> Tensor:
        """Refuse: without labels there is no p(x|z, y)."""
        raise ValueError(NO_LABELS)
