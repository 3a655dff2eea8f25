"""Turn events of any shape into images: signals into lines, vectors into bars."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vaelab.data.form import Form

WIDTH, HEIGHT = 144, 60  # pixels of a signal or a vector
MOST_BARS = 48  # a longer vector is drawn as a line
SLICES = 4  # of a volume, side by side
COLOURS = torch.tensor(
    [[0.12, 0.47, 0.71], [1.0, 0.5, 0.05], [0.17, 0.63, 0.17], [0.84, 0.15, 0.16], [0.58, 0.4, 0.74]]
)
AXIS, FRAME = 0.85, 0.93  # greys of the line at zero, and around each


class View(NamedTuple):
    """Draw events of one shape, all in the same range, so that they can be compared.

    Args:
        shape: of an event: (C, H, W), (C, T), (D,) or (C, D, H, W).
        low: the value at the bottom, or that is black.
        high: the value at the top, or that is white.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, form: Form) -> "View":
        """Return the view of events of this form."""
        return cls(form.shape, *form.span)

    def __call__(self, events: Tensor) -> Tensor:
        """Turn events (*batch, *shape) into images (*batch, C, H, W) in [0, 1]; images stay as they are."""
        if len(self.shape) == 3 and (self.low, self.high) == (0, 1):
            return events
        batch = events.shape[: events.dim() - len(self.shape)]
        each = (events.detach().float().reshape(-1, *self.shape) - self.low) / max(self.high - self.low, 1e-12)
        images = self._drawn(each)
        return images.reshape(*batch, *images.shape[1:])

    def _drawn(self, each: Tensor) -> Tensor:
        match len(self.shape):
            case 1 if self.shape[0] <= MOST_BARS:
                return bars(each, self.zero)
            case 1:
                return lines(each[:, None], self.zero)
            case 2:
                return lines(each, self.zero)
            case 4:
                return slices(each).clamp(0, 1)
        return each.clamp(0, 1)

    @property
    def zero(self) -> float:
        """The position of zero, from the bottom, 0, to the top, 1."""
        return min(1.0, max(0.0, -self.low / max(self.high - self.low, 1e-12)))


def lines(signals: Tensor, zero: float) -> Tensor:
    """Draw signals (N, C, T) in [0, 1] as lines, a colour per channel: (N, 3, HEIGHT, WIDTH)."""
    points = interpolate(signals, WIDTH + 1, mode="linear", align_corners=True)  # (N, C, W + 1)
    rows = (HEIGHT - 4) * (1 - points.clamp(-0.02, 1.02)) + 1.5  # downwards
    top = torch.minimum(rows[..., 1:], rows[..., :-1])[..., None, :]  # (N, C, 1, W)
    bottom = torch.maximum(rows[..., 1:], rows[..., :-1])[..., None, :]
    row = torch.arange(HEIGHT, dtype=points.dtype, device=points.device)[:, None]
    ink = (1.2 - torch.maximum(top - row, row - bottom).clamp(min=0)).clamp(0, 1)  # (N, C, H, W)
    page = _page(len(signals), zero, signals)
    for channel in range(signals.shape[1]):
        colour = COLOURS[channel % len(COLOURS)].to(page)[:, None, None]
        page = torch.lerp(page, colour.expand_as(page), ink[:, channel, None])
    return page


def bars(vectors: Tensor, zero: float) -> Tensor:
    """Draw vectors (N, D) in [0, 1] as bars from zero: (N, 3, HEIGHT, WIDTH)."""
    width, size = WIDTH, vectors.shape[1]
    column = (torch.arange(width, device=vectors.device) * size) // width
    gap = torch.cat([column[1:] != column[:-1], column.new_zeros(1, dtype=torch.bool)]) & (width >= 3 * size)
    ends = (1 - vectors.clamp(0, 1))[:, column] * (HEIGHT - 4) + 1.5
    start = (1 - zero) * (HEIGHT - 4) + 1.5
    row = torch.arange(HEIGHT, dtype=vectors.dtype, device=vectors.device)[:, None]
    low, high = ends.clamp(max=start)[:, None], ends.clamp(min=start)[:, None]  # (N, 1, W)
    ink = ((high - row).clamp(-0.5, 0.5) + (row - low).clamp(-0.5, 0.5)).clamp(0, 1) * ~gap
    page = _page(len(vectors), zero, vectors)
    return torch.lerp(page, COLOURS[0].to(page)[:, None, None].expand_as(page), ink[:, None])


def slices(volumes: Tensor) -> Tensor:
    """Draw planes of volumes (N, C, D, H, W) at equal steps of D side by side: (N, C, H, W')."""
    depth = volumes.shape[2]
    count = min(SLICES, depth)
    chosen = ((torch.arange(count, device=volumes.device) + 0.5) * depth / count).long()
    return torch.cat(list(volumes[:, :, chosen].unbind(2)), -1)


def _page(count: int, zero: float, like: Tensor) -> Tensor:
    page = like.new_full((count, 3, HEIGHT, WIDTH), FRAME)
    page[..., 1:-1, 1:-1] = 1
    page[:, :, round((1 - zero) * (HEIGHT - 4) + 1.5)] = AXIS
    return page
