"""Images of one's own, from a NumPy array that may be larger than memory."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from vaelab.data.form import Form
from vaelab.data.images import Count, ImageData, Images, Splits
from vaelab.data.stores import Mapped
from vaelab.errors import DataError
from vaelab.seeding import derive_seed

MOST_CLASSES = 10**6


@dataclass(kw_only=True, eq=False)
class ArrayImages(ImageData):
    """The images of `root`/images.npy, (N, H, W) or (N, C, H, W), uint8, and the labels of `root`/labels.npy, (N,).

    The array is mapped into memory, not read: a batch reads its images and no others, and the splits are lists of
    numbers. What fits into memory stays in the system's cache of the file. Without labels.npy, all labels are 0.
    `test` and `validation` images are drawn with `seed`; the rest is trained on. `binarize=fixed` draws all images
    once, into memory, and so do both other splits where it is `dynamic`.
    """

    validation: Count = 0
    test: Count = 1000
    root: str = "data"

    def outline(self) -> Form:
        """What the header of images.npy says, and which labels there are."""
        _, *sizes = self._pixels.shape
        shape = (1, *sizes) if len(sizes) == 2 else tuple(sizes)
        classes = int(self._labels.max()) + 1 if Path(self.root, "labels.npy").exists() else 0
        return Form(shape=shape, names=tuple(map(str, range(classes))))

    def read(self) -> Splits:
        """Training, validation and test images: one store, three lists of numbers."""
        count = len(self._pixels)
        if self.validation + self.test >= count:
            raise DataError(
                f"data.validation={self.validation} and data.test={self.test} leave nothing to train on: "
                f"{self._file} has {count} images"
            )
        images = Images(Mapped([_tensor(self._pixels).view(count, *self.shape)], self.shape), self._labels)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "splits"))
        order = torch.randperm(count, generator=generator)
        sizes = [count - self.validation - self.test, self.validation, self.test]
        return Splits(*(images.take(numbers.sort().values) for numbers in torch.split(order, sizes)))

    @property
    def _file(self) -> Path:
        return Path(self.root, "images.npy")

    @cached_property
    def _pixels(self) -> np.ndarray:
        pixels = _mapped(self._file, "(N, H, W) or (N, C, H, W)")
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or 0 in pixels.shape:
            raise DataError(
                f"{self._file} holds {pixels.dtype} of shape {pixels.shape}: images are uint8, from 0 to 255, "
                "of shape (N, H, W) or (N, C, H, W)"
            )
        if not pixels.flags.c_contiguous:
            raise DataError(f"{self._file} is in Fortran's order: save numpy.ascontiguousarray of it")
        return pixels

    @cached_property
    def _labels(self) -> torch.Tensor:
        path, count = Path(self.root, "labels.npy"), len(self._pixels)
        if not path.exists():
            return torch.zeros(count, dtype=torch.int64)
        labels = _mapped(path, "(N,)")
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"{path} holds {labels.dtype} of shape {labels.shape}: labels are whole numbers from 0, one for each "
                f"of the {count} images"
            )
        if labels.min() < 0 or labels.max() >= MOST_CLASSES:
            raise DataError(
                f"{path} has labels from {labels.min()} to {labels.max()}: they are the numbers of classes, from 0 on, "
                f"and of fewer than {MOST_CLASSES:,} of them"
            )
        return torch.from_numpy(labels.astype(np.int64))


def _mapped(path: Path, shape: str) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise DataError(
            f"{path.resolve()} is not there (data.root={path.parent}): write it with numpy.save, {shape}"
        ) from error
    except OSError as error:
        raise DataError(f"{path.resolve()} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path.resolve()} is no array of numpy.save: {' '.join(str(error).split())}") from error


def _tensor(array: np.ndarray) -> torch.Tensor:
    """The array's own memory as a tensor, which nothing here writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
