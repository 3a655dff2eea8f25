"""What two runs differ in, to the bit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor

from vaelab.experiment.folder import RunFolder
from vaelab.training.checkpoints import BEST, LAST, read

STATE = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "epoch", "global_step", "window")


def differences(one: str | Path, other: str | Path) -> list[str]:
    """The places where two finished runs are not equal; none for a run and its exact repetition.

    Compared are last.ckpt (weights, optimizer, learning rate, progress), the weights of best.ckpt, metrics.json and
    every scalar in TensorBoard's event files with its step. Times and file names are not.
    """
    return list(_differing("", _results(RunFolder.open(one)), _results(RunFolder.open(other))))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars in a folder's event files, tag -> (step, value) in the order of the files."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def _results(folder: RunFolder) -> dict[str, Any]:
    last = read(folder.checkpoints / LAST)
    best = folder.checkpoints / BEST
    return {
        "metrics": folder.read_json("metrics"),
        "last": {key: last[key] for key in STATE},
        "best": read(best)["state_dict"] if best.is_file() else None,
        "scalars": scalars(folder.path / "tensorboard"),
    }


def _differing(path: str, one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}, key=str):
            if key not in one or key not in other:
                yield f"{path}/{key}: in one of them only"
            else:
                yield from _differing(f"{path}/{key}", one[key], other[key])
    elif isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} items"
        for index, pair in enumerate(zip(one, other, strict=False)):
            yield from _differing(f"{path}/{index}", *pair)
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield f"{path}: tensors of different bits"
    elif one != other:
        yield f"{path}: {one} and {other}"
