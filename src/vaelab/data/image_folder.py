"""A folder of image files, decoded once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from vaelab.data.array import ArrayData
from vaelab.data.decoding import Recipe
from vaelab.data.form import Form
from vaelab.data.image_files import Colour, Damaged, Fit, Tree, key_of, range_of_first, recipe_for
from vaelab.data.images import Images, Splits
from vaelab.data.importing import import_folder
from vaelab.data.own import OwnData, Root
from vaelab.errors import DataError

Side = Annotated[int, Field(ge=1, le=16384)]
CACHE = ".vaelab_cache"


@dataclass(kw_only=True, eq=False)
class ImageFolder(OwnData):
    """The image files at any depth of `root`.

    Folders train, val and test are the splits; the folders in these, or else in `root`, are the classes, unless images
    lie beside them. The images are decoded once, into a mapped array in a folder `.vaelab_cache` beside `root`, or
    where `cache` says, which is used for as long as paths, sizes and times of the files stay the same.

    Args:
        size: of the images, a side or [height, width]; None takes them as they are, all of one size.
        colour: `rgb`, or `grey` by ITU-R BT.601.
        fit: `crop` to the middle part of the aspect ratio, `pad` with black, or `stretch`.
        damaged: `refuse` names what cannot be read, `skip` leaves it out.
        cache: a folder for the array.
    """

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    colour: Colour = "rgb"
    fit: Fit = "crop"
    damaged: Damaged = "refuse"
    cache: Root | None = None

    def outline(self) -> Form:
        """Describe the rows by folder names, options and the first images, before any is decoded."""
        shape = (3 if self.colour == "rgb" else 1, *self._recipe.size)
        names, whole = Tree.of(self.folder).names, self._recipe.dtype != "float32"
        if self.scale == "auto" and self._recipe.dtype == "uint8":
            return Form(shape=shape, names=names)
        low, high = range_of_first(self.folder)
        if self.scale == "auto" and whole:
            raise DataError(
                f"{self.folder} holds whole numbers, in its first images from {low:g} to {high:g}: say "
                f"data.scale=[{low:g},{high:g}] for pixels of that range, data.scale=standardise, or data.scale=none "
                "for counts"
            )
        scaling = self.fixed_scaling
        if scaling is not None:
            low, high = scaling.apply(torch.tensor([low, high])).tolist()
        counts = whole and low >= 0 and self.scale == "none"
        return Form(shape=shape, names=names, scaling=scaling, span=(low, high), values="counts" if counts else "real")

    def open(self) -> Images:
        """Open all rows; decode them first if that has not been done."""
        return self._decoded.open()

    def given_splits(self, rows: Images) -> Splits | None:
        """Those of the folders train, val and test."""
        return None if self.split_files or self.groups or self.stratify else self._decoded.given_splits(rows)

    @cached_property
    def _recipe(self) -> Recipe:
        return recipe_for(self.folder, self.size, self.colour, self.fit)

    @cached_property
    def _decoded(self) -> ArrayData:
        """The array."""
        return decoded(self.folder, self._recipe, self.damaged, cache=self.cache, write=self.fetch)


def decoded(
    folder: Path, recipe: Recipe, damaged: Damaged, *, cache: str | None, write: bool, tree: Tree | None = None
) -> ArrayData:
    """Open the images below a folder as an array; decode them first if that has not been done.

    Args:
        folder: of image files.
        recipe: how they are decoded.
        damaged: what is done about those that cannot be read.
        cache: a folder for the array; by default `.vaelab_cache` beside the folder.
        write: decode them, if need be.
        tree: which folders are splits and classes; by default `Tree.of` says.

    Raises:
        DataError: an image cannot be read, or it would have to be written to where only a run folder says.
    """
    key = key_of(folder, recipe, damaged)
    place = Path(cache).expanduser() if cache else folder.absolute().parent / CACHE
    target = place / f"{folder.absolute().name}-{key}"
    if not (target / "images.npy").exists():
        if not write:
            raise DataError(
                f"{folder} is not decoded in {place}, and nothing is written to where a run folder says: "
                "`vaelab train` with the same data decodes it"
            )
        import_folder(folder, target, recipe, damaged, key, tree)
    return ArrayData(root=str(target), channels="first", batch_size=1)
