"""What of a model is exported: tensors in, tensors out, without distributions."""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Codes, Delta
from vaelab.models.parts import Conditional


class Network(NamedTuple):
    """A part of a model, with the names of what it takes and returns, and an example of what it takes."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: list[str]


class Encoder(nn.Module):
    """x (N, *event), y (N,) -> the mean of q(z|x, y), (N, Z), its `scale` and, of codes, their `indices`.

    The scale is the standard deviation of each dimension, (N, Z), where q has one in closed form.
    """

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.network, self.posterior = model.encoder, model.posterior
        self.prior = model.prior  # of a ladder, whose posterior is made of it

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        """Mean, scale and indices, of which there may be the first alone."""
        return tuple(_numbers_of(self.posterior(_of(self.network, x, y))).values())


class Decoder(nn.Module):
    """z (N, Z), y (N,) -> the mean of p(x|z, y), (N, *event)."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.network, self.likelihood = model.decoder, model.likelihood

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean."""
        mean: Tensor = self.likelihood(_of(self.network, z, y)).mean
        return mean


class EncoderDecoder(nn.Module):
    """x (N, *event), y (N,) -> the mean of p(x|z, y) at the mean z of q(z|x, y), (N, *event)."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(model), Decoder(model)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The reconstruction."""
        mean: Tensor = self.decoder(self.encoder(x, y)[0], y)
        return mean


def _of(network: nn.Module, given: Tensor, y: Tensor | None) -> Tensor:
    result: Tensor = network(given) if y is None or not isinstance(network, Conditional) else network(given, y)
    return result


@torch.no_grad()
def networks_of(model: Autoencoder, x: Tensor, y: Tensor) -> list[Network]:
    """Encoder, decoder and both, of a model in evaluation mode; labels y (N,) are given to a conditional one alone.

    Args:
        model: for values in the units of its data.
        x: examples (N, *event), N > 1.
        y: their labels.
    """
    labels = {} if model.classes is None else {"y": y}
    found = _numbers_of(model.encode(x, y))
    return [
        Network("encoder", Encoder(model).eval(), {"x": x, **labels}, list(found)),
        Network("decoder", Decoder(model).eval(), {"z": found["mean"], **labels}, ["reconstruction"]),
        Network("autoencoder", EncoderDecoder(model).eval(), {"x": x, **labels}, ["reconstruction"]),
    ]


def _numbers_of(q: Distribution) -> dict[str, Tensor]:
    """What is exported of q(z|x)."""
    numbers = {"mean": q.mean}
    if not isinstance(q, Delta):
        with suppress(NotImplementedError):  # it has none in closed form
            numbers["scale"] = q.stddev
    if isinstance(q, Codes):
        numbers["indices"] = q.indices
    return numbers
