"""Base classes of the parts of an autoencoder, with the attributes that a part declares.

A custom part subclasses one of these and sets the attributes that differ from the defaults.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

if TYPE_CHECKING:
    from vaelab.models.autoencoder import Autoencoder

Space = Literal["real vectors", "the unit sphere", "codes"]
PartName = Literal["encoder", "posterior", "decoder", "likelihood", "prior"]
Support = Literal["binary", "levels", "counts", "interval", "line", "columns"]


class UnsuitableError(ValueError):
    """Parts that do not fit together.

    The message names parts by their classes; `worded` names them in another way, such as a config's.

    >>> error = UnsuitableError("{} has no density", nn.Identity(), fits=[nn.Linear])
    >>> str(error)
    'Identity has no density: Linear would fit'

    Args:
        message: with {} for each part.
        parts: the objects that fill the {}; a string is used as it is.
        fits: classes that would fit instead.
    """

    def __init__(self, message: str, *parts: object, fits: Sequence[type] = ()) -> None:
        self.message, self.parts, self.fits = message, parts, fits
        super().__init__(self.worded(lambda part: (part if isinstance(part, type) else type(part)).__name__))

    def worded(self, name: Callable[[object], str]) -> str:
        """Return the message with parts named by `name`."""
        text = self.message.format(*[part if isinstance(part, str) else name(part) for part in self.parts])
        return f"{text}: {' or '.join(map(name, self.fits))} would fit" if self.fits else text


class Posterior(nn.Module, ABC):
    """Features (B, F) or (B, C, H, W) -> q(z|x): batch (B,), event (Z,)."""

    latent_dim: int  # Z
    layers: Sequence[int] = ()  # sizes of z_1, z_2, ... of a hierarchy
    has_density: ClassVar[bool] = True  # a density or probability, and so a finite KL divergence to a prior
    relaxes_samples: ClassVar[bool] = False  # in training, to values that have no probability
    space: ClassVar[Space] = "real vectors"

    def bind(self, model: "Autoencoder") -> None:
        """Look up what it needs in other parts of `model`; raise UnsuitableError if that is missing."""

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """q(z|x)."""


class CodePosterior(Posterior):
    """A posterior over rows of codes, each out of a finite set."""

    codes: int  # L, codes of an image
    codebook_size: int  # K
    grids: Sequence[tuple[int, ...]]  # the places of each grid, (H, W), or (L,) where there is none, in the order of L
    per_place: int = 1  # codes of a place, next to each other
    has_density = False
    space = "codes"

    def codebook_of_each(self) -> Tensor | None:
        """Which codebook each code is out of, (L,): every grid has `per_place` of its own; None where there is one."""
        if len(self.grids) * self.per_place == 1:
            return None
        own = torch.arange(self.per_place)
        return torch.cat([own.repeat(prod(grid)) + i * self.per_place for i, grid in enumerate(self.grids)])

    def numbers(self, z: Tensor) -> Tensor:
        """Numbers of the codes (*, L) that z (*, Z) is made of.

        Raises:
            NotImplementedError: it does not know them by z alone.
        """
        raise NotImplementedError

    def on_grids(self, indices: Tensor) -> list[Tensor]:
        """Numbers of codes (N, L) where they are on each grid: (N, *grid), or (N, *grid, codes of a place)."""
        depth = (self.per_place,) if self.per_place > 1 else ()
        sizes = [prod(grid) * self.per_place for grid in self.grids]
        parts = indices.split(sizes, 1)
        return [part.unflatten(1, (*grid, *depth)) for part, grid in zip(parts, self.grids, strict=True)]

    @abstractmethod
    def vectors(self, indices: Tensor) -> Tensor:
        """Codes one after the other, (*, Z), of their numbers (*, L)."""


class Prior(nn.Module, ABC):
    """() -> p(z): batch (), event (Z,)."""

    space: Space = "real vectors"
    fewest_codes: int = 1  # that `start` can do with
    takes_classes: ClassVar[bool] = False  # is made with the number of classes, after the size of z

    def bind(self, model: "Autoencoder") -> None:
        """Look up what it needs in other parts of `model`; raise UnsuitableError if that is missing."""

    def start(self, codes: Tensor, held_out: Tensor) -> None:
        """Begin at codes (N, Z) of training images, and others (M, Z), to which it is about to be fitted."""

    @abstractmethod
    def forward(self) -> Distribution:
        """p(z)."""


class ConditionalPrior(Prior):
    """Labels (B,) -> p(z|y): batch (B,), event (Z,); without labels p(z)."""

    classes: int | None  # labels go from 0 to classes - 1; None where it is told none

    @abstractmethod
    def forward(self, y: Tensor | None = None) -> Distribution:
        """p(z|y), or p(z)."""


class Likelihood(nn.Module, ABC):
    """Parameters (*batch, *parameter_shape) -> p(x|z): batch (*batch), event `shape`."""

    shape: tuple[int, ...]  # of an event: (C, H, W) of an image
    parameter_shape: tuple[int, ...]  # of the decoder's output for one
    normalized_over: ClassVar[Support | None] = None  # the space over which it is a probability or a density
    takes_columns: ClassVar[bool] = False  # its constructor takes the sizes of columns after the shape
    couples_images: ClassVar[bool] = False  # whether in training p(x|z) of an image depends on others in its batch

    @abstractmethod
    def forward(self, parameters: Tensor) -> Distribution:
        """p(x|z)."""


class Conditional(nn.Module, ABC):
    """An encoder or decoder that takes the labels (B,) of its images as a second argument."""

    classes: int  # labels go from 0 to classes - 1
    network: nn.Module  # the one that it conditions

    @abstractmethod
    def forward(self, given: Tensor, y: Tensor) -> Tensor:
        """Features of images, or parameters of p(x|z) of latents, with labels y."""


class FeatureCritic(nn.Module, ABC):
    """A critic of images (B, C, H, W) -> logits (B,) that exposes its features."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Features (B, ...) of images."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,), or (B, *places) of parts of the images, positive for what it classifies as real."""


def coupling_module(network: nn.Module) -> nn.Module | None:
    """Return the first module that, in training, makes an image's output depend on others in its batch."""
    return next((module for module in network.modules() if _couples(module)), None)


def _couples(module: nn.Module) -> bool:
    if isinstance(module, Likelihood):
        return module.couples_images
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
