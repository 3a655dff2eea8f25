"""Convolutional networks for images of any size from 8 x 8 up."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from vaelab.networks.activations import Activation, activation_module

Width = Annotated[int, Field(gt=0)]
Channels = Annotated[list[Width], Field(min_length=1)]


class ConvEncoder(nn.Module):
    """Stride-2 convolutions, each followed by the activation, then one fully connected layer.

    (B, C, H, W) -> (B, features). Each convolution (kernel 4, padding 1, as in DCGAN, Radford et al. 2016)
    halves height and width, rounding down.

    Args:
        shape: (C, H, W) of an image.
        channels: channels after each convolution.
        features: width of the fully connected layer.
        activation: applied after every layer.

    Raises:
        ValueError: the image is too small to be halved once for each entry of `channels`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        features: Width = 256,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        widths = channels or [32, 64]
        height, width = _halvings(shape, len(widths))[-1]
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise([shape[0], *widths]):
            layers += [
                nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1),
                activation_module(activation),
            ]
        layers += [
            nn.Flatten(),
            nn.Linear(widths[-1] * height * width, features),
            activation_module(activation),
        ]
        self.layers = nn.Sequential(*layers)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, F) of images (B, C, H, W)."""
        result: Tensor = self.layers(x)
        return result


class ConvDecoder(nn.Module):
    """`ConvEncoder` in reverse: two linear layers, then transposed convolutions that double the size.

    (*batch, Z) -> (*batch, *shape). Sizes that were rounded down on the way in come back exactly.

    Args:
        latent_dim: size Z of the latent variable.
        shape: (C', H, W) of one output: the likelihood's `parameter_shape`.
        channels: channels before each transposed convolution, from the latent side on.
        features: width of the first fully connected layer.
        activation: applied after every layer but the last.
        output_activation: applied to the output; None for parameters on the whole line, such as logits.

    Raises:
        ValueError: the image is too small to be halved once for each entry of `channels`.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        features: Width = 256,
        activation: Activation = "relu",
        output_activation: Activation | None = None,
    ) -> None:
        super().__init__()
        widths = channels or [64, 32]
        sizes = _halvings(shape, len(widths))[::-1]  # from small to large
        inner = (widths[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, features),
            activation_module(activation),
            nn.Linear(features, prod(inner)),
            activation_module(activation),
            nn.Unflatten(-1, inner),
        ]
        for (channels_in, channels_out), size in zip(pairwise([*widths, shape[0]]), sizes[1:], strict=True):
            odd = (size[0] % 2, size[1] % 2)
            layers += [
                nn.ConvTranspose2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, output_padding=odd),
                activation_module(activation),
            ]
        layers[-1] = activation_module(output_activation) if output_activation else nn.Identity()
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z), (*batch, *shape), of latents (*batch, Z)."""
        images: Tensor = self.layers(z.reshape(-1, z.shape[-1]))
        return images.reshape(*z.shape[:-1], *images.shape[1:])


def _halvings(shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """(H, W), and what is left of it after each of `times` halvings."""
    height, width = shape[1:]
    possible = min(height, width).bit_length() - 1
    if possible < times:
        raise ValueError(
            f"{times} stride-2 layers do not fit an image of {height} x {width}: "
            f"it can be halved {possible} times; give at most {possible} channels"
        )
    return [(height >> n, width >> n) for n in range(times + 1)]
