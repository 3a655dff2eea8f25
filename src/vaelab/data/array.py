"""Rows of NumPy arrays, which may be larger than memory."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.data.form import MOST_CLASSES, Form
from vaelab.data.images import Images, Splits
from vaelab.data.own import SPLIT_FOLDERS, OwnData, encoded
from vaelab.data.stores import Mapped
from vaelab.errors import DataError

Channels = Literal["auto", "first", "last", "none"]
KINDS = ("uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool")
COLOURS = (1, 3, 4)
FEW, LONG = 16, 4  # channels of a signal, and how many times as many places it has


class Layout(NamedTuple):
    """What the axes of an array are taken for."""

    shape: tuple[int, ...]
    channels: Literal["first", "last", "none", "vector"]

    def arrange(self, rows: Tensor) -> Tensor:
        """Rows with channels last, with these first."""
        return rows.movedim(-1, 1).contiguous()


@dataclass(kw_only=True, eq=False)
class ArrayData(OwnData):
    """The rows of `root`/images.npy, (N, *event), and the labels of `root`/labels.npy, (N,).

    The array is mapped into memory, not read: a batch reads its rows and no others, and splits are lists of numbers.
    What fits into memory stays in the system's cache of the file. Several files, images-0.npy, images-1.npy, ..., are
    one array. Where there is no array, but folders train, validation and test, each has one, and they are the splits.

    Values are uint8, taken for pixels, or floats or whole numbers. Labels are whole numbers or strings; where
    names.txt has a line for each of the numbers 0, 1, ..., they are called so.

    Args:
        channels: the axis of the channels: `first`, (N, C, *places); `last`, (N, *places, C); `none`, (N, *places).
            `auto` takes (N, D) for vectors; of (N, A, B) uint8 for images of one channel, and others for signals
            where A is at most 15 and B more than 4 A; else for channels last where only the last axis has 1, 3 or 4.
    """

    channels: Channels = "auto"

    def outline(self) -> Form:
        """What the headers of the files say, and which labels there are."""
        return Form(shape=self._layout.shape, names=self._labels[1], scaling=None)

    def open(self) -> Images:
        """All rows, mapped."""
        tensors, arrange = [_tensor(array) for array in self._arrays], None
        if self._layout.channels == "none":
            tensors = [tensor.unsqueeze(1) for tensor in tensors]
        if self._layout.channels == "last":
            arrange = self._layout.arrange
        return Images(Mapped(tensors, self._layout.shape, arrange), self._labels[0])

    def given_splits(self, rows: Images) -> Splits | None:
        """Those of the folders train, validation and test, or of row numbers in the folder splits."""
        if not self._folders:
            numbers = self.folder / "splits"
            found = {split: f"splits/{split}.npy" for split in Splits._fields if (numbers / f"{split}.npy").exists()}
            return self.by_files(rows, self.listed(found), found) if found and not self.split_files else None  # type: ignore[arg-type]
        ends = [0, *accumulate(len(array) for array in self._arrays)]
        spans = dict(zip([split for split, _ in self._files], pairwise(ends), strict=True))
        return Splits(*(rows.take(torch.arange(*spans.get(split, (0, 0)))) for split in Splits._fields))

    @property
    def where(self) -> str:
        """The first file."""
        return str(self._files[0][1])

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """The folder of each split, where the data come so."""
        if self.folder.joinpath("images.npy").exists() or list(self.folder.glob("images-*.npy")):
            return {}
        found = {
            split: self.folder / name
            for split, names in SPLIT_FOLDERS.items()
            for name in names
            if (self.folder / name / "images.npy").exists()
        }
        return found if "train" in found else {}

    @cached_property
    def _files(self) -> list[tuple[str, Path]]:
        """The files of the array, in order, each with its split if the data come so."""
        if self._folders:
            return [(split, folder / "images.npy") for split, folder in self._folders.items()]
        whole = self.folder / "images.npy"
        parts = [] if whole.exists() else sorted(self.folder.glob("images-*.npy"))
        if not parts and not whole.exists():
            _require_no_pictures(self.folder)
        return [("", path) for path in parts or [whole]]

    @cached_property
    def _arrays(self) -> list[np.ndarray]:
        arrays = [mapped(path, "(N, *event)") for _, path in self._files]
        first, path = arrays[0], self._files[0][1]
        for array, (_, file) in zip(arrays, self._files, strict=True):
            if array.dtype != first.dtype or array.shape[1:] != first.shape[1:]:
                raise DataError(
                    f"{file} holds {array.dtype} of shape {array.shape}, and {path} {first.dtype} of shape "
                    f"{first.shape}: parts of one array differ in their number of rows only"
                )
            if not array.flags.c_contiguous:
                raise DataError(f"{file} is in Fortran's order: save numpy.ascontiguousarray of it")
        if str(first.dtype) not in KINDS:
            raise DataError(f"{path} holds {first.dtype}: rows are numbers, one of {', '.join(KINDS)}")
        return arrays

    @cached_property
    def _layout(self) -> Layout:
        array, path = self._arrays[0], self._files[0][1]
        if array.ndim < 2 or 0 in array.shape[1:] or not sum(map(len, self._arrays)):
            raise DataError(
                f"{path} holds {array.dtype} of shape {array.shape}: rows are (N, *event), such as images (N, C, H, W) "
                "or vectors (N, D)"
            )
        layout = _layout(array.shape[1:], self.channels, is_uint8=array.dtype == np.uint8)
        if self.channels == "auto" and layout.channels != "vector":
            what = {"first": "channels first", "last": "channels last", "none": "one channel"}[layout.channels]
            if layout.channels != "first" or array.ndim == 3 or array.shape[-1] in COLOURS:
                self.notes.append(f"{path} of shape {array.shape} is taken as {what}: data.channels says otherwise")
        return layout

    @cached_property
    def _labels(self) -> tuple[Tensor, tuple[str, ...]]:
        count = sum(map(len, self._arrays))
        folders = list(self._folders.values()) or [self.folder]
        paths = [folder / "labels.npy" for folder in folders]
        there = [path.exists() for path in paths]
        if not any(there):
            return torch.zeros(count, dtype=torch.int64), ()
        if not all(there):
            raise DataError(f"{paths[there.index(False)]} is not there, and {paths[there.index(True)]} is")
        parts = [mapped(path, "(N,)") for path in paths]
        labels, path = np.concatenate(parts), paths[0]
        if labels.shape[:1] != (count,):
            raise DataError(
                f"{path} holds {labels.dtype} of shape {labels.shape}: there are {count} rows, a label each"
            )
        names = self.folder / "names.txt"
        if names.exists() and labels.dtype.kind in "iu" and labels.ndim == 1:
            lines = tuple(names.read_text(encoding="utf-8").splitlines())
            if len(lines) <= MOST_CLASSES and 0 <= labels.min() <= labels.max() < len(lines):
                return torch.from_numpy(labels.astype(np.int64)), lines
            raise DataError(f"{names} names {len(lines)} labels, and {path} has {labels.min()} to {labels.max()}")
        return encoded(labels, str(path), MOST_CLASSES)


def _layout(sizes: tuple[int, ...], channels: Channels, *, is_uint8: bool) -> Layout:
    if len(sizes) == 1:
        return Layout(sizes, "vector")
    if channels == "auto" and len(sizes) == 2:
        signal = not is_uint8 and sizes[0] < FEW and sizes[1] > LONG * sizes[0]
        channels = "first" if signal else "none"
    elif channels == "auto":
        channels = "last" if sizes[-1] in COLOURS and sizes[0] not in COLOURS else "first"
    match channels:
        case "none":
            return Layout((1, *sizes), "none")
        case "last":
            return Layout((sizes[-1], *sizes[:-1]), "last")
    return Layout(sizes, "first")


def _require_no_pictures(folder: Path) -> None:
    """Say how to come from a folder of image files, or a file, to an array."""
    if folder.is_file():
        raise DataError(f"{folder} is a file, and data.root is a folder: put the array into one as images.npy")
    if not folder.is_dir():
        return
    from PIL import Image

    Image.init()
    files = (path for path in folder.rglob("*") if path.suffix.lower() in Image.EXTENSION)
    picture = next(files, None)
    if picture is not None:
        raise DataError(
            f"{folder} has no images.npy, but image files, such as {picture.relative_to(folder)}: "
            f"data=image_folder data.root={folder} data.size=64 takes these"
        )


def mapped(path: Path, shape: str) -> np.ndarray:
    """The array of an .npy, mapped.

    Raises:
        DataError: it is not there or something else.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise DataError(
            f"{path.resolve()} is not there (data.root={path.parent}): write it with numpy.save, {shape}"
        ) from error
    except OSError as error:
        raise DataError(f"{path.resolve()} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(
            f"{path.resolve()} is not an array that numpy.save wrote: {' '.join(str(error).split())}"
        ) from error


def _tensor(array: np.ndarray) -> torch.Tensor:
    """The array's own memory as a tensor, which nothing here writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
