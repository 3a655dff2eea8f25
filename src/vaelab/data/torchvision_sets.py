"""Datasets of small images that torchvision reads and, for those who have a network, downloads."""

from abc import ABC
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vaelab.data.form import Form
from vaelab.data.images import Count, Images, Share, Splits
from vaelab.data.published import Published, of_torchvision

CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(kw_only=True, eq=False)
class _TorchvisionData(Published, ABC):
    """Training and test images in `root`, in torchvision's layout; downloaded if missing."""

    event: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    classes_of: ClassVar[tuple[str, ...]] = tuple(digits)

    validation: Count | Share = 10_000

    def outline(self) -> Form:
        """Pixels of a known size and number of classes."""
        return Form(shape=self.event, names=self.classes_of)

    def read(self) -> Splits:
        """The training images less the validation split, that split, and the test images."""
        self.require()
        train, validation = self.set_aside(self._images(train=True))
        return Splits(train, validation, self._images(train=False))

    def download(self, folder: Path) -> None:
        """Both parts, checked by their MD5s."""
        for train in (True, False):
            of_torchvision(self.name)(folder, **self.part(train=train), download=True)

    def part(self, *, train: bool) -> dict[str, Any]:
        """The arguments of torchvision's class for one of the parts."""
        return {"train": train}

    def values(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W) and labels (N,) of torchvision's dataset."""
        return dataset.data.unsqueeze(1), dataset.targets

    def _images(self, *, train: bool) -> Images:
        with self.reading():
            pixels, labels = self.values(of_torchvision(self.name)(self.place, **self.part(train=train)))
            images = Images(pixels.contiguous(), labels.long())
            if pixels.shape != (len(labels), *self.form.shape):
                raise ValueError(f"{len(labels)} labels for images {tuple(pixels.shape)}")
            if len(images) and not 0 <= labels.min() <= labels.max() < self.classes:
                raise ValueError(f"a label is not one of the {self.classes} classes")
        return images


class MNIST(_TorchvisionData):
    """MNIST's handwritten digits (LeCun et al. 1998)."""

    name, files = "MNIST", ("MNIST",)


class FashionMNIST(_TorchvisionData):
    """Fashion-MNIST's clothes (Xiao et al. 2017)."""

    name, files = "FashionMNIST", ("FashionMNIST",)
    classes_of = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )


class KMNIST(_TorchvisionData):
    """Kuzushiji-MNIST's cursive characters (Clanuwat et al. 2018)."""

    name, files = "KMNIST", ("KMNIST",)
    classes_of = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataclass(kw_only=True, eq=False)
class EMNIST(_TorchvisionData):
    """Handwritten digits and letters (Cohen et al. 2017).

    Args:
        part_of: `balanced` (47 classes, letters alike in both cases merged), `bymerge` (the same, as often as they
            are), `byclass` (62), `letters` (26), `digits` or `mnist` (10).
    """

    name, files = "EMNIST", ("EMNIST",)
    merged: ClassVar[str] = "cijklmopsuvwxyz"

    validation: Count | Share = 18_800
    part_of: Literal["balanced", "bymerge", "byclass", "letters", "digits", "mnist"] = "balanced"

    def outline(self) -> Form:
        """28 x 28 grey pixels of the classes of the part."""
        match self.part_of:
            case "digits" | "mnist":
                names = digits
            case "letters":
                names = ascii_lowercase
            case "byclass":
                names = digits + ascii_uppercase + ascii_lowercase
            case _:
                names = digits + ascii_uppercase + "".join(one for one in ascii_lowercase if one not in self.merged)
        return Form(shape=self.event, names=tuple(names))

    def part(self, *, train: bool) -> dict[str, Any]:
        """A part of the characters."""
        return {"split": self.part_of, "train": train}

    def values(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Upright images, which the files have on their side; letters are counted from 1 there."""
        return dataset.data.mT.unsqueeze(1), dataset.targets - int(self.part_of == "letters")


@dataclass(kw_only=True, eq=False)
class USPS(_TorchvisionData):
    """7,291 and 2,007 digits of American postal codes (Hull 1994)."""

    name, files, event = "USPS", ("usps.bz2", "usps.t.bz2"), (1, 16, 16)

    validation: Count | Share = 0.1

    def values(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Lists of labels, made tensors."""
        return torch.from_numpy(dataset.data).unsqueeze(1), torch.tensor(dataset.targets)


@dataclass(kw_only=True, eq=False)
class CIFAR10(_TorchvisionData):
    """50,000 and 10,000 photographs of animals and vehicles (Krizhevsky 2009)."""

    name, files, event = "CIFAR10", ("cifar-10-batches-py",), (3, 32, 32)
    classes_of: ClassVar[tuple[str, ...]] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )

    validation: Count | Share = 5000

    def values(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Channels first."""
        return torch.from_numpy(dataset.data).movedim(-1, 1), torch.tensor(dataset.targets)


class CIFAR100(CIFAR10):
    """The same of 100 classes (Krizhevsky 2009)."""

    name, files = "CIFAR100", ("cifar-100-python",)
    classes_of = tuple(CIFAR100_CLASSES.split())


@dataclass(kw_only=True, eq=False)
class SVHN(_TorchvisionData):
    """73,257 and 26,032 house numbers, cut to their digits (Netzer et al. 2011); the `extra` images are left out."""

    name, files, event = "SVHN", ("train_32x32.mat", "test_32x32.mat"), (3, 32, 32)

    validation: Count | Share = 5000

    def part(self, *, train: bool) -> dict[str, Any]:
        """By name."""
        return {"split": "train" if train else "test"}

    def values(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Arrays, made tensors."""
        return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels)


@dataclass(kw_only=True, eq=False)
class STL10(_TorchvisionData):
    """5,000 and 8,000 photographs of 96 x 96 (Coates et al. 2011).

    Args:
        unlabelled: train on the 100,000 images without a label as well: 2.8 GB of memory.
    """

    name, files, event = "STL10", ("stl10_binary",), (3, 96, 96)
    classes_of = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

    validation: Count | Share = 0.1
    unlabelled: bool = False

    def outline(self) -> Form:
        """96 x 96 pixels of ten classes, and of none."""
        return Form(shape=self.event, names=(*self.classes_of, *["unlabelled"] * self.unlabelled))

    def part(self, *, train: bool) -> dict[str, Any]:
        """By name."""
        return {"split": "test" if not train else "train+unlabeled" if self.unlabelled else "train"}

    def values(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """Arrays, made tensors; no label is the last one."""
        labels = dataset.labels.astype(np.int64)
        return torch.from_numpy(dataset.data), torch.from_numpy(np.where(labels == -1, len(self.classes_of), labels))
