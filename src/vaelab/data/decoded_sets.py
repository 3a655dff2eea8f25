"""Datasets of image files that torchvision downloads: decoded once, into a mapped array."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from vaelab.data.decoding import Recipe
from vaelab.data.form import Form
from vaelab.data.image_files import Tree
from vaelab.data.image_folder import Side, decoded
from vaelab.data.images import Count, Images, Share, Splits
from vaelab.data.own import Root
from vaelab.data.published import Published, of_torchvision
from vaelab.data.stores import Mapped
from vaelab.errors import DataError, did_you_mean


@dataclass(kw_only=True, eq=False)
class Omniglot(Published):
    """Handwritten characters of 50 alphabets (Lake et al. 2015), white on black; labels are the alphabets.

    The 19,280 images of the background set are trained on, the 13,180 of the other 20 alphabets are the test set.

    Args:
        size: pixels a side, of 105.
        cache: a folder for the array; by default `.vaelab_cache` in `root`.
    """

    name, files = "Omniglot", ("omniglot-py",)
    parts: ClassVar[dict[str, list[str]]] = {"train": ["images_background"], "test": ["images_evaluation"]}

    validation: Count | Share = 0.1
    size: Side = 28
    cache: Root | None = None

    def outline(self) -> Form:
        """Grey pixels of the alphabets there are."""
        self.require()
        return Form(shape=(1, self.size, self.size), names=self._tree.names)

    def read(self) -> Splits:
        """The images of the background set less the validation split, that split, and those of the evaluation set."""
        self.require()
        recipe = Recipe((self.size, self.size), False, "grey", "stretch", "uint8", invert=True)
        folder = self.place / self.files[0]
        rows = decoded(folder, recipe, "refuse", cache=self.cache, write=self.fetch, tree=self._tree)
        splits = rows.given_splits(rows.open())
        if splits is None:
            raise DataError(f"{self.where} is incomplete: it has the folders images_background and images_evaluation")
        return Splits(*self.set_aside(splits.train), splits.test)

    def download(self, folder: Path) -> None:
        """Both sets."""
        for background in (True, False):
            of_torchvision(self.name)(folder, background=background, download=True)

    @cached_property
    def _tree(self) -> Tree:
        return Tree.of(self.place / self.files[0], self.parts)


@dataclass(kw_only=True, eq=False)
class CelebA(Published):
    """202,599 faces with 40 attributes, in the splits that they come with (Liu et al. 2015).

    The attributes are the factors, with two values each. The square of `cut` pixels in the middle is scaled to `size`.

    Args:
        validation: how many of the validation images are used.
        size: pixels a side.
        cut: pixels a side, of the 178 x 218 there are.
        label: an attribute, such as Smiling, that is the label.
        cache: a folder for the array; by default `.vaelab_cache` in `root`/celeba.
    """

    name, files = "CelebA", ("celeba",)

    validation: Count = 19_867
    size: Side = 64
    cut: Annotated[int, Field(ge=8, le=178)] = 148
    label: str | None = None
    cache: Root | None = None

    def outline(self) -> Form:
        """Coloured pixels, and what the file of attributes says."""
        names = self._attributes[0]
        if self.label is not None and self.label not in names:
            raise DataError(
                f"data.label={self.label}: {self.name} has no such attribute{did_you_mean(self.label, names)}"
            )
        labels = () if self.label is None else (f"not {self.label}", self.label)
        return Form(shape=(3, self.size, self.size), names=labels, factors=dict.fromkeys(names, 2))

    def read(self) -> Splits:
        """The splits of list_eval_partition.txt."""
        names, files, values, partition = self._attributes
        recipe = Recipe((self.size, self.size), False, "rgb", "stretch", "uint8", cut=self.cut)
        folder = self.place / "celeba" / "img_align_celeba"
        array = decoded(folder, recipe, "refuse", cache=self.cache, write=self.fetch)
        rows = array.open()
        if len(rows) != len(files):
            raise DataError(f"{self.where} is incomplete: {len(rows)} images, and attributes of {len(files)}")
        known = torch.from_numpy(values)
        labels = torch.zeros(len(rows), dtype=torch.int64) if self.label is None else known[:, names.index(self.label)]
        assert isinstance(rows.store, Mapped)
        found = Images(Mapped(rows.store.parts, rows.store.shape, known=known), labels)
        splits = Splits(*(found.take(torch.from_numpy(np.flatnonzero(partition == number))) for number in range(3)))
        return splits._replace(validation=splits.validation.first(self.validation))

    def download(self, folder: Path) -> None:
        """All files; torchvision needs the package gdown for it."""
        of_torchvision(self.name)(folder, download=True)

    @cached_property
    def _attributes(self) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
        """Names of the attributes, of the images, (N, 40) zeros and ones, and the split of each image."""
        self.require()
        with self.reading():
            lines = (self.place / "celeba" / "list_attr_celeba.txt").read_text().splitlines()
            rows = [line.split() for line in lines[2:] if line.strip()]
            values = (np.array([row[1:] for row in rows], np.int64) + 1) // 2
            pairs = (self.place / "celeba" / "list_eval_partition.txt").read_text().split()
            names, files = lines[1].split(), [row[0] for row in rows]
            if pairs[::2] != files or files != sorted(files) or values.shape[1:] != (len(names),):
                raise ValueError("list_attr_celeba.txt and list_eval_partition.txt do not fit together")
        return names, files, values, np.array(pairs[1::2], np.int64)
