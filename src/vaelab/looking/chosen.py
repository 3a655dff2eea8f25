"""The images that a command is asked to look at: some of a split, or people's own."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.data import Form, ImageData, Images
from vaelab.data.images import spread
from vaelab.data.scaling import AS_IT_IS
from vaelab.errors import DataError, RunError, did_you_mean
from vaelab.looking.own_images import read_own
from vaelab.metrics.subject import split_images
from vaelab.models.autoencoder import Autoencoder


class Chosen(NamedTuple):
    """Rows, a name each, labels (N,) if known, what they are, and what was done to them."""

    rows: Images
    names: list[str]
    labels: Tensor | None
    what: str
    notes: list[str]

    @property
    def images(self) -> Tensor:
        """All of them as a model sees them, (N, *event)."""
        return self.rows.x


def choose(
    data: ImageData, own: Sequence[Path], split: str, images: str | None, invert: bool, default: int | str | None
) -> Chosen:
    """Those of one's own images, or else of a split, that `images` says, as `numbered` reads it.

    Where it says nothing, they are all of one's own, or those of the split that `default` says: all, numbers, or so
    many that are spread over it, since data may be sorted by class.

    Raises:
        DataError: there are no such images, or they cannot be read.
    """
    if own:
        read = read_own(own, data.form, invert=invert, binary=data.binarize != "none")
        told = torch.zeros(len(read.images), dtype=torch.int64) if read.labels is None else read.labels
        rows = Images(read.images, told, scaling=AS_IT_IS)
        chosen = Chosen(rows, read.names, read.labels, f"own {noun(data.form)}", read.notes)
    elif invert:
        raise RunError("--invert is for images of one's own: name their files after the run")
    else:
        found, what = split_images(data, split), f"{split} {noun(data.form)}"
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
    """The number of a label, given by its name or as a number.

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
    """The labels (N,) that a conditional model is told with so many images: `label`, or else the images' own.

    Another model takes no notice of them.

    Raises:
        RunError: there are none, or `label` is none that the model was trained with, or the model is not conditional.
    """
    if model.classes is None:
        if label is not None:
            raise RunError(f"--label {label}: this model is not told labels; model=conditional_vae is one that is")
        return torch.zeros(images, dtype=torch.int64)
    if label is not None:
        labels = torch.full((images,), label_number(label, names))
    if labels is None:
        raise RunError(
            "this model is conditional on labels, and your images come with none: --label 3 says what all of them "
            "show; an .npz can hold `labels`"
        )
    require_labels(model, labels.tolist())
    return labels


def require_labels(model: Autoencoder, labels: Iterable[int]) -> None:
    """Refuse labels that the model was not trained with.

    Raises:
        RunError: it is not conditional, or one is not among its classes.
    """
    if model.classes is None:
        raise RunError("this model is not told labels: leave them out; model=conditional_vae is one that is")
    wrong = sorted({label for label in labels if not 0 <= label < model.classes})
    if wrong:
        raise RunError(f"label {wrong[0]}: this model knows the labels 0 to {model.classes - 1}")


def numbered(text: str, what: str, size: int, *, option: str) -> list[int]:
    """The numbers that "0,5,7" lists, or those of the first three that "3" asks for; "3," is number 3.

    Raises:
        DataError: it is neither, or one is not below `size`; in the words of the option that it was given to.
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


def noun(form: Form) -> str:
    """What rows are called."""
    return "images" if form.is_image else "rows"
