"""Activation functions by the names that a config uses."""

from typing import Literal

from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid"]

_MODULES: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation_module(name: Activation) -> nn.Module:
    """A new module that applies the activation function `name`."""
    return _MODULES[name]()
