"""Choose the images of a command: some of a split, or the user's own."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.data import ImageData, Images
from vaelab.data.images import spread
from vaelab.data.scaling import AS_IT_IS
from vaelab.errors import DataError, RunError, did_you_mean
from vaelab.looking.own_images import read_own
from vaelab.metrics.subject import split_images
from vaelab.models.autoencoder import Autoencoder


class Chosen(NamedTuple):
    """Rows with names, labels (N,) if known, a description, and notes on preprocessing."""

    rows: Images
    names: list[str]
    labels: Tensor | None
    what: str
    notes: list[str]

    @property
    def images(self) -> Tensor:
        """Return all of them as a model takes them, (N, *event)."""
        return self.rows.x


def choose(
    data: ImageData, own: Sequence[Path], split: str, images: str | None, invert: bool, default: int | str | None
) -> Chosen:
    """Choose from the user's own images, or else from a split, by `images`, which `numbered` parses.

    Without `images`, take all of the user's own, or of the split those of `default`: all, a list, or a number of images
    spread over the split, since data may be sorted by class.

    Raises:
        DataError: there are no such images, or they cannot be read.
    """
    if own:
        read = read_own(own, data.form, invert=invert, binary=data.binarize != "none")
        told = torch.zeros(len(read.images), dtype=torch.int64) if read.labels is None else read.labels
        rows = Images(read.images, told, scaling=AS_IT_IS)
        chosen = Chosen(rows, read.names, read.labels, f"own {data.form.noun}", read.notes)
    elif invert:
        raise RunError("--invert needs images of your own: add their files after the run")
    else:
        found, what = split_images(data, split), f"{split} {data.form.noun}"
        if images is None and default is None:
            numbers = list(range(len(found)))
        elif images is None and isinstance(default, int):
            numbers = spread(default, len(found))
        else:
            numbers = numbered(images or str(default), what, len(found), option="--images")
        some = found.take(torch.tensor(numbers, device=found.store.device))
        return Chosen(some, [*map(str, numbers)], some.labels if data.classes else None, what, [])
    if images is None:
        return chosen
    numbers = numbered(images, chosen.what, len(chosen.rows), option="--images")
    labels = chosen.labels[numbers] if chosen.labels is not None else None
    return chosen._replace(
        rows=chosen.rows.take(torch.tensor(numbers)), names=[chosen.names[n] for n in numbers], labels=labels
    )


def label_number(label: int | str, names: Sequence[str]) -> int:
    """Return the number of a label, given by its name or as a number.

    Raises:
        RunError: there is none of that name.
    """
    if isinstance(label, int):
        return label
    if label in names:
        return names.index(label)
    first = next(iter(names), "0")
    if label.isdecimal() and (
        first == "0" or not first.isdecimal()
    ):  # of labels such as 3, 100, 200 it would be a name
        return int(label)
    raise RunError(f"label {label}: the model knows no such label{did_you_mean(label, names)}")


def labels_for(
    model: Autoencoder, images: int, labels: Tensor | None, label: int | str | None, names: Sequence[str]
) -> Tensor:
    """Return the labels (N,) for a conditional model: `label` for all images, or else their own.

    Other models ignore them.

    Raises:
        RunError: there are none, the model was not trained with `label`, or the model is not conditional.
    """
    if model.classes is None:
        if label is not None:
            raise RunError(f"--label {label}: this model is not conditional on labels; model=conditional_vae is")
        return torch.zeros(images, dtype=torch.int64)
    if label is not None:
        labels = torch.full((images,), label_number(label, names))
    if labels is None:
        raise RunError(
            "this model is conditional on labels, and your images have none: give one for all with --label 3, or "
            "`labels` in an .npz"
        )
    require_labels(model.classes, labels.tolist())
    return labels


def require_labels(classes: int | None, labels: Iterable[int]) -> None:
    """Refuse labels that a model of so many classes was not trained with.

    Raises:
        RunError: it is not conditional, or one is not among its classes.
    """
    if classes is None:
        raise RunError("this model is not conditional on labels: leave them out; model=conditional_vae is conditional")
    wrong = sorted({label for label in labels if not 0 <= label < classes})
    if wrong:
        raise RunError(f"label {wrong[0]}: this model knows the labels 0 to {classes - 1}")


def numbered(text: str, what: str, size: int, *, option: str) -> list[int]:
    """Parse "0,5,7" as a list of numbers, "3" as the first three, "3," as number 3.

    Raises:
        DataError: it is neither, or a number is not below `size`; the message names the `option`.
    """
    try:
        numbers = [int(word) for word in text.rstrip(",").split(",")]
    except ValueError:
        raise DataError(f"{option} {text}: give numbers such as 0,5,7, or how many, such as 8") from None
    if "," not in text:
        if not 0 < numbers[0] <= size:
            raise DataError(f"{option} {text}: there are {size} {what}; give 1 to {size}, or numbers such as 0,5,7")
        return list(range(numbers[0]))
    wrong = [number for number in numbers if not 0 <= number < size]
    if wrong:
        raise DataError(f"{option} {text.rstrip(',')}: there is no {wrong[0]}; the {what} are numbered 0 to {size - 1}")
    return numbers
