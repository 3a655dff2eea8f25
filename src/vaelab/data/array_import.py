"""Arrays of .npy, .npz and HDF5 files, copied into a folder of `data=array` a block of rows at a time."""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vaelab.data.array import KINDS, mapped
from vaelab.data.form import MOST_CLASSES
from vaelab.data.image_files import Damaged
from vaelab.data.importing import BLOCK, Damage, drop, finished, progress_bar, written
from vaelab.data.own import SPLIT_FOLDERS, encoded
from vaelab.errors import DataError, did_you_mean

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".hdf")
IMAGES = {"x", "images", "image", "imgs", "img", "data", "rows"}
LABELS = {"y", "labels", "label", "targets", "target"}

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError)

Blocks = Iterator[tuple[np.ndarray, list[tuple[int, str]]]]
"""Rows, with number in the block and reason of those that are damaged."""


class Rows(NamedTuple):
    """The rows of one split: what they are, and how to read them."""

    length: int
    shape: tuple[int, ...]  # of a row
    dtype: str
    blocks: Callable[[int, int], Blocks]  # from a row on, so many at a time
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()  # of the labels 0, 1, ...


def import_array(path: Path, target: Path, key: str | None = None, labels: str | None = None) -> Path:
    """Copy the rows of an .npy, .npz or HDF5 file, and their labels, into the folder `target`.

    Args:
        path: of the file. In one with several arrays these are found by their names, such as images and labels, x_train
            and y_test, or train/images.
        target: of images.npy and, where there are such, labels.npy and splits/.
        key: the name of the array of rows.
        labels: the name of that of labels; for an .npy, another .npy.

    Raises:
        DataError: the file cannot be read, or it is not clear which array is meant.
        RunError, StorageError: the folder cannot be written.
    """
    try:
        arrays = arrays_of(path)
        shapes = {name: rows.shape for name, rows in arrays.items()}
        parts = {"": (path.name, None)} if path.name in arrays else _roles(shapes, path, key, labels)
        splits = {}
        for split, (rows, of_labels) in parts.items():
            found = arrays[rows]
            if found.dtype not in KINDS:
                raise DataError(f"{rows} of {path} holds {found.dtype}: rows are numbers, one of {', '.join(KINDS)}")
            own = mapped(Path(labels), "(N,)") if labels and not of_labels else None
            if of_labels is not None:
                own = np.concatenate([block for block, _ in arrays[of_labels].blocks(0, 2**20)])
            splits[split] = found._replace(labels=own)
        stat = path.stat()
        read = blake2b(json.dumps([str(path.absolute()), stat.st_size, stat.st_mtime_ns, parts]).encode()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{path.absolute()} is not there") from error
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return written(target, read, lambda part: copy(splits, part, str(path)))


def copy(splits: Mapping[str, Rows], part: Path, where: str, damaged: Damaged = "refuse") -> None:
    """Write the rows of all splits into a folder, as `written` wants it; the split "" is one that is to be divided.

    Raises:
        DataError: they do not fit together, are damaged, or are not there.
    """
    first, count = next(iter(splits.values())), sum(rows.length for rows in splits.values())
    for name, rows in splits.items():
        if (rows.shape, rows.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{where}: the split {name} has {rows.dtype} of shape {rows.shape}, and another {first.dtype} of "
                f"{first.shape}"
            )
        if (rows.labels is None) != (first.labels is None):
            raise DataError(f"{where} has labels for some of its splits only")
        if rows.labels is not None and rows.labels.reshape(-1).shape != (rows.length,):
            raise DataError(
                f"{where} has {rows.labels.dtype} of shape {rows.labels.shape} for labels: there are {rows.length} "
                "rows, a label each"
            )
    if not count or not first.shape or 0 in first.shape:
        raise DataError(f"{where} has {count} rows of shape {first.shape}: rows are (N, *event), such as (N, C, H, W)")
    _describe(splits, part, where)
    drop(part, _copy(splits, part, count, where), count, damaged, where, exact=False)


def _describe(splits: Mapping[str, Rows], part: Path, where: str) -> None:
    """Write labels.npy, names.txt and splits/."""
    first = next(iter(splits.values()))
    if first.labels is not None:
        labels = np.concatenate([rows.labels.reshape(-1) for rows in splits.values() if rows.labels is not None])
        encoded(labels, where, MOST_CLASSES)  # says what is wrong with them
        np.save(part / "labels.npy", labels)
        if first.names:
            (part / "names.txt").write_text("".join(f"{name}\n" for name in first.names), encoding="utf-8")
    start = 0
    for split, rows in splits.items():
        if split:
            (part / "splits").mkdir(exist_ok=True)
            np.save(part / "splits" / f"{split}.npy", np.arange(start, start + rows.length))
        start += rows.length


def _copy(splits: Mapping[str, Rows], part: Path, count: int, where: str) -> list[Damage]:
    """Write rows.npy from where an earlier call stopped; the damaged rows."""
    first = next(iter(splits.values()))
    size = int(np.prod(first.shape)) * np.dtype(first.dtype).itemsize
    file, progress = part / "rows.npy", part / "done.txt"
    if not file.exists() or not progress.exists():
        np.lib.format.open_memmap(file, "w+", first.dtype, (count, *first.shape)).flush()  # a sparse file
        progress.write_text("")
    offset = file.stat().st_size - count * size
    done, at, broken = finished(file, progress, offset, size), 0, list[Damage]()
    while at in done:
        broken += [(row, path, reason) for row, path, reason in done[at]["damaged"]]
        at += done[at]["count"]
    with (
        file.open("r+b", buffering=0) as rows_file,
        progress.open("a", encoding="utf-8") as log,
        progress_bar("importing", count, at) as advance,
    ):
        start = 0
        for rows in splits.values():
            inside, start = max(0, at - start), start + rows.length
            if inside >= rows.length:
                continue
            for values, unread in _read(rows.blocks(inside, max(1, BLOCK // size)), where):
                content = np.ascontiguousarray(values, first.dtype).reshape(-1).view(np.uint8).data
                rows_file.seek(offset + at * size)
                left = content
                while left:
                    left = left[rows_file.write(left) :]
                lacking = [(at + number, f"row {at + number}", reason) for number, reason in unread]
                line = {"start": at, "count": len(values), "crc": zlib.crc32(content), "damaged": lacking}
                log.write(json.dumps(line) + "\n")
                log.flush()
                broken += lacking
                at += len(values)
                advance(len(values))
    return broken


def _read(blocks: Blocks, where: str) -> Blocks:
    try:
        yield from blocks
    except UNREADABLE as error:
        raise DataError(f"{where} cannot be read: {' '.join(str(error).split())}") from error


def _roles(
    shapes: Mapping[str, tuple[int, ...]], path: Path, key: str | None, labels: str | None
) -> dict[str, tuple[str, str | None]]:
    """For each split, "" where there are none, the names of the rows and of the labels."""
    for name in filter(None, (key, labels)):
        if name not in shapes:
            raise DataError(f"{path} has no array {name}{did_you_mean(name, shapes)}")
    if key is not None:
        return {"": (key, labels)}
    rows, targets = dict[str, str](), dict[str, str]()
    for name, shape in shapes.items():
        words = set(re.split(r"[\W_]+", name.lower()))
        split = next((split for split, known in SPLIT_FOLDERS.items() if words & {*known}), "")
        if len(shape) > 1 and words & IMAGES:
            rows.setdefault(split, name)
        elif words & LABELS:
            targets.setdefault(split, name)
    several = [name for name, shape in shapes.items() if len(shape) > 1]
    if not rows and len(several) == 1:
        rows = {"": several[0]}
    if "train" in rows:
        rows.pop("", None)
    if not rows or ("train" not in rows and set(rows) != {""}):
        listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:20])
        raise DataError(f"{path}: which array holds the rows is not clear: --key NAME, of {listed or 'none'}")
    return {split: (name, labels or targets.get(split)) for split, name in rows.items()}


def arrays_of(path: Path) -> dict[str, Rows]:
    """The arrays of a file; no values are read."""
    if path.suffix.lower() == ".npy":
        array = mapped(path, "(N, *event)")

        def rows_of_npy(start: int, size: int) -> Blocks:
            for at in range(start, len(array), size):
                yield array[at : at + size], []

        return {path.name: Rows(len(array), array.shape[1:], array.dtype.name, rows_of_npy)}
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): rows for name in members if (rows := _member(path, name)) is not None}
    return _hdf5(path)


def _member(path: Path, member: str) -> Rows | None:
    """An array of an .npz, which is unpacked a block at a time; None where it is of objects or has no rows."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        shape, fortran, dtype = _header(file)
    if dtype.hasobject or not shape:
        return None
    size = int(np.prod(shape[1:])) * dtype.itemsize

    def blocks(start: int, of_block: int) -> Blocks:
        if fortran and len(shape) > 1:
            raise ValueError(f"{member} is in Fortran's order: save numpy.ascontiguousarray of it")
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            _header(file)
            for at in range(0, shape[0], of_block):
                count = min(of_block, shape[0] - at)
                content = file.read(count * size)
                if len(content) < count * size:
                    raise EOFError(f"{member} ends after {at} of {shape[0]} rows")
                if at + count > start:
                    values = np.frombuffer(content, dtype).reshape(count, *shape[1:])
                    yield values[max(0, start - at) :], []

    return Rows(shape[0], shape[1:], dtype.name, blocks)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _hdf5(path: Path) -> dict[str, Rows]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f'{path} needs the package h5py: pip install "vaelab[hdf5]"') from error

    def rows_of(name: str, shape: tuple[int, ...], kind: str) -> Rows:
        def blocks(start: int, size: int) -> Blocks:
            with h5py.File(path, "r") as file:
                values = file[name].asstr() if kind == "object" else file[name]
                for at in range(start, shape[0], size):
                    block = values[at : at + size]
                    yield block.astype(str) if kind == "object" else block, []

        return Rows(shape[0], shape[1:], kind, blocks)

    try:
        with h5py.File(path, "r") as file:
            arrays = dict[str, Any]()
            file.visititems(lambda name, item: arrays.update({name: item}) if isinstance(item, h5py.Dataset) else None)
            return {name: rows_of(name, item.shape, item.dtype.name) for name, item in arrays.items() if item.shape}
    except OSError as error:
        if not path.exists():
            raise DataError(f"{path.absolute()} is not there") from error
        raise DataError(f"{path} is not an HDF5 file: {' '.join(str(error).split())}") from error
