"""Datasets of 28 x 28 grey images that torchvision reads and, for those who have a network, downloads."""

import shutil
from abc import ABC
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from vaelab.data.images import Count, ImageData, Images, Splits
from vaelab.errors import DataError


@dataclass(kw_only=True, eq=False)
class _TorchvisionData(ImageData, ABC):
    """60,000 training and 10,000 test images in `root`, in torchvision's layout; downloaded if missing."""

    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    name: ClassVar[str]

    validation: Count = 10_000
    root: str = "data"

    def read(self) -> Splits:
        """The training images less the validation split, that split, and the test images."""
        train, validation = self.set_aside(self._images(train=True))
        return Splits(train, validation, self._images(train=False))

    def _images(self, *, train: bool) -> Images:
        import torchvision.datasets  # slow to import, and needed here only

        dataset_class = getattr(torchvision.datasets, self.name)
        root = Path(self.root)
        where = f"{self.name} in {root.resolve() / self.name} (data.root={self.root})"
        if not (root / self.name).exists():
            self._download(dataset_class, where)
        try:
            dataset = dataset_class(root, train=train)
            images = Images(dataset.data.unsqueeze(1), dataset.targets)
            if images.pixels.shape != (len(images.labels), *self.shape):
                raise ValueError(f"{len(images.labels)} labels for images {tuple(images.pixels.shape)}")
        except Exception as error:
            raise DataError(
                f"{where} is incomplete or damaged: {_one_line(error)}. Remove that folder to fetch it again"
            ) from error
        return images

    def _download(self, dataset_class: Any, where: str) -> None:
        """Download the dataset as a whole or, where that fails, leave nothing behind."""
        root = Path(self.root)
        made = next((path for path in [*reversed(root.parents), root] if not path.exists()), None)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=root, prefix=".download-") as folder:
                dataset_class(folder, download=True)
                (Path(folder) / self.name).rename(root / self.name)
        except Exception as error:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            raise DataError(
                f"{where} is not there and could not be downloaded: {_one_line(error)}. Connect to a network, "
                "point data.root to a folder that has it, or take data=mnist_5k or data=digits, which need none"
            ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


class MNIST(_TorchvisionData):
    """MNIST's handwritten digits (LeCun et al. 1998)."""

    name = "MNIST"


class FashionMNIST(_TorchvisionData):
    """Fashion-MNIST's clothes (Xiao et al. 2017)."""

    name = "FashionMNIST"


class KMNIST(_TorchvisionData):
    """Kuzushiji-MNIST's cursive characters (Clanuwat et al. 2018)."""

    name = "KMNIST"
