"""Convolutional networks for images of any size from 8 x 8 up."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from vaelab.models.networks.activations import Activation, activation_module
from vaelab.models.networks.mlp import dense_layers
from vaelab.models.networks.normalization import Normalization, conv_normalization

Width = Annotated[int, Field(gt=0)]
Channels = Annotated[list[Width], Field(min_length=1, max_length=1024)]
Blocks = Annotated[int, Field(ge=0, le=1024)]


class ConvEncoder(nn.Module):
    """Stride-2 convolutions, each followed by the activation, then one fully connected layer.

    (B, C, H, W) -> (B, features). Each convolution (kernel 4, padding 1, as in DCGAN, Radford et al. 2016)
    halves height and width, rounding down.

    Args:
        shape: (C, H, W) of an image.
        channels: channels after each convolution.
        blocks: residual blocks after each convolution.
        features: width of the fully connected layer; None leaves it out and keeps the grid of the last convolution,
            (B, C', H', W'): for a code at each of its places. `self.features` is then that shape.
        activation: applied after every layer.
        normalization: applied before every activation.

    Raises:
        ValueError: the image is too small to be halved once for each entry of `channels`.
    """

    features: int | tuple[int, int, int]

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        blocks: Blocks = 0,
        features: Width | None = 256,
        activation: Activation = "relu",
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        widths = channels or [32, 64]
        grid = (widths[-1], *_halvings(shape, len(widths))[-1])
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise([shape[0], *widths]):
            layers += [
                nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=normalization != "batch"),
                *conv_normalization(normalization, channels_out),
                *[ResidualBlock(channels_out, activation, normalization) for _ in range(blocks)],
                activation_module(activation),
            ]
        if features is None:
            self.features = grid
        else:
            layers += [nn.Flatten(), *dense_layers([prod(grid), features], activation, normalization)]
            self.features = features
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, F), or a grid of them, of images (B, C, H, W)."""
        result: Tensor = self.layers(x)
        return result


class ConvDecoder(nn.Module):
    """`ConvEncoder` in reverse: two linear layers, then transposed convolutions that double the size.

    (*batch, Z) -> (*batch, *shape). Sizes that were rounded down on the way in come back exactly.

    Args:
        latent_dim: size Z of the latent variable.
        shape: (C', H, W) of one output: the likelihood's `parameter_shape`.
        channels: channels before each transposed convolution, from the latent side on.
        blocks: residual blocks before each transposed convolution.
        features: width of the first fully connected layer; None takes z for the vectors of a grid, place by place,
            and has a 3 x 3 convolution instead of the two linear layers.
        activation: applied after every layer but the last.
        normalization: applied before every activation of a hidden layer.
        output_activation: applied to the output; None for parameters on the whole line, such as logits.

    Raises:
        ValueError: the image is too small to be halved once for each entry of `channels`, or z is no grid.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        blocks: Blocks = 0,
        features: Width | None = 256,
        activation: Activation = "relu",
        normalization: Normalization | None = None,
        output_activation: Activation | None = None,
    ) -> None:
        super().__init__()
        widths = channels or [64, 32]
        sizes = _halvings(shape, len(widths))[::-1]  # from small to large
        inner = (widths[0], *sizes[0])

        def residual(width: int) -> list[nn.Module]:
            return [ResidualBlock(width, activation, normalization) for _ in range(blocks)]

        if features is None:
            layers = [
                Grid(latent_dim, *sizes[0]),
                nn.Conv2d(latent_dim // prod(sizes[0]), widths[0], 3, padding=1, bias=normalization != "batch"),
                *conv_normalization(normalization, widths[0]),
                *residual(widths[0]),
                activation_module(activation),
            ]
        else:
            layers = [
                *dense_layers([latent_dim, features, prod(inner)], activation, normalization),
                nn.Unflatten(-1, inner),
                *([*residual(widths[0]), activation_module(activation)] if blocks else []),
            ]
        for (channels_in, channels_out), size in zip(pairwise(widths), sizes[1:], strict=False):
            layers += [
                _doubling(channels_in, channels_out, size, bias=normalization != "batch"),
                *conv_normalization(normalization, channels_out),
                *residual(channels_out),
                activation_module(activation),
            ]
        layers += [
            _doubling(widths[-1], shape[0], sizes[-1]),
            activation_module(output_activation) if output_activation else nn.Identity(),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z), (*batch, *shape), of latents (*batch, Z)."""
        images: Tensor = self.layers(z.reshape(-1, z.shape[-1]))
        return images.reshape(*z.shape[:-1], *images.shape[1:])


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), with 3 x 3 convolutions (He et al. 2016b, figure 1b)."""

    def __init__(self, channels: int, activation: Activation, normalization: Normalization | None = None) -> None:
        super().__init__()
        self.change = nn.Sequential(
            *conv_normalization(normalization, channels),
            activation_module(activation),
            nn.Conv2d(channels, channels, 3, padding=1, bias=normalization != "batch"),
            *conv_normalization(normalization, channels),
            activation_module(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (B, C, H, W)."""
        result: Tensor = x + self.change(x)
        return result


class Grid(nn.Module):
    """Vectors of a grid's places, one after the other, (B, H W D) -> (B, D, H, W)."""

    def __init__(self, latent_dim: int, height: int, width: int) -> None:
        super().__init__()
        if latent_dim % (height * width):
            raise ValueError(
                f"a decoder with features=null takes a vector for each place of its grid of {height} x {width}, and z "
                f"has {latent_dim} numbers: it goes with a posterior over codes, an encoder with features=null and as "
                "many channels, and no labels (conditional=false); any other z needs decoder.features=256"
            )
        self.height, self.width = height, width

    def forward(self, z: Tensor) -> Tensor:
        """The grid."""
        return z.reshape(len(z), self.height, self.width, -1).movedim(-1, 1)


def _doubling(channels_in: int, channels_out: int, size: tuple[int, int], *, bias: bool = True) -> nn.Module:
    odd = (size[0] % 2, size[1] % 2)
    return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, output_padding=odd, bias=bias)


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
