"""From the values that are stored to the numbers that a model works with, and back."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

Affine = float | Tensor


class Scaling(NamedTuple):
    """x = (value - shift) / scale: float32, whatever the values are stored as.

    Shapes: `shift` and `scale` are numbers, or broadcast against the event: (C, 1, 1) of images, (D,) of columns.
    """

    shift: Affine = 0.0
    scale: Affine = 1.0

    def apply(self, values: Tensor) -> Tensor:
        """Values as stored, (*batch, *event), in the model's units; of float32 that stay as they are, no copy."""
        if _is(self.shift, 0):
            x = values.float()
            if _is(self.scale, 1):
                return x
            scale = _like(self.scale, x)
            return x / scale if x is values else x.div_(scale)
        # In float64 where the values are: a date in seconds has more digits than float32 holds.
        x = values if values.dtype == torch.float64 else values.float()
        return ((x - _like(self.shift, x)) / _like(self.scale, x)).float()

    def undo(self, x: Tensor) -> Tensor:
        """The model's numbers, (*batch, *event), in the units of the stored values."""
        return x * _like(self.scale, x) + _like(self.shift, x)

    @property
    def is_identity(self) -> bool:
        """Whether the values are the model's numbers as they are."""
        return _is(self.shift, 0) and _is(self.scale, 1)

    def to_json(self) -> dict[str, Any]:
        """As numbers and lists of them."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in self._asdict().items()}

    @classmethod
    def of(cls, shift: Any, scale: Any) -> "Scaling":
        """From numbers or nested lists of them, such as `to_json` makes.

        Raises:
            ValueError: a number is not finite, or a scale is not positive.
        """
        tensors = [torch.as_tensor(value, dtype=torch.float64) for value in (shift, scale)]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise ValueError("a scaling should be of finite numbers")
        if not bool((tensors[1] > 0).all()):
            raise ValueError("a scaling should divide by numbers above 0")
        return cls(*(float(tensor) if tensor.ndim == 0 else tensor for tensor in tensors))


PIXELS = Scaling(scale=255.0)  # 0 to 255 -> [0, 1]
AS_IT_IS = Scaling()


def _is(value: Affine, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def _like(value: Affine, x: Tensor) -> Affine:
    return value.to(x) if isinstance(value, Tensor) else value
