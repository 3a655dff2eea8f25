"""dSprites as it was published."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from vaelab.data.array import ArrayData
from vaelab.data.array_import import Blocks, Rows, arrays_of, copy
from vaelab.data.form import Form
from vaelab.data.image_folder import CACHE
from vaelab.data.images import Count, Images, Share, Splits
from vaelab.data.importing import written
from vaelab.data.published import Published
from vaelab.data.sprites import SHAPES
from vaelab.data.stores import Mapped
from vaelab.errors import DataError

URL = "https://raw.githubusercontent.com/google-deepmind/dsprites-dataset/master/"
FACTORS = ("colour", "shape", "scale", "orientation", "x", "y")


@dataclass(kw_only=True, eq=False)
class DSprites(Published):
    """737,280 white shapes on black of 64 x 64 and their factors (Matthey et al. 2017).

    The images, 3 GB, are unpacked once into a mapped array in `.vaelab_cache` in `root`, a part at a time. Labels are
    the shapes; factors that do not vary (the colour) are left out.

    Args:
        test: images, drawn with `seed`, as are those for validation.
    """

    name = "dSprites"
    files: ClassVar[tuple[str, ...]] = ("dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz",)

    validation: Count | Share = 5000
    test: Count | Share = 5000

    def outline(self) -> Form:
        """The shape of an image and the factors."""
        shape = self._arrays["imgs"].shape
        sizes = dict(zip(FACTORS, (self._classes.max(0) + 1).tolist(), strict=True))
        factors = {name: size for name, size in sizes.items() if size > 1}
        return Form(shape=(1, *shape), names=SHAPES[: sizes["shape"]], factors=factors)

    def read(self) -> Splits:
        """Training, validation and test images: one mapped array, three lists of numbers."""
        rows = self._unpacked.open()
        known = torch.from_numpy(self._classes)
        varying = [FACTORS.index(name) for name in self.factors]
        assert isinstance(rows.store, Mapped)
        images = Images(Mapped(rows.store.parts, rows.store.shape, known=known[:, varying]), known[:, 1].clone())
        return self.drawn(images, validation=self.validation, test=self.test)

    def download(self, folder: Path) -> None:
        """The one file."""
        from torchvision.datasets.utils import download_url

        download_url(URL + self.files[0], str(folder), self.files[0])

    @property
    def _file(self) -> Path:
        return self.place / self.files[0]

    @cached_property
    def _arrays(self) -> dict[str, Rows]:
        self.require()
        with self.reading():
            arrays = arrays_of(self._file)
            if len(arrays["imgs"].shape) != 2 or arrays["latents_classes"].shape != (len(FACTORS),):
                raise ValueError("imgs should be (N, H, W), and latents_classes (N, 6)")
        return arrays

    @cached_property
    def _classes(self) -> np.ndarray:
        """The number of each image's value of each factor, (N, 6), int64."""
        with self.reading():
            rows = self._arrays["latents_classes"]
            classes = np.concatenate([block for block, _ in rows.blocks(0, rows.length)]).astype(np.int64)
            if len(classes) != self._arrays["imgs"].length or classes.min() < 0 or classes[:, 1].max() >= len(SHAPES):
                raise ValueError("latents_classes does not fit imgs")
        return classes

    @cached_property
    def _unpacked(self) -> ArrayData:
        """The images as a mapped array, 0 or 255."""
        packed, stat = self._arrays["imgs"], self._file.stat()
        key = blake2b(f"{stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=10).hexdigest()
        target = self.place / CACHE / f"dsprites-{key}"

        def blocks(start: int, size: int) -> Blocks:
            for block, damaged in packed.blocks(start, size):
                yield block * np.uint8(255), damaged

        if not (target / "images.npy").exists():
            if not self.fetch:
                raise DataError(f"{self.where} is not unpacked, and nothing is written to where a run folder says")
            images = packed._replace(blocks=blocks)
            written(target, key, lambda part: copy({"": images}, part, str(self._file)))
        return ArrayData(root=str(target), batch_size=1)
