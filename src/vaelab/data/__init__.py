"""Datasets: rows by number from memory, files or a formula, their splits, and batches of them."""

from vaelab.data.array import ArrayData
from vaelab.data.augmentation import Augmentation
from vaelab.data.batches import Batch, Batches, in_turn
from vaelab.data.bundled import MNIST5k, ScikitDigits, Wine
from vaelab.data.decoded_sets import CelebA, Omniglot
from vaelab.data.dsprites import DSprites
from vaelab.data.fits import why_not_of
from vaelab.data.form import Form
from vaelab.data.image_folder import ImageFolder
from vaelab.data.images import ImageData, Images, Splits, rows_at_once
from vaelab.data.scaling import Scaling
from vaelab.data.sprites import Sprites
from vaelab.data.stores import Mapped, Memory, Store
from vaelab.data.table import TableData
from vaelab.data.torchvision_sets import (
    CIFAR10,
    CIFAR100,
    EMNIST,
    KMNIST,
    MNIST,
    STL10,
    SVHN,
    USPS,
    FashionMNIST,
)
from vaelab.data.waves import Waves

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "STL10",
    "SVHN",
    "USPS",
    "ArrayData",
    "Augmentation",
    "Batch",
    "Batches",
    "CelebA",
    "DSprites",
    "FashionMNIST",
    "Form",
    "ImageData",
    "ImageFolder",
    "Images",
    "MNIST5k",
    "Mapped",
    "Memory",
    "Omniglot",
    "Scaling",
    "ScikitDigits",
    "Splits",
    "Sprites",
    "Store",
    "TableData",
    "Waves",
    "Wine",
    "in_turn",
    "rows_at_once",
    "why_not_of",
]
