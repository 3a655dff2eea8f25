"""Where rows come from: memory, mapped files, a formula.

A store gives rows by number, as they are stored; what a model sees of them is made a batch at a time
(`vaelab.data.batches`). A row is an event of any shape: an image (C, H, W), a signal (C, T), a vector (D,).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor


class Store(ABC):
    """Rows by number."""

    shape: tuple[int, ...]  # of a row
    dtype = torch.uint8  # of its values
    in_memory = False  # whether a part of it can be moved to another device as a whole
    in_files = False  # whether its rows have to be read, so that a thread had better read ahead

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @property
    def device(self) -> torch.device:
        """Where rows are made, and where their numbers have to be."""
        return torch.device("cpu")

    @abstractmethod
    def rows(self, numbers: Tensor) -> Tensor:
        """The rows with those numbers (B,), as stored: (B, *shape), a tensor of their own."""

    def to(self, device: torch.device) -> "Store":
        """The same store with its rows made on another device, where it can be."""
        return self

    def factors(self, numbers: Tensor) -> Tensor:
        """The factors of variation that the rows with those numbers were made from, (B, F), int64; F = 0 unknown."""
        return numbers.new_zeros(len(numbers), 0)

    def description(self) -> str | None:
        """What the rows are a function of, where it is shorter than they are; else None."""
        return None


class Memory(Store):
    """Rows in a tensor (N, *shape)."""

    in_memory = True

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.shape = tuple(values.shape[1:])
        self.dtype = values.dtype

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.values)

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.values.device

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows by number: a tenth of the time of values[numbers]."""
        return self.values.index_select(0, numbers)


class Mapped(Store):
    """Rows in files that are mapped into memory, which may be larger than it: one after the other.

    Args:
        parts: what each file holds, (N_i, ...), as tensors over the mapped memory.
        shape: of a row.
        arrange: rows as they are in the files -> (B, *shape); by default they are so already.
        known: the factors of all rows, (N, F), int64.
    """

    in_files = True

    def __init__(
        self,
        parts: Sequence[Tensor],
        shape: Sequence[int],
        arrange: Callable[[Tensor], Tensor] | None = None,
        known: Tensor | None = None,
    ) -> None:
        self.parts = list(parts)
        self.shape = tuple(shape)
        self.dtype = self.parts[0].dtype
        self.arrange = arrange
        self.known = known
        self._ends = torch.tensor(list(accumulate(map(len, self.parts))))

    def __len__(self) -> int:
        """The number of rows in all files."""
        return int(self._ends[-1])

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows by number; of each file those that it has."""
        if len(self.parts) == 1:
            rows = self.parts[0].index_select(0, numbers)
        else:
            rows = self.parts[0].new_empty(len(numbers), *self.parts[0].shape[1:])
            of_part = torch.bucketize(numbers, self._ends, right=True)
            for part in of_part.unique().tolist():
                places = (of_part == part).nonzero().flatten()
                start = int(self._ends[part]) - len(self.parts[part])
                rows[places] = self.parts[part].index_select(0, numbers[places] - start)
        return rows if self.arrange is None else self.arrange(rows)

    def factors(self, numbers: Tensor) -> Tensor:
        """The factors of rows by number."""
        return super().factors(numbers) if self.known is None else self.known[numbers]
