"""Shapes that are drawn by a formula from the number of the image: every factor of variation is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from vaelab.data.form import Form
from vaelab.data.images import Count, ImageData, Images, Share, Splits
from vaelab.data.stores import Store

SHAPES = ("square", "ellipse", "heart")
FACTORS = ("shape", "scale", "angle", "x", "y")
SMALLEST, LARGEST = 0.5, 1.0  # scales
SIZE = 0.22  # half the side of a square of scale 1, of an image's half side
REACH = 0.62  # how far from the middle the middle of a shape goes

Size = Annotated[int, Field(ge=4, le=4096)]
Distance = Callable[[Tensor, Tensor], Tensor]  # (u, v) -> signed distance to an outline; v points down, as rows do
Values = Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=5, max_length=5)]


class SpriteStore(Store):
    """All combinations of five factors, as images (1, size, size), uint8, drawn when they are asked for.

    Rows are numbered as dSprites' are (Matthey et al. 2017): shape, scale, angle, x, y, the last one fastest. A pixel
    is 255 times the share of it inside of the shape, by its signed distance to the outline; without `antialias` it is
    255 where its middle is inside, else 0.

    Args:
        size: pixels a side.
        values: how many each factor has.
        antialias: grey pixels on the outline.
        device: where they are drawn.
    """

    def __init__(
        self, size: int, values: Sequence[int], *, antialias: bool, device: torch.device | None = None
    ) -> None:
        self.size = size
        self.values = tuple(values)
        self.antialias = antialias
        self.shape = (1, size, size)
        self._device = device or torch.device("cpu")
        middles = (torch.arange(size, device=self._device) + 0.5) * (2 / size) - 1
        self._x, self._y = middles[None, None, :], middles[None, :, None]

    def __len__(self) -> int:
        """The number of combinations."""
        return prod(self.values)

    @property
    def device(self) -> torch.device:
        """Where images are drawn."""
        return self._device

    def to(self, device: torch.device) -> "SpriteStore":
        """The same, drawn on another device."""
        return SpriteStore(self.size, self.values, antialias=self.antialias, device=device)

    def description(self) -> str:
        """The formula's arguments."""
        return f"sprites of {self.size} pixels, {self.values}, antialias={self.antialias}"

    def factors(self, numbers: Tensor) -> Tensor:
        """Shape, scale, angle, x and y of images by number, each from 0 on: (B, 5), int64."""
        digits = []
        for values in reversed(self.values):
            digits.append(numbers % values)
            numbers = numbers // values
        return torch.stack(digits[::-1], 1)

    def rows(self, numbers: Tensor) -> Tensor:
        """Images by number, (B, 1, size, size), uint8."""
        shape, *others = self.factors(numbers).unbind(1)
        _, scales, angles, columns, lines = self.values
        scale = SIZE * _even(others[0], scales, SMALLEST, LARGEST)
        angle = others[1] * (2 * math.pi / angles)
        x, y = _even(others[2], columns, -REACH, REACH), _even(others[3], lines, -REACH, REACH)
        drawn = torch.empty(len(numbers), 1, self.size, self.size, dtype=torch.uint8, device=self._device)
        for number, distance in enumerate((_square, _ellipse, _heart)[: self.values[0]]):
            own = (shape == number).nonzero().flatten()
            if len(own):
                drawn[own] = self._draw(distance, *(factor[own] for factor in (scale, angle, x, y)))
        return drawn

    def _draw(self, distance: Distance, scale: Tensor, angle: Tensor, x: Tensor, y: Tensor) -> Tensor:
        scale, angle, x, y = (factor[:, None, None] for factor in (scale, angle, x, y))
        dx, dy = self._x - x, self._y - y  # (B, 1, size), (B, size, 1)
        cos, sin = angle.cos() / scale, angle.sin() / scale
        u, v = cos * dx + sin * dy, cos * dy - sin * dx  # (B, size, size), in units of the shape
        outside = distance(u, v)
        if not self.antialias:
            return outside.lt(0).to(torch.uint8).mul_(255).unsqueeze(1)
        in_pixels = outside.mul_(scale * (-self.size / 2)).add_(0.5)  # above 1 inside, below 0 outside
        return in_pixels.clamp_(0, 1).mul_(255).round_().to(torch.uint8).unsqueeze(1)


def _even(numbers: Tensor, count: int, low: float, high: float) -> Tensor:
    """Number k of `count` values from low to high, at equal steps; of one value the middle."""
    if count == 1:
        return torch.full_like(numbers, (low + high) / 2, dtype=torch.float32)
    return low + numbers * ((high - low) / (count - 1))


def _square(u: Tensor, v: Tensor) -> Tensor:
    """The square [-1, 1] x [-1, 1]; near its edges, which is where it is looked at."""
    return torch.maximum(u.abs(), v.abs()).sub_(1)


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Half axes 1.25 and 0.75: f / |grad f| for f = |(u/a, v/b)| - 1, exact on the outline and to first order near."""
    a, b = 1.25, 0.75
    p, q = u / a, v / b
    radius = torch.hypot(p, q)
    slope = torch.hypot(p / a, q / b).clamp_(min=1e-6)
    return (radius - 1) * radius / slope


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its corner and a disk on each of its two upper sides: the smaller of the distances to them."""
    x, y = u.abs().mul_(1.1), v.mul(-1.1).sub_(0.1)  # the right half, as high above its middle as below
    disk = torch.hypot(x - 0.5, y - 0.5).sub_(math.sqrt(0.5))
    square = x.add_(y.abs_()).sub_(1).mul_(math.sqrt(0.5))
    return torch.minimum(disk, square).div_(1.1)


@dataclass(kw_only=True, eq=False)
class Sprites(ImageData):
    """White shapes on black of known shape, scale, angle and place, as in dSprites; nothing is stored.

    Labels are the shapes. `test` and `validation` images are drawn with `seed`; the rest is trained on.

    Args:
        size: pixels a side.
        values: of shape (square, ellipse, heart), scale, angle, x and y; [3, 6, 40, 32, 32] is the grid of dSprites.
        antialias: grey pixels on the outline; false gives black and white.
    """

    validation: Count | Share = 5000
    test: Count | Share = 5000
    size: Size = 64
    values: Values = field(default_factory=lambda: [3, 6, 40, 32, 32])
    antialias: bool = True

    def __post_init__(self) -> None:
        """Refuse more shapes than there are."""
        if self.values[0] > len(SHAPES):
            raise ValueError(f"data.values={self.values}: there are {len(SHAPES)} shapes, {', '.join(SHAPES)}")

    def outline(self) -> Form:
        """What the arguments say."""
        factors = dict(zip(FACTORS, self.values, strict=True))
        return Form(shape=(1, self.size, self.size), names=SHAPES[: self.values[0]], factors=factors)

    def read(self) -> Splits:
        """Training, validation and test images: one formula, three lists of numbers."""
        store = SpriteStore(self.size, self.values, antialias=self.antialias)
        labels = torch.arange(len(store)) // prod(self.values[1:])
        return self.drawn(Images(store, labels), validation=self.validation, test=self.test)
