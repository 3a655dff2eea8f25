"""Terms of the loss between two times that they are logged."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pytorch_lightning.strategies import ParallelStrategy, Strategy
from torch import Tensor

from vaelab.data import in_turn
from vaelab.errors import DivergenceError
from vaelab.losses import Terms

TermsOfBatch = tuple[dict[str, Tensor], int, int]  # means, images, step of the optimizer


class TermMeans:
    """Means over images of the terms of batches, kept where the terms are until someone asks.

    >>> means = TermMeans()
    >>> means.add({"loss": torch.tensor(2.0)}, 1)
    >>> means.add({"loss": torch.tensor(4.0)}, 3)
    >>> means.means("train/")
    {'train/loss': 3.5}
    """

    def __init__(self, batches: Iterable[TermsOfBatch] = ()) -> None:
        self._batches = list(batches)

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._batches)

    def add(self, terms: Terms, images: int, step: int = 0) -> None:
        """Take in the mean terms of a batch of so many images at a step of the optimizer."""
        self._batches.append(({name: term.detach() for name, term in terms.items()}, images, step))

    def means(self, prefix: str, processes: Strategy | None = None) -> dict[str, float]:
        """`prefix` + name -> mean over all images, of all processes; one transfer from the device."""
        names = list(self._batches[0][0])
        terms = torch.stack([torch.stack([batch[name] for name in names]) for batch, _, _ in self._batches])
        weights = torch.tensor([images for _, images, _ in self._batches], dtype=torch.float64)
        sums = torch.cat([weights @ terms.double().cpu(), weights.sum()[None]])
        if processes is not None:
            reduced = processes.reduce(sums.to(processes.root_device), reduce_op="sum")
            assert isinstance(reduced, Tensor)
            sums = reduced.cpu()
        return {prefix + name: mean for name, mean in zip(names, (sums[:-1] / sums[-1]).tolist(), strict=True)}

    def require_finite(self, prefix: str) -> None:
        """Raise DivergenceError with the step and the name of the first term that is NaN or infinite."""
        for terms, _, step in self._batches:
            wrong = {name: term.item() for name, term in terms.items() if not term.isfinite()}
            wrong = {name: value for name, value in wrong.items() if name != "loss"} or wrong  # the cause, not the sum
            if wrong:
                named = ", ".join(f"{prefix}{name} is {value}" for name, value in wrong.items())
                raise DivergenceError(f"{named} at step {step}")

    def gathered(self, processes: Strategy) -> list["TermMeans"]:
        """Those of every process, by rank."""
        if not isinstance(processes, ParallelStrategy):
            return [self]
        return list(map(TermMeans, everyones(self.to(torch.device("cpu")).state(), processes)))

    def to(self, device: torch.device) -> "TermMeans":
        """The same on another device."""
        return TermMeans(
            ({name: term.to(device) for name, term in terms.items()}, images, step)
            for terms, images, step in self._batches
        )

    def state(self) -> list[TermsOfBatch]:
        """What a new one can be made from."""
        return self._batches

    @staticmethod
    def joined(parts: Sequence["TermMeans"]) -> "TermMeans":
        """Those of the batches of several processes, a batch of each in turn."""
        return parts[0] if len(parts) == 1 else TermMeans(in_turn([part._batches for part in parts]))


def everyones(content: Any, processes: Strategy) -> list[Any]:
    """What every process has, by rank; tensors in it are on the CPU."""
    if not isinstance(processes, ParallelStrategy):
        return [content]
    gathered: list[Any] = [None] * processes.world_size
    torch.distributed.all_gather_object(gathered, content)
    return gathered
