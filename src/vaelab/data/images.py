"""What every dataset has in common: splits of uint8 images, and the options that make them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vaelab.errors import DataError
from vaelab.seeding import derive_seed

Binarize = Literal["none", "fixed", "dynamic"]
BatchSize = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
TestCount = Annotated[int, Field(gt=0)]


class Images:
    """Images and their labels: those of a store, or the ones numbered in `index`, without a copy of any.

    Args:
        pixels: the store, (N, C, H, W), uint8.
        labels: of the store, (N,), int64.
        index: rows of the store, in order; None for all.
        mapped: the store is a file, which may be larger than memory: it stays where it is.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, index: Tensor | None = None, *, mapped: bool = False) -> None:
        self.store = pixels
        self.store_labels = labels
        self.index = index
        self.mapped = mapped

    def __len__(self) -> int:
        """The number of images."""
        return len(self.store if self.index is None else self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return tuple(self.store.shape[1:])

    @cached_property
    def pixels(self) -> Tensor:
        """The pixels of all of them, (N, C, H, W): a copy, where they are not the whole store."""
        return self.store if self.index is None else self.store.index_select(0, self.index)

    @cached_property
    def labels(self) -> Tensor:
        """The labels of all of them, (N,)."""
        return self.store_labels if self.index is None else self.store_labels[self.index]

    def factors(self, numbers: Tensor) -> Tensor:
        """The factors of variation of the images with those numbers (B,): (B, F), int64; F = 0 where not known."""
        return numbers.new_zeros(len(numbers), 0)

    def rows(self, numbers: Tensor) -> Tensor:
        """Where in the store the images with those numbers are."""
        return numbers if self.index is None else self.index.to(numbers.device)[numbers]

    def take(self, numbers: Tensor) -> "Images":
        """The images with those numbers, in their order; the same store."""
        return Images(self.store, self.store_labels, self.rows(numbers), mapped=self.mapped)

    def first(self, number: int) -> "Images":
        """The first so many of them."""
        return self.take(torch.arange(min(number, len(self)), device=self.store.device))

    def to(self, device: torch.device) -> "Images":
        """These images on another device; those of a file stay there, and their batches move."""
        if self.mapped or self.store.device == device:
            return self
        return Images(self.pixels.to(device), self.labels.to(device))

    def chunks(self, size: int = 4096) -> Iterator[Tensor]:
        """The pixels of all of them, so many images at a time."""
        for numbers in torch.split(torch.arange(len(self)), size):
            yield self.store.index_select(0, self.rows(numbers).to(self.store.device))

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
            images.copy_(torch.bernoulli(chunk.float().div_(255), generator=generator).mul_(255))
        return Images(drawn, self.labels)


class Splits(NamedTuple):
    """Training, validation and test images; only the second may be empty."""

    train: Images
    validation: Images
    test: Images


@dataclass(kw_only=True, eq=False)
class ImageData(ABC):
    """A dataset of images and how it is used. Making one reads nothing; `splits` does, once.

    Args:
        batch_size: images a step, over all devices together.
        validation: training images to set aside for validation; 0 trains on all of them.
        binarize: `none` keeps grey values; `fixed` draws every image once, black or white; `dynamic` draws the
            training images anew each time they are used, and validation and test images once.
        seed: of the validation split and of what is drawn once. It is not the run's seed, so that runs with
            different seeds are measured on the same images.
    """

    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int] = 0  # labels go from 0 to classes - 1; with 0 there are none
    fetch = True  # what is missing, where it can be; nothing is for a run folder, which may be somebody else's

    batch_size: BatchSize = 128
    validation: Count = 0
    binarize: Binarize = "none"
    seed: Count = 0

    @property
    def factors(self) -> Mapping[str, int]:
        """The factors of variation and how many values each has; empty where they are not known."""
        return {}

    @abstractmethod
    def read(self) -> Splits:
        """Read the images, before binarization.

        Raises:
            DataError: they are missing or unusable.
        """

    @cached_property
    def splits(self) -> Splits:
        """The images that training, validation and test see.

        Raises:
            DataError: they are missing or unusable.
        """
        train, validation, test = self.read()
        name = type(self).__name__
        for split, images in (("train on", train), ("test on", test)):
            if not len(images):
                raise DataError(f"{name} has no images to {split}")
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
        """`train`, less `validation` of its images drawn with `seed`; and those.

        Raises:
            DataError: none would be left to train on.
        """
        if self.validation >= len(train):
            raise DataError(
                f"data.validation={self.validation} leaves nothing to train on: there are {len(train)} images"
            )
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "validation"))
        order = torch.randperm(len(train), generator=generator)
        kept = order[self.validation :].sort().values
        return train.take(kept), train.take(order[: self.validation].sort().values)
