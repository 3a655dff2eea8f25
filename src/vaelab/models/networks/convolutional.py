"""Convolutional networks for signals (C, T), images (C, H, W) and volumes (C, D, H, W), by the rank of the event."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from vaelab.models.networks.activations import Activation, activation_module
from vaelab.models.networks.mlp import dense_layers
from vaelab.models.networks.normalization import Normalization, conv_normalization

Width = Annotated[int, Field(gt=0)]
Channels = Annotated[list[Width], Field(min_length=1, max_length=1024)]
Blocks = Annotated[int, Field(ge=0, le=1024)]
CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class ConvEncoder(nn.Module):
    """Stride-2 convolutions, each followed by the activation, then one fully connected layer.

    (B, C, H, W) -> (B, features); also (B, C, T) and (B, C, D, H, W). Each convolution (kernel 4, padding 1, as in
    DCGAN, Radford et al. 2016) halves height and width, rounding down.

    Args:
        shape: (C, H, W) of an image, (C, T) of a signal, (C, D, H, W) of a volume.
        channels: channels after each convolution.
        blocks: residual blocks after each convolution.
        attention: layers of it after the last convolution, at the lowest resolution.
        features: width of the fully connected layer; None leaves it out and keeps the grid of the last convolution,
            (B, C', H', W'): for a code at each of its places. `self.features` is then that shape.
        activation: applied after every layer.
        normalization: applied before every activation.

    Raises:
        ValueError: the image is too small to be halved once for each entry of `channels`.
    """

    features: int | tuple[int, ...]

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        blocks: Blocks = 0,
        attention: Blocks = 0,
        features: Width | None = 256,
        activation: Activation = "relu",
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        widths, places = channels or [32, 64], _places(shape)
        grid = (widths[-1], *_halvings(shape, len(widths))[-1])
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise([shape[0], *widths]):
            layers += [
                CONVOLUTIONS[places](channels_in, channels_out, 4, stride=2, padding=1, bias=normalization != "batch"),
                *conv_normalization(normalization, channels_out, places),
                *[ResidualBlock(channels_out, activation, normalization, places) for _ in range(blocks)],
                activation_module(activation),
            ]
        layers += [Attention(widths[-1], normalization, places) for _ in range(attention)]
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
        attention: layers of it before the first one, at the lowest resolution.
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
        attention: Blocks = 0,
        features: Width | None = 256,
        activation: Activation = "relu",
        normalization: Normalization | None = None,
        output_activation: Activation | None = None,
    ) -> None:
        super().__init__()
        widths, places = channels or [64, 32], _places(shape)
        sizes = _halvings(shape, len(widths))[::-1]  # from small to large
        inner = (widths[0], *sizes[0])

        def residual(width: int) -> list[nn.Module]:
            return [ResidualBlock(width, activation, normalization, places) for _ in range(blocks)]

        if features is None:
            layers = [
                Grid(latent_dim, *sizes[0]),
                CONVOLUTIONS[places](
                    latent_dim // prod(sizes[0]), widths[0], 3, padding=1, bias=normalization != "batch"
                ),
                *conv_normalization(normalization, widths[0], places),
                *residual(widths[0]),
                activation_module(activation),
            ]
        else:
            layers = [
                *dense_layers([latent_dim, features, prod(inner)], activation, normalization),
                nn.Unflatten(-1, inner),
                *([*residual(widths[0]), activation_module(activation)] if blocks else []),
            ]
        layers += [Attention(widths[0], normalization, places) for _ in range(attention)]
        for (channels_in, channels_out), size in zip(pairwise(widths), sizes[1:], strict=False):
            layers += [
                _doubling(channels_in, channels_out, size, bias=normalization != "batch"),
                *conv_normalization(normalization, channels_out, places),
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
    """x + conv(act(norm(conv(act(norm(x)))))), with 3 x 3 convolutions (He et al. 2016b, figure 1b).

    Over `places` axes: 2 of an image, 1 of a signal, 3 of a volume.
    """

    def __init__(
        self, channels: int, activation: Activation, normalization: Normalization | None = None, places: int = 2
    ) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[places]
        self.change = nn.Sequential(
            *conv_normalization(normalization, channels, places),
            activation_module(activation),
            convolution(channels, channels, 3, padding=1, bias=normalization != "batch"),
            *conv_normalization(normalization, channels, places),
            activation_module(activation),
            convolution(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (B, C, *places)."""
        result: Tensor = x + self.change(x)
        return result


class Attention(nn.Module):
    """x + out(softmax(q k^T / sqrt(C)) v), with q, k, v of norm(x) at every place (Vaswani et al. 2017), one head.

    The product of queries and keys is (places x places): for the lowest resolution of a network.
    """

    def __init__(self, channels: int, normalization: Normalization | None = None, places: int = 2) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[places]
        self.project = nn.Sequential(
            *conv_normalization(normalization, channels, places), convolution(channels, 3 * channels, 1)
        )
        self.out = convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (B, C, *places)."""
        projected = self.project(x).flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1 head, places, 3 C)
        attended = scaled_dot_product_attention(*projected.chunk(3, -1)).squeeze(1).transpose(1, 2)
        result: Tensor = x + self.out(attended.unflatten(2, x.shape[2:]))
        return result


class Grid(nn.Module):
    """Vectors of a grid's places, one after the other, (B, H W D) -> (B, D, H, W)."""

    def __init__(self, latent_dim: int, *sizes: int) -> None:
        super().__init__()
        if latent_dim % prod(sizes):
            raise ValueError(
                f"a decoder with features=null takes a vector for each place of its grid of {_by(sizes)}, and z "
                f"has {latent_dim} numbers: it goes with a posterior over codes, an encoder with features=null and as "
                "many channels, and no labels (conditional=false); any other z needs decoder.features=256"
            )
        self.sizes = sizes

    def forward(self, z: Tensor) -> Tensor:
        """The grid."""
        return z.reshape(z.shape[0], *self.sizes, -1).movedim(-1, 1)


def _doubling(channels_in: int, channels_out: int, size: tuple[int, ...], *, bias: bool = True) -> nn.Module:
    odd = tuple(side % 2 for side in size)
    transposed = TRANSPOSED[len(size)]
    return transposed(channels_in, channels_out, 4, stride=2, padding=1, output_padding=odd, bias=bias)


def _places(shape: Sequence[int]) -> int:
    """The axes that a convolution goes along.

    Raises:
        ValueError: there are none, or too many.
    """
    places = len(shape) - 1
    if places not in CONVOLUTIONS:
        raise ValueError(
            f"encoder=conv and decoder=conv are for signals (C, T), images (C, H, W) and volumes (C, D, H, W), and "
            f"these are events of shape {tuple(shape)}: encoder=mlp decoder=mlp"
        )
    return places


def _halvings(shape: Sequence[int], times: int) -> list[tuple[int, ...]]:
    """(H, W), and what is left of it after each of `times` halvings."""
    sizes = tuple(shape[1:])
    possible = min(sizes).bit_length() - 1
    if possible < times:
        kind = {1: "a signal", 3: "a volume"}.get(len(sizes), "an image")
        raise ValueError(
            f"{times} stride-2 layers do not fit {kind} of {_by(sizes)}: "
            f"it can be halved {possible} times; give at most {possible} channels"
        )
    return [tuple(side >> n for side in sizes) for n in range(times + 1)]


def _by(sizes: Sequence[int]) -> str:
    """The words of several sizes, such as 28 x 20."""
    return " x ".join(map(str, sizes))
