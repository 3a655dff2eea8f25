"""What lies in a folder of image files: which they are, how they are divided, and how they are to be decoded."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vaelab.data import decoding
from vaelab.data.decoding import DamagedError, Recipe
from vaelab.data.own import SPLIT_FOLDERS
from vaelab.errors import DataError

Colour = Literal["rgb", "grey"]
Fit = Literal["crop", "pad", "stretch"]
Damaged = Literal["refuse", "skip"]

VERSION = 1  # of what is written
NAMED = 10  # images that a message names
FIRST = 100  # images that are looked at before any is decoded


class Found(NamedTuple):
    """One image file below the root: path with slashes, size, time of its last change."""

    path: str
    size: int
    time: int


def files(root: Path, below: str = "") -> Iterator[Found]:
    """The image files at any depth, in the order of their names, one folder's names in memory at a time."""
    try:
        with os.scandir(root / below) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith((".", "__")))
    except OSError as error:
        raise DataError(f"{root / below} cannot be read: {error.strerror or error}") from error
    for name, is_folder in names:
        path = f"{below}/{name}" if below else name
        if is_folder:
            yield from files(root, path)
        elif name.rpartition(".")[2].lower() in decoding.SUFFIXES:
            stat = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118
            yield Found(path, stat.st_size, stat.st_mtime_ns)


class Tree(NamedTuple):
    """How a folder of images is divided: the folder of each split, and the names of the classes."""

    splits: dict[str, str]  # name of the split -> folder; {"": ""} where they are to be drawn
    names: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, named: Mapping[str, Sequence[str]] = SPLIT_FOLDERS) -> "Tree":
        """By the names of folders: train, val, test, or `named` for each split; below that or at once a folder a class.

        Raises:
            DataError: there are no images.
        """
        if root.is_file():
            raise DataError(f"{root} is a file: data.root is a folder with image files in it")
        if not root.is_dir():
            raise DataError(f"{root.absolute()} is not there (data.root={root})")
        first = next(files(root), None)
        if first is None:
            raise DataError(f"{root} has no image files in it, at any depth ({', '.join(sorted(decoding.SUFFIXES))})")
        splits = {
            split: name
            for split, names in named.items()
            for name in names
            if (root / name).is_dir() and any(True for _ in islice(files(root, name), 1))
        }
        if "train" not in splits:
            splits = {"": ""}
        names: set[str] = set()
        for folder in splits.values():
            inside = sorted((root / folder).iterdir())
            if any(path.is_file() and path.suffix[1:].lower() in decoding.SUFFIXES for path in inside):
                return cls(splits, ())
            for path in inside:
                if path.is_dir() and not path.name.startswith((".", "__")):
                    below = f"{folder}/{path.name}" if folder else path.name
                    names |= {path.name} if next(files(root, below), None) else set()
        return cls(splits, tuple(sorted(names)))

    def place(self, path: str) -> tuple[str, int] | None:
        """The split and the label of a file; None where it is in no split's folder."""
        parts = path.split("/")
        if self.splits == {"": ""}:
            split, rest = "", parts
        else:
            found = next((split for split, folder in self.splits.items() if parts[0] == folder), None)
            if found is None:
                return None
            split, rest = found, parts[1:]
        return split, self.names.index(rest[0]) if self.names else 0


def range_of_first(root: Path) -> tuple[float, float]:
    """The smallest and the largest finite value of the first hundred images that can be read."""
    ends: list[float] = []
    for found in islice(files(root), FIRST):
        with suppress(DamagedError):
            values = np.asarray(decoding.read(root / found.path).image)
            values = values[np.isfinite(values)]
            ends += [float(values.min()), float(values.max())] if values.size else []
    return min(ends, default=0.0), max(ends, default=0.0)


def recipe_for(root: Path, size: int | Sequence[int] | None, colour: Colour, fit: Fit) -> Recipe:
    """How images of a folder are decoded: to `size`, or where that is None, to the size of the first.

    Raises:
        DataError: there is none that can be read.
    """
    Tree.of(root)  # says what is wrong with the folder
    sizes: dict[tuple[int, int], str] = {}  # of the first images where theirs are taken, and one of each
    dtypes = []
    for found in islice(files(root), FIRST):
        with suppress(DamagedError):
            of_this, dtype = decoding.size_of(root / found.path)
            sizes.setdefault(of_this, found.path)
            dtypes.append(dtype)
            if size is not None:
                break
    if len(sizes) > 1 and size is None:
        named = ", ".join(f"{width} x {height} ({path})" for (height, width), path in list(sizes.items())[:NAMED])
        raise DataError(f"{root} has images of {len(sizes)} sizes, {named}: data.size=64 (--size 64) scales all to one")
    if sizes:
        height, width = next(iter(sizes)) if size is None else (size, size) if isinstance(size, int) else size
        return Recipe((height, width), size is None, colour, fit, dtypes[0])
    first = next(files(root), None)
    raise DataError(
        f"{root} has no image that can be read: {first.path if first else 'none'} is damaged, and so are those after it"
    )


def key_of(root: Path, recipe: Recipe, damaged: Damaged) -> str:
    """A name for what is read and how: paths, sizes and times of the files, and the recipe."""
    digest = blake2b(json.dumps([VERSION, recipe, damaged]).encode(), digest_size=10)
    for found in files(root):
        digest.update(f"{found.path}\0{found.size}\0{found.time}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
