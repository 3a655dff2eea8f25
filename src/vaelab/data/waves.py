"""Signals that are made by a formula from the number of the row."""

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from vaelab.data.form import Form
from vaelab.data.images import Count, ImageData, Images, Share, Splits
from vaelab.data.scaling import AS_IT_IS
from vaelab.data.stores import Store

SHAPES = ("sine", "triangle", "square")
LOWEST, HIGHEST = 1.0, 4.0  # frequencies, waves in a signal
QUIETEST, LOUDEST = 0.4, 1.0  # amplitudes
HARMONICS = 15  # of a triangle or a square wave

Length = Annotated[int, Field(ge=8, le=2**20)]
Values = Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=4, max_length=4)]


class WaveStore(Store):
    """All combinations of shape, frequency, amplitude and phase, as signals (1, length), float32.

    Args:
        length: points of a signal.
        values: how many each factor has.
        device: where they are made.
    """

    dtype = torch.float32

    def __init__(self, length: int, values: list[int], *, device: torch.device | None = None) -> None:
        self.length, self.values = length, list(values)
        self.shape = (1, length)
        self._device = device or torch.device("cpu")
        self._time = torch.arange(length, device=self._device) * (2 * math.pi / length)

    def __len__(self) -> int:
        """The number of combinations."""
        return math.prod(self.values)

    @property
    def device(self) -> torch.device:
        """Where signals are made."""
        return self._device

    def to(self, device: torch.device) -> "WaveStore":
        """The same, made on another device."""
        return WaveStore(self.length, self.values, device=device)

    def description(self) -> str:
        """The formula's arguments."""
        return f"waves of {self.length} points, {self.values}"

    def factors(self, numbers: Tensor) -> Tensor:
        """Shape, frequency, amplitude and phase of signals by number, each from 0 on: (B, 4), int64."""
        digits = []
        for values in reversed(self.values):
            digits.append(numbers % values)
            numbers = numbers // values
        return torch.stack(digits[::-1], 1)

    def rows(self, numbers: Tensor) -> Tensor:
        """Signals by number, (B, 1, length): Fourier series of the shapes, so that none has a step."""
        shape, frequency, amplitude, phase = self.factors(numbers).unbind(1)
        _, frequencies, amplitudes, phases = self.values
        f = LOWEST + frequency * ((HIGHEST - LOWEST) / max(1, frequencies - 1))
        a = QUIETEST + amplitude * ((LOUDEST - QUIETEST) / max(1, amplitudes - 1))
        angle = f[:, None] * self._time + (phase * (2 * math.pi / phases))[:, None]  # (B, length)
        signal = angle.sin()
        higher = shape > 0
        if bool(higher.any()):
            odd = torch.arange(1, HARMONICS + 1, 2, device=self._device)
            triangle = (1 - 2 * (odd // 2 % 2)) * 8 / (math.pi * odd) ** 2
            falls = torch.where(shape[:, None] == 1, triangle, 4 / (math.pi * odd))
            series = torch.einsum("bk,bkt->bt", falls[higher], (angle[higher][:, None] * odd[:, None]).sin())
            signal[higher] = series
        return (a[:, None] * signal).unsqueeze(1)


@dataclass(kw_only=True, eq=False)
class Waves(ImageData):
    """Waves of known shape, frequency, amplitude and phase; nothing is stored. Labels are the shapes.

    Args:
        length: points of a signal.
        values: of shape (sine, triangle, square), frequency, amplitude and phase.
    """

    validation: Count | Share = 0.05
    test: Count | Share = 0.05
    length: Length = 128
    values: Values = field(default_factory=lambda: [3, 31, 7, 32])

    def __post_init__(self) -> None:
        """Refuse more shapes than there are."""
        if self.values[0] > len(SHAPES):
            raise ValueError(f"data.values={self.values}: there are {len(SHAPES)} shapes, {', '.join(SHAPES)}")

    def outline(self) -> Form:
        """What the arguments say."""
        factors = dict(zip(("shape", "frequency", "amplitude", "phase"), self.values, strict=True))
        names = SHAPES[: self.values[0]]
        return Form(
            shape=(1, self.length), names=names, factors=factors, scaling=AS_IT_IS, span=(-1.25, 1.25), values="real"
        )

    def read(self) -> Splits:
        """Training, validation and test signals: one formula, three lists of numbers."""
        store = WaveStore(self.length, self.values)
        labels = torch.arange(len(store)) // math.prod(self.values[1:])
        return self.drawn(Images(store, labels, scaling=AS_IT_IS), validation=self.validation, test=self.test)
