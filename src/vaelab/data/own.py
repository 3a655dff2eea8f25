"""What all user data share: a root, a scale, and splits by share, by class, by group or by file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from vaelab.data.form import Form
from vaelab.data.images import Count, ImageData, Images, Share, Splits, counted
from vaelab.data.scaling import AS_IT_IS, PIXELS, Scaling
from vaelab.data.survey import Survey, standardised, surveyed
from vaelab.errors import DataError, did_you_mean
from vaelab.seeding import derive_seed


def _on_this_machine(root: str) -> str:
    if "://" in root:
        raise PydanticCustomError("root", "be a folder on this machine, not an address")
    return root


def _rising(scale: list[float]) -> list[float]:
    if scale[0] >= scale[1]:
        raise PydanticCustomError("scale", "have its lower value first")
    return scale


SPLIT_FOLDERS = {"train": ["train"], "validation": ["validation", "val", "valid"], "test": ["test"]}
Root = Annotated[str, Field(min_length=1), AfterValidator(_on_this_machine)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[list[Finite], Field(min_length=2, max_length=2), AfterValidator(_rising)]
Scale = Literal["auto", "none", "standardise"] | Range
SplitFiles = Mapping[Literal["train", "validation", "test"], str]
Weights = Literal["balance"] | Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


@dataclass(kw_only=True, eq=False)
class OwnData(ImageData, ABC):
    """Base of datasets that users bring.

    Args:
        root: the folder they are in.
        scale: `[low, high]` takes these to 0 and 1; `standardise` gives the training rows mean 0 and standard deviation
            1, each channel or column by itself; `none` leaves values as they are; `auto` is [0, 255] of uint8, and
            `none` of floats.
        validation: rows, or a share of them, such as 0.1; of training rows, where the data come in splits without it.
        test: the same.
        split_files: files of row numbers, for each split; rows that no file names are not used, but where there is
            none for `train`, it gets them.
        stratify: draw the splits with every label as often in each.
        groups: a file with a group for each row, such as a patient; no group is in two splits.
        only: labels by name; the rows of others are left out.
        weights: how often the training rows of a label are seen in an epoch, by its name: 2 is twice, 0.5 half of them,
            drawn with `seed`; `balance` repeats those of rarer labels until all are as many.
    """

    root: Root = "data"
    scale: Scale = "auto"
    validation: Count | Share = 0.1
    test: Count | Share = 0.1
    split_files: SplitFiles | None = None
    stratify: bool = False
    groups: str | None = None
    only: list[str] | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        """Refuse two ways to draw splits at once."""
        chosen = [name for name in ("split_files", "stratify", "groups") if getattr(self, name)]
        if len(chosen) > 1:
            raise ValueError(f"data.{chosen[0]} and data.{chosen[1]} both say how splits are made: leave one out")

    @cached_property
    def notes(self) -> list[str]:
        """What was taken for what."""
        return []

    @property
    def folder(self) -> Path:
        """`root`, with ~ as the home it stands for."""
        return Path(self.root).expanduser()

    @abstractmethod
    def open(self) -> Images:
        """All rows, as they are stored."""

    def given_splits(self, rows: Images) -> Splits | None:
        """The splits that the data come with; None where they are to be drawn."""
        return None

    @cached_property
    def form(self) -> Form:
        """`outline`, with the labels of `only`."""
        form = self.outline()
        if self.only is None:
            return form
        for name in self.only:
            if name not in form.names:
                raise DataError(f"data.only={self.only}: no row has the label {name}{did_you_mean(name, form.names)}")
        return replace(form, names=tuple(self.only))

    def read(self) -> Splits:
        """The rows in splits, under a scaling that is found once and then kept with the run."""
        self._look_ahead()
        rows = self._relabelled(self.open())
        splits = self.given_splits(rows)
        if splits is None:
            splits = self._split(rows)
        elif not len(splits.validation):
            splits = Splits(*self.set_aside(splits.train), splits.test)
        splits = Splits(*map(_kept, splits))
        if self.weights is not None:
            splits = splits._replace(train=self._weighted(splits.train, self.weights))
        self.complete(rows, splits)
        if not self.recalled:
            self.form = self._scaled(rows, splits)
        assert self.form.scaling is not None
        return Splits(*(images.scaled(self.form.scaling) for images in splits))

    def _look_ahead(self) -> None:
        """Refuse what the names of labels and the files of splits tell before rows are read, which may take long.

        Raises:
            DataError: a label that is named is not there, or there are none; a file of splits cannot be used.
        """
        if self.stratify and not self.classes:
            raise DataError(f"data.stratify=true needs labels, and {self.where} has none")
        if self.weights is not None and not self.classes:
            raise DataError(f"data.weights needs labels, and {self.where} has none")
        for name in self.weights if isinstance(self.weights, Mapping) else ():
            if name not in self.names:
                raise DataError(f"data.weights: no row has the label {name}{did_you_mean(name, self.names)}")
        _ = self._groups, self._split_numbers

    @cached_property
    def _groups(self) -> np.ndarray | None:
        return None if self.groups is None else _numbers(self.folder / self.groups)

    @cached_property
    def _split_numbers(self) -> dict[str, np.ndarray]:
        return self.listed(self.split_files or {})

    def listed(self, files: SplitFiles) -> dict[str, np.ndarray]:
        """The row numbers of each split that has a file.

        Raises:
            DataError: a file is missing or not a list of row numbers, or a row occurs twice.
        """
        found: dict[str, np.ndarray] = {}
        for name, path in files.items():
            own = _numbers(self.folder / path)
            if own.dtype.kind not in "iu" or own.ndim != 1:
                raise DataError(f"{self.folder / path} should be a list of row numbers")
            if len(np.unique(own)) < len(own):
                raise DataError(f"{self.folder / path} has a row twice")
            for other, others in found.items():
                if len(shared := np.intersect1d(own, others)):
                    raise DataError(
                        f"{path} and {files[other]} share rows, such as row {shared[0]}: a row is in one split"  # type: ignore[index]
                    )
            found[name] = own
        return found

    def _relabelled(self, rows: Images) -> Images:
        """The rows with numbers of the labels of `only`, -1 for others."""
        if self.only is None:
            return rows
        names = self.outline().names
        new = torch.full((len(names),), -1)
        new[[names.index(name) for name in self.form.names]] = torch.arange(len(self.only))
        return Images(rows.store, new[rows.store_labels], rows.index)

    def _weighted(self, train: Images, weights: Weights) -> Images:
        """The training rows, each label's as often as it has weight; in their order."""
        counts = torch.bincount(train.labels, minlength=self.classes)
        wanted = counts.max().expand_as(counts) * (counts > 0)
        if weights != "balance":
            wanted = counts.clone()
            for name, weight in weights.items():
                wanted[self.names.index(name)] = round(weight * int(counts[self.names.index(name)]))
        generator, numbers = self._generator(), []
        for label, (count, number) in enumerate(zip(counts.tolist(), wanted.tolist(), strict=True)):
            own = (train.labels == label).nonzero().flatten()
            drawn = own[torch.randperm(count, generator=generator)]
            numbers += [own.repeat(number // max(1, count)), drawn[: number % max(1, count)]]
        return train.take(torch.cat(numbers).sort().values)

    def complete(self, rows: Images, splits: Splits) -> None:
        """Fill in what is missing in the rows, once it is known which ones are trained on."""

    def _scaled(self, rows: Images, splits: Splits) -> Form:
        """The form with the scaling that `scale` asks for, and what the values are under it."""
        dtype, form = rows.dtype, self.form
        if self.scale == "auto" and dtype == torch.uint8:
            if _largest(rows) <= 1:
                self.notes.append(
                    "the largest of the uint8 values is 1, and they are divided by 255: for masks of 0 and 1 say "
                    "data.scale=none"
                )
            return replace(form, scaling=PIXELS, span=(0.0, 1.0), values="levels")
        survey = surveyed(rows, self.where)
        if self.scale == "auto" and not dtype.is_floating_point and dtype != torch.bool:
            raise DataError(
                f"{self.where} holds whole numbers from {survey.low.min():g} to {survey.high.max():g}: say "
                f"data.scale=[{survey.low.min():g},{survey.high.max():g}] for pixels of that range, "
                "data.scale=standardise, or data.scale=none for counts"
            )
        scaling = self._scaling(splits.train, survey)
        low, high = survey.under(scaling)
        whole = scaling.is_identity and survey.whole and low >= 0
        if isinstance(self.scale, list) and (low < 0 or high > 1):
            self.notes.append(
                f"data.scale={self.scale}: values go from {survey.low.min():g} to {survey.high.max():g}, so from "
                f"{low:.3g} to {high:.3g} when scaled"
            )
        return replace(form, scaling=scaling, span=(low, high), values="counts" if whole else "real")

    def _scaling(self, train: Images, survey: Survey) -> Scaling:
        return self.fixed_scaling or standardised(train, survey)

    @property
    def fixed_scaling(self) -> Scaling | None:
        """The scaling of values other than uint8, where it does not depend on them."""
        match self.scale:
            case "standardise":
                return None
            case [low, high]:
                return Scaling(low, high - low)
        return AS_IT_IS

    @property
    def where(self) -> str:
        """What errors call the data."""
        return str(self.folder)

    def _split(self, rows: Images) -> Splits:
        """The splits as the options ask for them.

        Raises:
            DataError: they cannot be had.
        """
        if self.split_files is not None:
            return self.by_files(rows, self._split_numbers, self.split_files)
        if self._groups is not None:
            return self._by_groups(rows, self._groups)
        if not self.stratify:
            return self.drawn(_kept(rows), validation=self.validation, test=self.test)
        return self._stratified(_kept(rows))

    def by_files(self, rows: Images, listed: Mapping[str, np.ndarray], files: SplitFiles) -> Splits:
        """The splits of the numbers that are `listed` in files; those in none are trained on, where no file says so.

        Raises:
            DataError: there is no such row.
        """
        numbers, count = dict(listed), len(rows)
        used = np.zeros(count, bool)
        for own, path in zip(numbers.values(), files.values(), strict=True):
            if len(own) and not 0 <= own.min() <= own.max() < count:
                raise DataError(f"{self.folder / path} has row {own.max()}: rows are numbered 0 to {count - 1}")
            used[own] = True
        numbers.setdefault("train", np.flatnonzero(~used))
        empty = np.empty(0, np.int64)
        return Splits(
            *(rows.take(torch.from_numpy(numbers.get(name, empty).astype(np.int64))) for name in Splits._fields)
        )

    def _by_groups(self, rows: Images, groups: np.ndarray) -> Splits:
        if groups.shape != (len(rows),):
            raise DataError(
                f"{self.folder / str(self.groups)} has {len(groups)} groups: there are {len(rows)} rows, with one each"
            )
        _, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        order = torch.randperm(len(sizes), generator=self._generator()).numpy()
        ends = np.cumsum(sizes[order])
        split_of, start = np.zeros(len(sizes), np.int8), 0
        for split, wanted in ((2, self.test), (1, self.validation)):
            size = counted(wanted, len(rows))
            before = ends[start - 1] if start else 0
            stop = start + int(np.searchsorted(ends[start:] - before, size, side="left")) + 1 if size else start
            split_of[order[start:stop]], start = split, stop
        if start >= len(sizes):
            raise DataError(
                f"{len(sizes)} groups are too few for data.validation={self.validation} and "
                f"data.test={self.test}: none is left to train on"
            )
        return self._of(rows, split_of[of_row])

    def _stratified(self, rows: Images) -> Splits:
        labels, generator = rows.labels.numpy(), self._generator()
        split_of = np.zeros(len(rows), np.int8)
        shares = {2: counted(self.test, len(rows)) / len(rows), 1: counted(self.validation, len(rows)) / len(rows)}
        for label in range(self.classes):
            members = np.flatnonzero(labels == label)
            members, start = members[torch.randperm(len(members), generator=generator).numpy()], 0
            for split, share in shares.items():
                stop = start + max(1, round(share * len(members))) if share else start
                split_of[members[start:stop]], start = split, stop
            if start >= len(members):
                raise DataError(
                    f"data.stratify=true: the label {self.names[label]} has {len(members)} rows, too few for one in "
                    "every split"
                )
        return self._of(rows, split_of)

    def _of(self, rows: Images, split_of: np.ndarray) -> Splits:
        return Splits(*(rows.take(torch.from_numpy(np.flatnonzero(split_of == split))) for split in range(3)))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, "splits"))


def encoded(labels: np.ndarray, where: str, most: int) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N,), whole numbers or strings, as numbers from 0 on, and what each stands for.

    Raises:
        DataError: they are something else, or too many.
    """
    if labels.dtype.kind not in "iubUS" or labels.ndim != 1:
        raise DataError(
            f"{where} holds {labels.dtype} of shape {labels.shape}: labels are whole numbers or names, one a row"
        )
    values, numbers = np.unique(labels, return_inverse=True)
    if len(values) > most:
        raise DataError(f"{where} has {len(values):,} different labels: there may be {most:,}; leave it out")
    names = tuple(value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist())
    return torch.from_numpy(numbers.astype(np.int64)), names


def _kept(rows: Images) -> Images:
    """Those that have a label of `only`."""
    labels = rows.labels
    return rows if not len(labels) or labels.min() >= 0 else rows.take((labels >= 0).nonzero().flatten())


def _largest(rows: Images) -> int:
    """The largest value, looked for only as long as it may be 1 at most."""
    largest = 0
    for chunk in rows.chunks():
        largest = max(largest, int(chunk.max()))
        if largest > 1:
            break
    return largest


def _numbers(path: Path) -> np.ndarray:
    """The array of an .npy, or the lines of a text file, as whole numbers where all are."""
    try:
        if path.suffix.lower() == ".npy":
            array: np.ndarray = np.load(path, allow_pickle=False)
            return array
        lines = np.array(path.read_text(encoding="utf-8").split("\n"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    lines = lines[:-1] if len(lines) and lines[-1] == "" else lines
    try:
        return lines.astype(np.int64)
    except ValueError:
        return lines
