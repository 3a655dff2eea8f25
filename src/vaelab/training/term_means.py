"""Terms of the loss between two times that they are logged: their means, and what several processes have."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.strategies import ParallelStrategy, Strategy
from torch import Tensor

from vaelab.errors import DivergenceError

TermsOfBatch = tuple[dict[str, Tensor], int, int]
"""Mean terms of a batch, kept where they are until someone asks; its images; the optimizer's step."""


def means(batches: Sequence[TermsOfBatch], prefix: str, processes: Strategy | None = None) -> dict[str, float]:
    """`prefix` + name -> mean over all images, of all processes; one transfer from the device.

    >>> means([({"loss": torch.tensor(2.0)}, 1, 0), ({"loss": torch.tensor(4.0)}, 3, 1)], "train/")
    {'train/loss': 3.5}
    """
    names = list(batches[0][0])
    terms = torch.stack([torch.stack([batch[name] for name in names]) for batch, _, _ in batches])
    weights = torch.tensor([images for _, images, _ in batches], dtype=torch.float64)
    sums = torch.cat([weights @ terms.double().cpu(), weights.sum()[None]])
    if processes is not None:
        reduced = processes.reduce(sums.to(processes.root_device), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        sums = reduced.cpu()
    return {prefix + name: mean for name, mean in zip(names, (sums[:-1] / sums[-1]).tolist(), strict=True)}


def require_finite(batches: Sequence[TermsOfBatch], prefix: str) -> None:
    """Raise DivergenceError with the step and the name of the first term that is NaN or infinite."""
    for terms, _, step in batches:
        wrong = {name: term.item() for name, term in terms.items() if not term.isfinite()}
        wrong = {name: value for name, value in wrong.items() if name != "loss"} or wrong  # the cause, not the sum
        if wrong:
            named = ", ".join(f"{prefix}{name} is {value}" for name, value in wrong.items())
            raise DivergenceError(f"{named} at step {step}")


def on(device: torch.device, batches: Sequence[TermsOfBatch]) -> list[TermsOfBatch]:
    """The same on another device."""
    return [({name: term.to(device) for name, term in terms.items()}, images, at) for terms, images, at in batches]


def everyones(content: Any, processes: Strategy) -> list[Any]:
    """What every process has, by rank; tensors in it have to be on the CPU where there are several."""
    if not isinstance(processes, ParallelStrategy):
        return [content]
    gathered: list[Any] = [None] * processes.world_size
    torch.distributed.all_gather_object(gathered, content)
    return gathered
