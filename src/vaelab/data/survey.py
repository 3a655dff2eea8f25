"""What values there are in data: looked at once, a part at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.data.images import Images
from vaelab.data.scaling import Scaling
from vaelab.errors import DataError


class Survey(NamedTuple):
    """The least and largest value of each channel or column, (C,), float64, and whether all are whole numbers."""

    low: Tensor
    high: Tensor
    whole: bool
    event_dims: int

    def under(self, scaling: Scaling) -> tuple[float, float]:
        """The least and the largest value of all, once they are scaled."""
        low, high = (scaling.apply(self.broadcast(value).clone()) for value in (self.low, self.high))
        return low.min().item(), high.max().item()

    def broadcast(self, of_channels: Tensor) -> Tensor:
        """Numbers of channels (C,) as they broadcast against an event: (C, 1, 1) of images."""
        return of_channels.reshape(-1, *[1] * (self.event_dims - 1))


def surveyed(rows: Images, where: str) -> Survey:
    """Look at all rows.

    Raises:
        DataError: a value is NaN or infinite.
    """
    low, high, whole, seen = None, None, True, 0
    for chunk in rows.chunks():
        values = chunk.flatten(2) if chunk.dim() > 2 else chunk.unsqueeze(-1)  # (B, C, *)
        values = values.double()
        finite = values.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            row = seen + int((~finite).nonzero()[0])
            raise DataError(f"{where} has values that are NaN or infinite, first in row {row}")
        whole = whole and bool((values == values.round()).all())
        least, largest = values.amin((0, 2)), values.amax((0, 2))
        low = least if low is None else torch.minimum(low, least)
        high = largest if high is None else torch.maximum(high, largest)
        seen += len(values)
    assert low is not None
    assert high is not None
    return Survey(low, high, whole, len(rows.shape))


def standardised(train: Images, survey: Survey) -> Scaling:
    """The scaling that gives rows mean 0 and standard deviation 1, each channel or column; one that is constant, 0.

    The sums are taken of differences from the middle of the range, in float64.
    """
    middle = (survey.low + survey.high) / 2
    total, squares, count = torch.zeros_like(middle), torch.zeros_like(middle), 0
    for chunk in train.chunks():
        values = (chunk.flatten(2) if chunk.dim() > 2 else chunk.unsqueeze(-1)).double() - middle[:, None]
        total += values.sum((0, 2))
        squares += values.square().sum((0, 2))
        count += len(values) * values.shape[2]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    deviation = torch.where(deviation > 1e-12 * (survey.high - survey.low).clamp(min=1e-300), deviation, 1.0)
    return Scaling(survey.broadcast(mean + middle), survey.broadcast(deviation))
