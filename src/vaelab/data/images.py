"""What every dataset has in common: splits of the rows of a store, and the options that make them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vaelab.data.augmentation import Augmentation
from vaelab.data.form import Form
from vaelab.data.scaling import PIXELS, Scaling
from vaelab.data.stores import Memory, Store
from vaelab.errors import DataError
from vaelab.seeding import derive_seed

Binarize = Literal["none", "fixed", "dynamic"]
BatchSize = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

NUMBERS_AT_ONCE = 2**22  # of rows that are looked at together: 16 MB of float32
MOST_ROWS_AT_ONCE = 1000


def rows_at_once(shape: tuple[int, ...]) -> int:
    """How many rows of this shape an evaluation takes together: 1,000 or as many as have 4 million numbers.

    It depends on nothing but the shape, since the noise of an evaluation is drawn batch by batch.

    >>> rows_at_once((1, 28, 28)), rows_at_once((3, 256, 256))
    (1000, 21)
    """
    return max(1, min(MOST_ROWS_AT_ONCE, NUMBERS_AT_ONCE // torch.Size(shape).numel()))


def spread(count: int, size: int) -> list[int]:
    """So many numbers below `size`, or all, at equal distances.

    >>> spread(4, 10), spread(4, 3)
    ([0, 2, 5, 7], [0, 1, 2])
    """
    count = min(count, size)
    return [number * size // count for number in range(count)]


class Images:
    """Rows of a store and their labels: all of them, or those numbered in `index`, without a copy of any.

    A row is an event of any shape; most are images.

    Args:
        store: gives rows by number; a tensor (N, *event) is one in memory.
        labels: of the store, (N,), int64.
        index: rows of the store, in order; None for all.
        scaling: from stored values to the model's.
    """

    def __init__(
        self, store: Store | Tensor, labels: Tensor, index: Tensor | None = None, *, scaling: Scaling = PIXELS
    ) -> None:
        self.store = Memory(store) if isinstance(store, Tensor) else store
        self.store_labels = labels
        self.index = index
        self.scaling = scaling

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.store if self.index is None else self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self.store.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the values as they are stored."""
        return self.store.dtype

    @cached_property
    def pixels(self) -> Tensor:
        """The values of all of them as they are stored, (N, *event): a copy, where they are not a whole tensor."""
        if self.index is None and isinstance(self.store, Memory):
            return self.store.values
        return self.store.rows(self.rows(self._all()))

    @property
    def x(self) -> Tensor:
        """All of them as a model sees them, (N, *event), float32: a copy in memory."""
        return self.scaling.apply(self.store.rows(self.rows(self._all())))

    @cached_property
    def labels(self) -> Tensor:
        """The labels of all of them, (N,)."""
        return self.store_labels if self.index is None else self.store_labels[self.index]

    def factors(self, numbers: Tensor) -> Tensor:
        """The factors of variation of the rows with those numbers (B,): (B, F), int64, as `Form.factors` names them.

        F = 0 where they are not known.
        """
        return self.store.factors(self.rows(numbers.to(self.store.device)))

    def rows(self, numbers: Tensor) -> Tensor:
        """Where in the store the rows with those numbers are."""
        return numbers if self.index is None else self.index.to(numbers.device)[numbers]

    def take(self, numbers: Tensor) -> "Images":
        """The rows with those numbers, in their order; the same store."""
        return Images(self.store, self.store_labels, self.rows(numbers), scaling=self.scaling)

    def first(self, number: int) -> "Images":
        """The first so many of them."""
        return self.take(torch.arange(min(number, len(self)), device=self.store.device))

    def spread(self, number: int) -> "Images":
        """So many of them at equal distances, since rows may be sorted by class; all where there are fewer."""
        return self.take(torch.tensor(spread(number, len(self)), device=self.store.device, dtype=torch.int64))

    def scaled(self, scaling: Scaling) -> "Images":
        """The same rows under another scaling."""
        return Images(self.store, self.store_labels, self.index, scaling=scaling)

    def to(self, device: torch.device) -> "Images":
        """These rows on another device: copied there, or drawn there; those of a file stay, and their batches move."""
        if self.store.device == device:
            return self
        if self.store.in_memory:
            return Images(self.pixels.to(device), self.labels.to(device), scaling=self.scaling)
        moved = self.store.to(device)
        if moved is self.store:
            return self
        index = None if self.index is None else self.index.to(device)
        return Images(moved, self.store_labels.to(device), index, scaling=self.scaling)

    def chunks(self, size: int | None = None) -> Iterator[Tensor]:
        """The values of all of them as they are stored, so many rows at a time, by default as fit 4 million numbers."""
        for numbers in torch.split(self._all(), size or max(1, NUMBERS_AT_ONCE // torch.Size(self.shape).numel())):
            yield self.store.rows(self.rows(numbers))

    def binarized(self, seed: int) -> "Images":
        """Each pixel 255 with a probability of its grey value, else 0: drawn once, from `seed`, into memory.

        Raises:
            DataError: there is not so much memory.
        """
        generator = torch.Generator().manual_seed(seed)
        try:
            drawn = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        except RuntimeError as error:
            raise DataError(
                f"{len(self)} images that are drawn black and white once do not fit the memory: data.binarize=dynamic, "
                "which draws no more than the test and validation images, and fewer of them (data.test)"
            ) from error
        for images, chunk in zip(torch.split(drawn, 4096), self.chunks(4096), strict=True):
            grey = self.scaling.apply(chunk)
            images.copy_(torch.bernoulli(grey, generator=generator).mul_(255))
        return Images(drawn, self.labels)

    def _all(self) -> Tensor:
        return torch.arange(len(self), device=self.store.device)


class Splits(NamedTuple):
    """Training, validation and test rows; only the first may not be empty."""

    train: Images
    validation: Images
    test: Images

    @property
    def shown(self) -> Images:
        """Those that pictures of a trained model are of: test rows, or where there are none, validation or training."""
        return next(images for images in (self.test, self.validation, self.train) if len(images))


@dataclass(kw_only=True, eq=False)
class ImageData(ABC):
    """A dataset and how it is used. Making one reads nothing; `splits` does, once.

    Args:
        batch_size: rows a step, over all devices together.
        validation: training rows to set aside for validation; 0 trains on all of them.
        binarize: `none` keeps grey values; `fixed` draws every image once, black or white; `dynamic` draws the
            training images anew each time they are used, and validation and test images once.
        augment: how training images are changed at random.
        seed: of the validation split and of what is drawn once. It is not the run's seed, so that runs with
            different seeds are measured on the same images.
    """

    recalled = False  # whether the form is what a run has kept
    fetch = True  # what is missing, where it can be; nothing is for a run folder, which may be somebody else's

    batch_size: BatchSize = 128
    validation: Count | Share = 0
    binarize: Binarize = "none"
    augment: Augmentation | None = None
    seed: Count = 0

    @property
    def notes(self) -> list[str]:
        """What is to be said of how the data were read."""
        return []

    @abstractmethod
    def outline(self) -> Form:
        """What can be said of the rows without reading them.

        Raises:
            DataError: the data are missing or unusable.
        """

    @abstractmethod
    def read(self) -> Splits:
        """Read the rows, before binarization.

        Raises:
            DataError: they are missing or unusable.
        """

    @cached_property
    def form(self) -> Form:
        """What a model has to know of the rows: what a run has kept, or `outline` until they have been read."""
        return self.outline()

    def recall(self, form: Form) -> None:
        """Take what a run has kept of its data, so that they need not be there."""
        self.form = form
        self.recalled = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row: (C, H, W) of an image."""
        return self.form.shape

    @property
    def names(self) -> tuple[str, ...]:
        """Of the labels 0, 1, ...; none where there are no labels."""
        return self.form.names

    @property
    def classes(self) -> int:
        """How many different labels there are; 0 without."""
        return len(self.form.names)

    def names_of(self, labels: Tensor) -> list[str] | None:
        """The name of each of some labels (B,); None where there are no labels."""
        return [self.names[label] for label in labels.tolist()] if self.names else None

    @property
    def factors(self) -> Mapping[str, int]:
        """The factors of variation and how many values each has; empty where they are not known."""
        return self.form.factors

    @cached_property
    def splits(self) -> Splits:
        """The rows that training, validation and test see.

        Raises:
            DataError: they are missing or unusable.
        """
        train, validation, test = self.read()
        name = type(self).__name__
        if train.shape != self.form.shape:
            raise DataError(f"{name} has rows of shape {train.shape}, and this run was trained on {self.form.shape}")
        if self.augment is not None and not self.form.is_image:
            raise DataError(f"data.augment changes images, and {name} has rows of shape {self.form.shape}")
        if not len(train):
            raise DataError(f"{name} has no images to train on")
        if self.batch_size > len(train):
            raise DataError(
                f"data.batch_size={self.batch_size} is more than the {len(train)} images that {name} has to train on"
            )
        if self.binarize == "fixed":
            train = train.binarized(derive_seed(self.seed, "binarize train"))
        if self.binarize != "none":
            validation = validation.binarized(derive_seed(self.seed, "binarize validation"))
            test = test.binarized(derive_seed(self.seed, "binarize test"))
        return Splits(train, validation, test)

    def set_aside(self, train: Images) -> tuple[Images, Images]:
        """`train`, less `validation` of its rows drawn with `seed`; and those.

        Raises:
            DataError: none would be left to train on.
        """
        size = counted(self.validation, len(train))
        if size >= len(train):
            raise DataError(
                f"data.validation={self.validation} leaves nothing to train on: there are {len(train)} images"
            )
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "validation"))
        order = torch.randperm(len(train), generator=generator)
        kept = order[size:].sort().values
        return train.take(kept), train.take(order[:size].sort().values)

    def drawn(self, rows: Images, *, validation: Count | Share, test: Count | Share) -> Splits:
        """`rows` in three splits that are drawn with `seed`.

        Raises:
            DataError: none would be left to train on.
        """
        count = len(rows)
        held_out = [counted(validation, count), counted(test, count)]
        if sum(held_out) >= count:
            raise DataError(
                f"data.validation={validation} and data.test={test} leave nothing to train on: there are {count} rows"
            )
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "splits"))
        order = torch.randperm(count, generator=generator)
        parts = torch.split(order, [count - sum(held_out), *held_out])
        return Splits(*(rows.take(numbers.sort().values) for numbers in parts))


def counted(size: Count | Share, rows: int) -> int:
    """How many rows a count or a share, such as 0.1, of them is; a share above 0 is one at least."""
    if isinstance(size, int):
        return size
    return max(1, round(size * rows)) if size else 0
