"""Multilayer perceptrons over flattened images."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from vaelab.models.networks.activations import Activation, activation_module
from vaelab.models.networks.normalization import Normalization, dense_normalization
from vaelab.performance.linear import Linear

Widths = Annotated[list[Annotated[int, Field(gt=0)]], Field(max_length=1024)]


class _DenseEncoder(nn.Module):
    """flatten, then hidden layers, the last one `features` wide."""

    def __init__(self, hidden: list[nn.Module], features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *hidden)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, F) of images (B, C, H, W)."""
        result: Tensor = self.layers(x)
        return result


class _DenseDecoder(nn.Module):
    """Hidden layers, the last one `width` wide, then Linear to the pixels."""

    def __init__(
        self, hidden: list[nn.Module], width: int, shape: Sequence[int], output_activation: Activation | None
    ) -> None:
        super().__init__()
        layers = [*hidden, Linear(width, prod(shape))]
        if output_activation:
            layers.append(activation_module(output_activation))
        self.layers = nn.Sequential(*layers, nn.Unflatten(-1, tuple(shape)))

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z), (*batch, *shape), of latents (*batch, Z)."""
        images: Tensor = self.layers(z.reshape(-1, z.shape[-1]))
        return images.reshape(*z.shape[:-1], *images.shape[1:])


class MLPEncoder(_DenseEncoder):
    """flatten, then Linear and activation for each width: (B, C, H, W) -> (B, features).

    Args:
        shape: (C, H, W) of an image.
        hidden: widths of the hidden layers; with none, the features are the pixels.
        activation: applied after every hidden layer.
        normalization: applied before every activation.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        hidden: Widths | None = None,
        activation: Activation = "relu",
        normalization: Normalization | None = None,
    ) -> None:
        widths = [prod(shape), *(hidden if hidden is not None else [400])]
        super().__init__(dense_layers(widths, activation, normalization), widths[-1])


class MLPDecoder(_DenseDecoder):
    """Linear and activation for each width, then Linear to the pixels: (*batch, Z) -> (*batch, *shape).

    Args:
        latent_dim: size Z of the latent variable.
        shape: what one output looks like: the likelihood's `parameter_shape`.
        hidden: widths of the hidden layers, from the latent side on.
        activation: applied after every hidden layer.
        normalization: applied before every activation of a hidden layer.
        output_activation: applied to the output; None for parameters on the whole line, such as logits.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        *,
        hidden: Widths | None = None,
        activation: Activation = "relu",
        normalization: Normalization | None = None,
        output_activation: Activation | None = None,
    ) -> None:
        widths = [latent_dim, *(hidden if hidden is not None else [400])]
        super().__init__(dense_layers(widths, activation, normalization), widths[-1], shape, output_activation)


class GatedMLPEncoder(_DenseEncoder):
    """The same of gated layers (Tomczak & Welling 2018): (B, C, H, W) -> (B, features).

    Args:
        shape: (C, H, W) of an image.
        hidden: widths of the hidden layers.
        normalization: applied to both linear maps of every layer.
    """

    def __init__(
        self, shape: Sequence[int], *, hidden: Widths | None = None, normalization: Normalization | None = None
    ) -> None:
        widths = [prod(shape), *(hidden if hidden is not None else [300, 300])]
        super().__init__(gated_layers(widths, normalization), widths[-1])


class GatedMLPDecoder(_DenseDecoder):
    """Gated layers, then Linear to the pixels: (*batch, Z) -> (*batch, *shape).

    Args:
        latent_dim: size Z of the latent variable.
        shape: what one output looks like: the likelihood's `parameter_shape`.
        hidden: widths of the hidden layers, from the latent side on.
        normalization: applied to both linear maps of every hidden layer.
        output_activation: applied to the output; None for parameters on the whole line, such as logits.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        *,
        hidden: Widths | None = None,
        normalization: Normalization | None = None,
        output_activation: Activation | None = None,
    ) -> None:
        widths = [latent_dim, *(hidden if hidden is not None else [300, 300])]
        super().__init__(gated_layers(widths, normalization), widths[-1], shape, output_activation)


class GatedLinear(nn.Module):
    """N(A x + a) * sigmoid(N(B x + b)) (Dauphin et al. 2017, equation 1), N a normalization or nothing."""

    def __init__(self, features: int, outputs: int, normalization: Normalization | None = None) -> None:
        super().__init__()
        self.value, self.gate = (
            nn.Sequential(*linear_layers(features, outputs, normalization)) for _ in ("value", "gate")
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs) of (B, features)."""
        result: Tensor = self.value(x) * self.gate(x).sigmoid()
        return result


def dense_layers(
    widths: Sequence[int], activation: Activation, normalization: Normalization | None = None
) -> list[nn.Module]:
    """Linear, normalization, activation for each step from width to width."""
    return [
        layer
        for width_in, width_out in pairwise(widths)
        for layer in (*linear_layers(width_in, width_out, normalization), activation_module(activation))
    ]


def gated_layers(widths: Sequence[int], normalization: Normalization | None = None) -> list[nn.Module]:
    """GatedLinear for each step from width to width."""
    return [GatedLinear(width_in, width_out, normalization) for width_in, width_out in pairwise(widths)]


def linear_layers(width_in: int, width_out: int, normalization: Normalization | None) -> list[nn.Module]:
    """Linear and the normalization of what it gives; batch normalization has a bias of its own."""
    return [
        Linear(width_in, width_out, bias=normalization != "batch"),
        *dense_normalization(normalization, width_out),
    ]
