"""Datasets of 28 x 28 grey images that torchvision reads and, for those who have a network, downloads."""

from abc import ABC
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from vaelab.data.form import Form
from vaelab.data.images import Count, ImageData, Images, Splits
from vaelab.data.own import Root
from vaelab.errors import DataError

CLASSES = 10


@dataclass(kw_only=True, eq=False)
class _TorchvisionData(ImageData, ABC):
    """60,000 training and 10,000 test images in `root`, in torchvision's layout; downloaded if missing."""

    name: ClassVar[str]
    labels: ClassVar[tuple[str, ...]] = tuple("0123456789")

    validation: Count = 10_000
    root: Root = "data"

    def outline(self) -> Form:
        """28 x 28 grey pixels of ten classes."""
        return Form(shape=(1, 28, 28), names=self.labels)

    def read(self) -> Splits:
        """The training images less the validation split, that split, and the test images."""
        train, validation = self.set_aside(self._images(train=True))
        return Splits(train, validation, self._images(train=False))

    def _images(self, *, train: bool) -> Images:
        import torchvision.datasets  # slow to import, and needed here only

        dataset_class = getattr(torchvision.datasets, self.name)
        root = Path(self.root).expanduser()
        where = f"{self.name} in {root.resolve() / self.name} (data.root={self.root})"
        try:
            missing = not (root / self.name).exists()
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror}") from error
        if missing and not self.fetch:
            raise DataError(
                f"{where} is not there, and nothing is downloaded to where a run folder says: put it there, or change "
                "data.root in the run's config.yaml to a folder that has it"
            )
        if missing:
            self._download(dataset_class, where)
        try:
            dataset = dataset_class(root, train=train)
            images = Images(dataset.data.unsqueeze(1), dataset.targets)
            if images.pixels.shape != (len(images.labels), *self.outline().shape):
                raise ValueError(f"{len(images.labels)} labels for images {tuple(images.pixels.shape)}")
            if len(images) and not 0 <= images.labels.min() <= images.labels.max() < CLASSES:
                raise ValueError(f"a label is not one of the {CLASSES} classes")
        except PermissionError as error:
            raise DataError(f"{where} cannot be read: {error.strerror}") from error
        except Exception as error:
            raise DataError(
                f"{where} is incomplete or damaged: {_one_line(error)}. Remove that folder to fetch it again"
            ) from error
        return images

    def _download(self, dataset_class: Any, where: str) -> None:
        """Download the dataset as a whole or, where that fails, leave nothing behind."""
        root = Path(self.root).expanduser()
        made = [path for path in [root, *root.parents] if not path.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=root, prefix=".download-") as folder:
                dataset_class(folder, download=True)
                _put(Path(folder) / self.name, root / self.name)
        except Exception as error:
            raise DataError(
                f"{where} is not there and could not be downloaded: {_one_line(error)}. Connect to a network, "
                "point data.root to a folder that has it, or take data=mnist_5k or data=digits, which need none"
            ) from error
        finally:
            for path in made:  # innermost first; what has something in it stays
                with suppress(OSError):
                    path.rmdir()


def _put(made: Path, place: Path) -> None:
    """Rename a folder into place, where no other process has put one meanwhile."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


class MNIST(_TorchvisionData):
    """MNIST's handwritten digits (LeCun et al. 1998)."""

    name = "MNIST"


class FashionMNIST(_TorchvisionData):
    """Fashion-MNIST's clothes (Xiao et al. 2017)."""

    name = "FashionMNIST"
    labels = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )


class KMNIST(_TorchvisionData):
    """Kuzushiji-MNIST's cursive characters (Clanuwat et al. 2018)."""

    name = "KMNIST"
    labels = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
