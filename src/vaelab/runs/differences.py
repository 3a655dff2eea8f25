"""Compare the results of two runs bit by bit."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from vaelab.errors import RunError
from vaelab.runs.folder import RunFolder
from vaelab.training.averaging import RAW
from vaelab.training.checkpoints import BEST, LAST
from vaelab.training.monitoring import IMAGES_PER_SECOND
from vaelab.training.reading import read

STATE = ("state_dict", RAW, "optimizer_states", "lr_schedulers", "callbacks", "loops", "epoch", "global_step", "window")


@dataclass(frozen=True)
class Difference:
    """A place where two runs differ, and by how much if it holds numbers.

    Args:
        place: its path: ("metrics", "test/elbo"), ("last", "state_dict", the name of a weight), ...
        what: both values, or a description.
        absolute: |one - other|; for tensors the largest.
        relative: `absolute` / |one|; for tensors / the largest |one|.
    """

    place: tuple[str, ...]
    what: str
    absolute: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        """Format the place and what differs."""
        return f"/{'/'.join(self.place)}: {self.what}"


def differences(one: str | Path, other: str | Path) -> list[Difference]:
    """List the places where two finished runs differ; empty for a run and its exact repetition.

    Compared are last.ckpt (weights, optimizer, learning rate, progress), the weights of best.ckpt, metrics.json and
    every scalar, picture and histogram in TensorBoard's event files with its step. Times and file names are not; of
    texts, and of images per second, only the steps at which they were logged.

    Raises:
        RunError: one of them is not a run folder, or has a damaged checkpoint.
    """
    return list(_differing((), _results(RunFolder.open(one)), _results(RunFolder.open(other))))


def summary(found: Sequence[Difference]) -> list[Difference]:
    """Summarize: each figure of metrics.json by itself, of tensors and of a tag's scalars the largest difference."""
    lines = []
    for place, group in groupby(found, key=lambda difference: difference.place[:2]):
        several = list(group)
        largest = max(several, key=lambda difference: difference.absolute or 0.0)
        what = f"in {len(several)} places, the largest at {'/'.join(largest.place[2:])}: {largest.what}"
        exact = len(several) == 1 and several[0].place == place
        lines.append(Difference(place, largest.what if exact else what, largest.absolute, largest.relative))
    return lines


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the scalars of a folder's event files, tag -> (step, value) in the order of the files."""
    if not folder.is_dir():
        return {}
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def _results(folder: RunFolder) -> dict[str, Any]:
    checkpoints = {}
    for name in (LAST, BEST):
        path = folder.checkpoints / name
        try:
            checkpoints[name] = read(path) if path.is_file() else {}
        except Exception as error:  # a damaged file may fail in any way
            raise RunError(f"{path} is damaged ({error}), so the run cannot be compared") from error
    tensorboard = folder.path / "tensorboard"
    return {
        "metrics": folder.metrics,
        "last": _of_any_folder({key: value for key, value in checkpoints[LAST].items() if key in STATE}, folder.path),
        "best": {key: value for key, value in checkpoints[BEST].items() if key == "state_dict"},
        "scalars": {
            tag: {f"{number} (step {step})": value for number, (step, value) in enumerate(points)}
            for tag, points in _comparable(scalars(tensorboard)).items()
        },
        "pictures": _pictures(tensorboard),
    }


def _of_any_folder(content: Any, folder: Path) -> Any:
    """Make paths in checkpoints, such as a ModelCheckpoint keeps, relative to the run folder."""
    if isinstance(content, str):
        return content.replace(os.path.realpath(folder), "")
    if isinstance(content, Mapping):
        return {_of_any_folder(key, folder): _of_any_folder(value, folder) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_of_any_folder(value, folder) for value in content]
    return content


def _comparable(logged: Mapping[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Drop values that were measured by a clock."""
    steps = [(step, 0.0) for step, _ in logged.get(IMAGES_PER_SECOND, [])]
    return {**logged, **({IMAGES_PER_SECOND: steps} if steps else {})}


def _pictures(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Read pictures, histograms and texts of a folder's event files, tag -> (step, what is compared)."""
    if not folder.is_dir():
        return {}
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    images = {
        tag: [(event.step, _digest(event.encoded_image_string)) for event in accumulator.Images(tag)]
        for tag in tags["images"]
    }
    histograms = {
        tag: [(event.step, astuple(event.histogram_value)) for event in accumulator.Histograms(tag)]
        for tag in tags["histograms"]
    }
    texts = {tag: [(event.step, None) for event in accumulator.Tensors(tag)] for tag in tags["tensors"]}
    return images | histograms | texts


def _digest(picture: bytes) -> str:
    return blake2b(picture, digest_size=8).hexdigest()


def _differing(place: tuple[str, ...], one: Any, other: Any) -> Iterator[Difference]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}, key=str):
            if key not in one or key not in other:
                yield Difference((*place, str(key)), f"in the {'first' if key in one else 'second'} only")
            else:
                yield from _differing((*place, str(key)), one[key], other[key])
    elif isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            yield Difference(place, f"{len(one)} and {len(other)} items")
        for index, pair in enumerate(zip(one, other, strict=False)):
            yield from _differing((*place, str(index)), *pair)
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        yield from _different_tensors(place, one, other)
    elif isinstance(one, int | float) and isinstance(other, int | float):
        if one != other and not (math.isnan(one) and math.isnan(other)):
            absolute = abs(one - other)
            yield Difference(place, f"{one} and {other}", absolute, absolute / abs(one) if one else math.inf)
    elif one != other:
        yield Difference(place, f"{one} and {other}")


def _different_tensors(place: tuple[str, ...], one: Tensor, other: Tensor) -> Iterator[Difference]:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        kinds = [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (one, other)]
        yield Difference(place, " and ".join(kinds))
    elif not torch.equal(one, other):
        apart = (one.double() - other.double()).abs()
        absolute, scale = apart.max().item(), one.double().abs().max().item()
        what = f"{int((apart != 0).sum())} of {one.numel()} numbers"
        yield Difference(place, what, absolute, absolute / scale if scale else math.inf)
