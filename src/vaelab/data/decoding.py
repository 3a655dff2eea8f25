"""Image files to arrays of one size. Also a program: several of them decode a folder, each some blocks of its files.

It imports nothing but Pillow and NumPy, so that a process starts in a tenth of a second. A job comes as lines of JSON
on the standard input: first how (`Recipe`, the file to write, where its rows begin), then blocks of paths; each block
is written to its place and answered by a line with its checksum and the files that could not be read.
"""

import io
import json
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset(
    ["png", "jpg", "jpeg", "jpe", "jfif", "bmp", "gif", "tif", "tiff", "webp", "ppm", "pgm", "pbm", "pnm", "jp2", "tga"]
)
ORIENTATION = 0x0112  # EXIF's tag
KINDS = {"I": "int32", "F": "float32"}


class DamagedError(Exception):
    """A file that cannot be read as an image, in one line."""


class Recipe(NamedTuple):
    """What becomes of an image."""

    size: tuple[int, int]  # height, width
    exact: bool  # refuse those of another size
    colour: str  # rgb or grey
    fit: str  # crop, pad or stretch
    dtype: str  # of the values: uint8, uint16, int32 or float32
    cut: int | None = None  # the side of the square in the middle that is taken first
    invert: bool = False  # exchange light and dark, of uint8


class Picture(NamedTuple):
    """An upright image in mode L, RGB, I or F, what its values are, and what reading it changed."""

    image: Image.Image
    dtype: str
    done: list[str]


def read(path: Path | io.BytesIO, *, frames: bool = False) -> Picture:
    """An image file, upright as its camera says, what is transparent of it on white.

    Args:
        path: of the file, or its bytes.
        frames: take the first of several, instead of refusing them.

    Raises:
        DamagedError: it cannot be read, is too large, or has several frames.
    """
    with strictly():
        return _read(path, frames=frames)


@contextmanager
def strictly() -> Iterator[None]:
    """Make an error of Pillow's warning of images that unpack to too much, and leave out the others.

    To be entered once a block of images: it takes as long as a tenth of a small image, and holds for all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _read(path: Path | str | io.BytesIO, *, frames: bool = False) -> Picture:
    done = []
    try:
        with Image.open(path) as opened:
            count = getattr(opened, "n_frames", 1)
            if count > 1 and not frames:
                raise DamagedError(f"has {count} frames: an animation is no image")
            if count > 1:
                done.append(f"the first of {count} frames taken")
            turned = opened.getexif().get(ORIENTATION, 1) != 1
            image: Image.Image = ImageOps.exif_transpose(opened) if turned else opened
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DamagedError(
            f"is refused: it would unpack to more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down first"
        ) from error
    except (DamagedError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged file may fail in any way, in any of Pillow's readers
        reason = "; ".join(str(error).splitlines()) or type(error).__name__
        raise DamagedError(f"cannot be read as an image: {_without(reason, path)}") from error
    if image.mode in ("L", "RGB"):
        return Picture(image, "uint8", done)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        done.append("put on white where transparent")
        return Picture(image, "uint8", done)
    if image.mode.startswith("I;16"):
        return Picture(Image.fromarray(np.asarray(image).astype(np.int32)), "uint16", done)
    if image.mode in KINDS:
        return Picture(image, KINDS[image.mode], done)
    return Picture(image.convert("L" if image.mode == "1" else "RGB"), "uint8", done)


def _without(reason: str, path: Path | str | io.BytesIO) -> str:
    return reason.replace(f" {str(path)!r}", "").replace(f" {path!r}", "")


def size_of(path: Path | io.BytesIO) -> tuple[tuple[int, int], str]:
    """Read (height, width) as displayed, and the type of the values, from the header of an image.

    Raises:
        DamagedError: it has none.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ORIENTATION, 1) >= 5
            mode = opened.mode
    except Exception as error:
        reason = "; ".join(str(error).splitlines()) or type(error).__name__
        raise DamagedError(f"cannot be read as an image: {_without(reason, path)}") from error
    dtype = "uint16" if mode.startswith("I;16") else KINDS.get(mode, "uint8")
    return ((width, height) if turned else (height, width)), dtype


def decode(path: Path | str | io.BytesIO, recipe: Recipe) -> np.ndarray:
    """The image of a file as the recipe has it, (H, W) or (H, W, 3); to be called within `strictly`.

    Raises:
        DamagedError: it cannot be had.
    """
    try:
        image, dtype, _ = _read(path)
    except FileNotFoundError as error:
        raise DamagedError("is not there any more") from error
    if dtype != recipe.dtype:
        raise DamagedError(f"has values of type {dtype}, and the first image {recipe.dtype}")
    height, width = recipe.size
    if recipe.exact and image.size != (width, height):
        raise DamagedError(f"is {image.width} x {image.height}, and the first image {width} x {height}")
    if recipe.cut is not None:
        left, top = (image.width - recipe.cut) // 2, (image.height - recipe.cut) // 2
        image = image.crop((left, top, left + recipe.cut, top + recipe.cut))
    if dtype == "uint8":
        mode = "RGB" if recipe.colour == "rgb" else "L"
        image = image if image.mode == mode else image.convert(mode)
        pixels = np.asarray(_fitted(image, recipe))
        return 255 - pixels if recipe.invert else pixels
    if dtype == "float32" and not np.isfinite(np.asarray(image)).all():
        raise DamagedError("has values that are NaN or infinite")
    if image.size != (width, height):  # numbers that Pillow scales as floats
        image = _fitted(Image.fromarray(np.asarray(image, np.float32)), recipe)
    values = np.asarray(image)
    values = values if recipe.dtype == "float32" else np.rint(values)
    values = values.astype(recipe.dtype)
    return np.repeat(values[..., None], 3, 2) if recipe.colour == "rgb" else values


def _fitted(image: Image.Image, recipe: Recipe) -> Image.Image:
    height, width = recipe.size
    if image.size == (width, height):
        return image
    how = Image.Resampling.BILINEAR  # antialiased where it makes smaller
    if recipe.fit == "stretch":
        return image.resize((width, height), how)
    if recipe.fit == "pad":
        return ImageOps.pad(image, (width, height), how)
    return ImageOps.fit(image, (width, height), how)


def block(paths: list[str], root: Path, recipe: Recipe) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """The images of some files, (B, C, H, W), and number and reason of those that could not be had, which are zeros."""
    channels = 3 if recipe.colour == "rgb" else 1
    rows = np.zeros((len(paths), *recipe.size, channels), recipe.dtype)
    damaged = []
    with strictly():
        for number, path in enumerate(paths):
            try:
                rows[number] = decode(f"{root}/{path}", recipe).reshape(rows.shape[1:])
            except DamagedError as error:
                damaged.append((number, str(error)))
    return np.ascontiguousarray(np.moveaxis(rows, -1, 1)), damaged


def work(lines: Any, answers: Any) -> None:
    """Decode the blocks that are asked for, until the input ends."""
    job = json.loads(next(lines))
    recipe = Recipe(**{**job["recipe"], "size": tuple(job["recipe"]["size"])})
    root = Path(job["root"])
    with Path(job["file"]).open("r+b", buffering=0) as file:
        for line in lines:
            asked = json.loads(line)
            rows, damaged = block(asked["paths"], root, recipe)
            content = rows.reshape(-1).view(np.uint8).data
            file.seek(job["offset"] + asked["start"] * rows[0].nbytes)
            written = 0
            while written < len(content):
                written += file.write(content[written:])
            answer = {"start": asked["start"], "crc": zlib.crc32(content), "damaged": damaged}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry]  # not what lies around
    try:
        work(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"), sys.stdout)
    except BrokenPipeError:
        sys.exit(1)  # whoever asked is gone
    except OSError as error:
        print(json.dumps({"errno": error.errno, "error": error.strerror or str(error)}), flush=True)
        sys.exit(1)
