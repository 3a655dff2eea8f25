"""Read the user's own images and fit them to a model, with notes on each preprocessing step."""

import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vaelab.data import Form, decoding
from vaelab.data.table import encode, read_table
from vaelab.errors import DataError

ARRAYS = (".npy", ".npz")
LARGEST = 2**30  # bytes of an array that is read
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)


class OwnImages(NamedTuple):
    """Images (N, C, H, W) in [0, 1] with names, labels (N,) if the files have them, and notes on preprocessing."""

    images: Tensor
    names: list[str]
    labels: Tensor | None
    notes: list[str]


class _Found(NamedTuple):
    """One image as it was read: (C, H, W), C = 1 or 3, in [0, 1]."""

    image: Tensor
    name: str
    done: str  # the preprocessing of reading it


def read_own(paths: Sequence[Path], form: Form, *, invert: bool = False, binary: bool = False) -> OwnImages:
    """Read the user's own rows for a model of data of this form: images, or arrays in the data's units.

    Args:
        paths: as in `read_images`, where the model's data are pixels; else .npy or .npz arrays (N, *shape) or (*shape),
            or tables with the columns of the data.
        form: of the model's data.
        invert: of images, take 1 - x.
        binary: of images, make every pixel 0 or 1, at 1/2.

    Raises:
        DataError: a path has no such rows, or cannot be read.
    """
    if form.is_image and form.values == "levels":
        channels, height, width = form.shape
        return read_images(paths, (channels, height, width), invert=invert, binary=binary)
    if invert:
        raise DataError("--invert exchanges light and dark of images, and this model's data are not pixels")
    assert form.scaling is not None
    found, names, labels = [], list[str](), list[np.ndarray]()
    for path in paths:
        if form.columns and path.suffix.lower() not in ARRAYS:
            rows = encode(read_table(path), form, str(path))
            found.append(form.scaling.apply(torch.from_numpy(rows)))
            names += [f"{path.name}[{number}]" for number in range(len(rows))]
            continue
        if path.suffix.lower() not in ARRAYS:
            raise DataError(f"{path}: rows of shape {form.shape} come as an .npy or .npz of shape (N, *{form.shape})")
        arrays = _arrays(path)
        rows = _named(arrays, path)
        rows = rows[None] if rows.shape == form.shape else rows
        if rows.shape[1:] != form.shape or rows.dtype.kind not in "biuf" or not len(rows):
            raise DataError(f"{path} has {rows.dtype} of shape {rows.shape}: this model takes (N, *{form.shape})")
        x = form.scaling.apply(torch.from_numpy(np.array(rows)))
        if not bool(x.isfinite().all()):
            raise DataError(f"{path} has values that are NaN or infinite")
        found.append(x)
        names += [f"{path.name}[{number}]" for number in range(len(rows))]
        if "labels" in arrays:
            labels.append(_labels(arrays["labels"], len(rows), path))
    known = torch.from_numpy(np.concatenate(labels).astype(np.int64)) if len(labels) == len(paths) else None
    return OwnImages(torch.cat(found), names, known, [])


def read_images(
    paths: Sequence[Path], shape: tuple[int, int, int], *, invert: bool = False, binary: bool = False
) -> OwnImages:
    """Read images from files, folders and arrays for a model of images `shape` = (C, H, W).

    Images are cropped to the aspect ratio of the model's, scaled to their size, made grey for a model of grey images,
    or repeated in three channels for a model of coloured ones.

    Args:
        paths: image files that Pillow reads; folders of such; .npy or .npz arrays (N, H, W), (N, C, H, W) or
            (N, H, W, C), and of one image (H, W). In an .npz they are called `images`, and there may be `labels`.
        shape: of the model's images.
        invert: take 1 - x, so that ink becomes light.
        binary: make every pixel 0 or 1, at 1/2.

    Raises:
        DataError: a path has no images, or cannot be read.
    """
    fitted: list[Tensor] = []
    names: list[str] = []
    labels: list[Tensor | None] = []
    changes: Counter[tuple[torch.Size, str]] = Counter()
    for path in paths:
        is_array = path.suffix.lower() in ARRAYS
        found, own_labels = _read_array(path) if is_array else (map(_read_file, _files(path)), None)
        labels.append(own_labels)
        for one in found:  # read one by one: a folder of photographs need not fit into memory
            image, change = _fit(one.image, shape)
            fitted.append(image)
            names.append(one.name)
            changes[one.image.shape, ", ".join(filter(None, [one.done, change]))] += 1
    notes = [_note(size, change, count) for (size, change), count in changes.items()]
    images = torch.stack(fitted)
    if invert:
        images = 1 - images
        notes.append("inverted")
    if binary:
        images = (images >= 0.5).float()
        notes.append("made black and white at half the range, as the model's training images are")
    known = [one for one in labels if one is not None]
    return OwnImages(images, names, torch.cat(known) if len(known) == len(labels) else None, notes)


def _note(shape: torch.Size, done: str, count: int) -> str:
    channels, height, width = shape
    what = f"{count} image{'s' * (count > 1)} of {width} x {height}{' in colour' * (channels == 3)}"
    return f"{what}: {done or 'not changed'}"


def _files(path: Path) -> list[Path]:
    """Return an image file, or those in a folder, sorted by name."""
    from PIL import Image

    if not path.is_dir():
        return [path]
    Image.init()
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in Image.EXTENSION)
    if not files:
        raise DataError(f"{path} has no images in it (folders inside it are not searched)")
    return files


def _read_file(path: Path) -> _Found:
    """Read an image file: rotated upright by its EXIF data, transparent parts on white."""
    try:
        image, _, done = decoding.read(path, frames=True)
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}") from error
    except decoding.DamagedError as error:
        raise DataError(f"{path} {error}") from error
    if image.mode == "L":
        pixels = np.asarray(image, np.float32)[..., None] / 255
    elif image.mode == "RGB":
        pixels = np.asarray(image, np.float32) / 255
    else:
        values, scaled = _unit_range(np.asarray(image), path)
        pixels, done = values[..., None], [*done, *filter(None, [scaled])]
    if pixels.shape[-1] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    return _Found(torch.from_numpy(pixels).movedim(-1, 0), path.name, ", ".join(done))


def _read_array(path: Path) -> tuple[Iterable[_Found], Tensor | None]:
    """Read the images, and the labels if any, of an .npy or .npz."""
    arrays = _arrays(path)
    batch = _channels_first(_named(arrays, path), path)
    values, done = _unit_range(batch, path)
    found = [_Found(image, f"{path.name}[{number}]", done) for number, image in enumerate(torch.from_numpy(values))]
    if "labels" not in arrays:
        return found, None
    return found, torch.from_numpy(_labels(arrays["labels"], len(found), path).astype(np.int64))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz, or that of an .npy under the name images.

    Raises:
        DataError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npy":
                arrays = {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
            else:
                with zipfile.ZipFile(file) as archive:
                    size = sum(member.file_size for member in archive.infolist())
                if size > LARGEST:
                    raise ValueError(f"it would unpack to {size:,} bytes")
                with np.load(path, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}") from error
    except Exception as error:  # a damaged file may fail in any way
        raise DataError(f"{path} cannot be read as an array: {' '.join(str(error).split())}") from error
    return arrays


def _named(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    images = arrays["images"] if "images" in arrays else next(iter(arrays.values())) if len(arrays) == 1 else None
    if images is None:
        raise DataError(f"{path} should have its images under the name images; it has {', '.join(arrays) or 'none'}")
    if images.nbytes > LARGEST:
        raise DataError(f"{path} is too large: its array has {images.nbytes:,} bytes")
    return images


def _labels(labels: np.ndarray, rows: int, path: Path) -> np.ndarray:
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path} should have labels that are integers, one for each of its {rows} images")
    return labels


def _channels_first(images: np.ndarray, path: Path) -> np.ndarray:
    """Convert any of the accepted shapes to (N, C, H, W), C = 1 or 3."""
    shape = images.shape
    if images.ndim == 2:
        images = images[None, None]
    elif images.ndim == 3 and shape[2] == 3 and shape[0] != 3:  # one image in colour, not H of W x 3
        images = np.moveaxis(images, 2, 0)[None]
    elif images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.size == 0:
        raise DataError(
            f"{path} has an array of shape {shape}; images should be (N, H, W), (N, C, H, W) or (N, H, W, C) "
            "with 1 or 3 channels, or of one image, (H, W) or (H, W, 3)"
        )
    return images


def _unit_range(images: np.ndarray, path: Path) -> tuple[np.ndarray, str]:
    """Scale values to float32 in [0, 1]; also return a description of the scaling."""
    if images.dtype.kind not in "biuf":
        raise DataError(f"{path} has values of type {images.dtype}; images should be numbers")
    values = np.array(images, np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DataError(f"{path} has values that are NaN or infinite")
    if images.dtype == np.uint8:
        return values / 255, ""
    if low >= 0 and high <= 1:
        return values, ""
    if low >= 0 and high <= 255:
        return values / 255, "values from 0 to 255 divided by 255"
    for bits in (10, 12, 14, 16) if images.dtype.kind in "iu" and low >= 0 else ():
        if high < 2**bits:
            return values / (2**bits - 1), f"values up to {high:g} divided by {2**bits - 1}, as of {bits} bits"
    raise DataError(f"{path} has values from {low:g} to {high:g}; images should be from 0 to 1 or from 0 to 255")


def _fit(image: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """Fit an image to another shape; also return a description of the steps."""
    done = []
    channels, height, width = shape
    if image.shape[0] == 3 and channels == 1:
        image = (image * torch.tensor(GREY).reshape(3, 1, 1)).sum(0, keepdim=True)
        done.append("made grey")
    if image.shape[0] != channels:
        image = image.expand(channels, -1, -1)
        done.append(f"repeated in {channels} channels")
    rows, columns = image.shape[1:]
    kept_rows, kept_columns = min(rows, round(columns * height / width)), min(columns, round(rows * width / height))
    kept_rows, kept_columns = max(1, kept_rows), max(1, kept_columns)
    if (kept_rows, kept_columns) != (rows, columns):
        top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        image = image[:, top : top + kept_rows, left : left + kept_columns]
        done.append(f"cropped to its middle {kept_columns} x {kept_rows}")
    if image.shape[1:] != (height, width):
        image = interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
        done.append(f"scaled to {width} x {height}")
    return image, ", ".join(done)
