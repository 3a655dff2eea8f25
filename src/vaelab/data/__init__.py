"""Images in memory: what there is to train on, and batches of it."""

from vaelab.data.array import ArrayImages
from vaelab.data.batches import Batch, Batches
from vaelab.data.bundled import MNIST5k, ScikitDigits
from vaelab.data.images import ImageData, Images, Splits
from vaelab.data.torchvision_sets import KMNIST, MNIST, FashionMNIST

__all__ = [
    "KMNIST",
    "MNIST",
    "ArrayImages",
    "Batch",
    "Batches",
    "FashionMNIST",
    "ImageData",
    "Images",
    "MNIST5k",
    "ScikitDigits",
    "Splits",
]
