"""Datasets of Hugging Face: from the Hub, saved to a folder, or in a Parquet file."""

import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.data import decoding
from vaelab.data.array_import import Blocks, Rows, copy
from vaelab.data.decoding import DamagedError, Recipe
from vaelab.data.image_files import Colour, Damaged, Fit
from vaelab.data.importing import SCRATCH, written
from vaelab.data.own import SPLIT_FOLDERS
from vaelab.errors import DataError, did_you_mean

PREFIX = "hf:"
SAVED = ("dataset_info.json", "dataset_dict.json")


def is_dataset(source: str) -> bool:
    """Whether a source is `hf:` and the name or folder of a dataset, a folder that `save_to_disk` wrote, or Parquet."""
    path = Path(source)
    return source.startswith(PREFIX) or path.suffix == ".parquet" or any((path / name).exists() for name in SAVED)


def import_dataset(
    source: str,
    target: Path,
    *,
    size: int | tuple[int, int] | None = None,
    colour: Colour = "rgb",
    fit: Fit = "crop",
    damaged: Damaged = "refuse",
    key: str | None = None,
    labels: str | None = None,
) -> Path:
    """Copy the rows of a dataset, and their labels, into the folder `target`; images are decoded.

    Args:
        source: see `is_dataset`. No code of a dataset runs: the package refuses datasets that have any.
        target: of images.npy and, where there are such, labels.npy, names.txt and splits/.
        size: of images, a side or (height, width); by default that of the first.
        colour: of images.
        fit: how images come to `size`.
        damaged: what is done about images that cannot be read.
        key: the column of rows; by default the first of images.
        labels: the column of labels; by default the first that has class labels.

    Raises:
        DataError: the dataset cannot be had, or has no such columns.
        RunError, StorageError: the folder cannot be written.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f'{source} needs the package datasets: pip install "vaelab[datasets]"') from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # an error is raised, and said once

    def fill(part: Path) -> None:
        try:
            splits = _splits(source, _load(datasets, source, part / SCRATCH))
        except DataError:
            raise
        except Exception as error:  # of the package's many kinds
            raise DataError(f"{source} cannot be read as a dataset: {' '.join(str(error).split())[:300]}") from error
        features = next(iter(splits.values())).features
        rows = key or next((name for name, feature in features.items() if isinstance(feature, datasets.Image)), None)
        classes = (name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel))
        targets = labels or next(classes, None)
        for name in filter(None, (rows, targets)):
            if name not in features:
                raise DataError(f"{source} has no column {name}{did_you_mean(name, features)}")
        if rows is None:
            raise DataError(f"{source} has no column of images: --key NAME, of {', '.join(features)}")
        recipe = None
        if isinstance(features[rows], datasets.Image):
            splits = {split: own.cast_column(rows, datasets.Image(decode=False)) for split, own in splits.items()}
            recipe = _recipe(next(iter(splits.values())), rows, size, colour, fit, source)
        found = {
            split: (_images(own, rows, recipe) if recipe else _arrays(own, rows))._replace(**_labels(own, targets))
            for split, own in splits.items()
        }
        copy(found, part, source, damaged)

    path = Path(source.removeprefix(PREFIX))
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    asked = json.dumps([source, stats, size, colour, fit, damaged, key, labels])
    return written(target, blake2b(asked.encode()).hexdigest(), fill)


def _load(datasets: Any, source: str, scratch: Path) -> Any:
    name, path = source.removeprefix(PREFIX), Path(source.removeprefix(PREFIX))
    if any((path / saved).exists() for saved in SAVED):
        return datasets.load_from_disk(name)
    if not path.exists():
        if not source.startswith(PREFIX):
            raise DataError(f"{path.absolute()} is not there")
        return datasets.load_dataset(name)
    if path.is_file():
        return datasets.load_dataset("parquet", data_files=name, cache_dir=str(scratch))
    return datasets.load_dataset(name, cache_dir=str(scratch))


def _splits(source: str, found: Any) -> dict[str, Any]:
    """The dataset of each split; of "" where there is one only."""
    if not isinstance(found, dict):
        return {"": found}
    if len(found) == 1:
        return {"": next(iter(found.values()))}
    splits = {split: found[name] for split, names in SPLIT_FOLDERS.items() for name in names if name in found}
    if "train" not in splits:
        raise DataError(f"{source} has the splits {', '.join(found)}, and none is called train")
    return splits


def _recipe(rows: Any, key: str, size: int | tuple[int, int] | None, colour: Colour, fit: Fit, source: str) -> Recipe:
    """How images are decoded: to `size`, or where that is None, to the size of the first."""
    for image in rows[:100][key]:
        try:
            of_first, dtype = decoding.size_of(_file(image))
        except DamagedError:
            continue
        height, width = of_first if size is None else (size, size) if isinstance(size, int) else size
        return Recipe((height, width), size is None, colour, fit, dtype)
    raise DataError(f"{source} has no image that can be read among the first 100 rows")


def _file(image: dict[str, Any]) -> Path | io.BytesIO:
    return Path(image["path"]) if image["bytes"] is None else io.BytesIO(image["bytes"])


def _images(rows: Any, key: str, recipe: Recipe) -> Rows:
    channels = 3 if recipe.colour == "rgb" else 1

    def blocks(start: int, size: int) -> Blocks:
        with ThreadPoolExecutor() as pool:  # Pillow decodes without the lock of the interpreter
            for at in range(start, len(rows), size):
                images = rows[at : min(at + size, len(rows))][key]
                values = np.zeros((len(images), *recipe.size, channels), recipe.dtype)
                unread = []
                with decoding.strictly():
                    decoded = list(pool.map(one, images))
                for number, image in enumerate(decoded):
                    if isinstance(image, str):
                        unread.append((number, image))
                    else:
                        values[number] = image.reshape(values.shape[1:])
                yield np.moveaxis(values, -1, 1), unread

    def one(image: dict[str, Any] | None) -> np.ndarray | str:
        if image is None:
            return "has no image"
        try:
            return decoding.decode(_file(image), recipe)
        except DamagedError as error:
            return str(error)

    return Rows(len(rows), (channels, *recipe.size), recipe.dtype, blocks)


def _arrays(rows: Any, key: str) -> Rows:
    """A column of numbers, or of lists of the same shape."""
    table = rows.select_columns([key]).with_format("numpy")

    def block(start: int, stop: int) -> np.ndarray:
        values = np.asarray(table[start:stop][key])
        if values.dtype == object:
            raise DataError(f"the column {key} has rows of several shapes")
        return values

    def blocks(start: int, size: int) -> Blocks:
        for at in range(start, len(rows), size):
            yield block(at, min(at + size, len(rows))), []

    first = block(0, 1)
    return Rows(len(rows), first.shape[1:], first.dtype.name, blocks)


def _labels(rows: Any, column: str | None) -> dict[str, Any]:
    if column is None:
        return {}
    feature, values = rows.features[column], np.asarray(list(chain(rows[column])))
    names = getattr(feature, "names", None)
    if names is None:
        return {"labels": values}
    if (values < 0).any():  # not known, as of most test sets
        return {"labels": np.array(["unlabelled", *names])[values + 1]}
    return {"labels": values, "names": tuple(names)}
