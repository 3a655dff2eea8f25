"""Multilayer perceptrons over flattened images."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from vaelab.networks.activations import Activation, activation_module

Widths = list[Annotated[int, Field(gt=0)]]


class MLPEncoder(nn.Module):
    """flatten, then Linear and activation for each width: (B, C, H, W) -> (B, features).

    Args:
        shape: (C, H, W) of an image.
        hidden: widths of the hidden layers; with none, the features are the pixels.
        activation: applied after every hidden layer.
    """

    def __init__(self, shape: Sequence[int], *, hidden: Widths | None = None, activation: Activation = "relu") -> None:
        super().__init__()
        widths = [prod(shape), *(hidden if hidden is not None else [400])]
        self.layers = nn.Sequential(nn.Flatten(), *_layers(widths, activation))
        self.features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, F) of images (B, C, H, W)."""
        result: Tensor = self.layers(x)
        return result


class MLPDecoder(nn.Module):
    """Linear and activation for each width, then Linear to the pixels: (*batch, Z) -> (*batch, *shape).

    Args:
        latent_dim: size Z of the latent variable.
        shape: what one output looks like: the likelihood's `parameter_shape`.
        hidden: widths of the hidden layers, from the latent side on.
        activation: applied after every hidden layer.
        output_activation: applied to the output; None for parameters on the whole line, such as logits.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        *,
        hidden: Widths | None = None,
        activation: Activation = "relu",
        output_activation: Activation | None = None,
    ) -> None:
        super().__init__()
        widths = [latent_dim, *(hidden if hidden is not None else [400])]
        layers = [*_layers(widths, activation), nn.Linear(widths[-1], prod(shape))]
        if output_activation:
            layers.append(activation_module(output_activation))
        self.layers = nn.Sequential(*layers, nn.Unflatten(-1, tuple(shape)))

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z), (*batch, *shape), of latents (*batch, Z)."""
        result: Tensor = self.layers(z)
        return result


def _layers(widths: Sequence[int], activation: Activation) -> list[nn.Module]:
    return [
        layer
        for width_in, width_out in pairwise(widths)
        for layer in (nn.Linear(width_in, width_out), activation_module(activation))
    ]
