"""A folder of image files, decoded once into a mapped array: by all cores, whole or not at all, resumable."""

import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from vaelab.data import decoding
from vaelab.data.decoding import Recipe
from vaelab.data.image_files import NAMED, Damaged, Tree, files
from vaelab.errors import DataError, RunError, unwritten

BLOCK = 2**24  # bytes of values that a process decodes at once, about
MOST_OF_BLOCK = 512  # images
LOCK = ".lock"
SCRATCH = "scratch"  # a folder for what is needed while importing


Damage = tuple[int, str, str]  # row, path, reason


def import_folder(
    root: Path, target: Path, recipe: Recipe, damaged: Damaged, key: str, tree: Tree | None = None
) -> Path:
    """Decode the image files below `root` into the folder `target`, which is then data of `data=array`.

    It has images.npy (N, C, H, W), files.txt with the path of each row and, where the folders say so, labels.npy,
    names.txt and splits/. It is written beside `target` and renamed; after a kill the next call goes on.

    Raises:
        DataError: damaged files, which are named, or none that is not.
        RunError, StorageError: the folder cannot be written.
    """

    def fill(part: Path) -> None:
        count = _list(root, part, tree or Tree.of(root))
        drop(part, _decode(root, part, count, recipe), count, damaged, str(root), exact=recipe.exact)

    return written(target, key, fill)


def written(target: Path, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder `target`, which `fill` has written under another name; what it has left of an earlier call is there.

    Args:
        target: a folder that does not exist or is empty; returned unchanged if it already has its array.
        key: of what `fill` writes; what an earlier call has left under another key is removed.
        fill: writes rows.npy and done.txt, and what belongs to them.

    Raises:
        DataError: by `fill`; then nothing is left.
        RunError, StorageError: the folder cannot be written.
    """
    if (target / "images.npy").exists():
        return target
    part = target.with_name(f"{target.name}.part")
    made = [path for path in part.parents if not path.exists()]
    try:
        part.mkdir(parents=True, exist_ok=True)
        with alone(part):
            if (target / "images.npy").exists():  # another process was faster
                return target
            _require_same(part, key)
            fill(part)
            _finish(part)
            part.replace(target)
    except DataError:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            for path in made:  # innermost first; what has something in it stays
                path.rmdir()
        raise
    except OSError as error:
        raise unwritten(target, error) from error
    return target


def _require_same(part: Path, key: str) -> None:
    """Begin anew where an earlier call read something else."""
    kept = part / "key.txt"
    if not kept.exists() or kept.read_text() != key:
        for path in part.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        kept.write_text(key)


@contextmanager
def alone(part: Path) -> Iterator[None]:
    """Wait until no other process decodes into the same folder."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (part / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _list(root: Path, part: Path, tree: Tree) -> int:
    """Write files.txt, labels.npy, names.txt and splits/; the number of images."""
    labels, rows = array("q"), {split: array("q") for split in tree.splits}
    count = 0
    with (part / "files.txt").open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as listing:
        for found in files(root):
            place = tree.place(found.path)
            if place is None:
                continue
            listing.write(json.dumps(found.path) + "\n")
            rows[place[0]].append(count)
            labels.append(place[1])
            count += 1
    if tree.names:
        np.save(part / "labels.npy", np.frombuffer(labels, np.int64))
        (part / "names.txt").write_text("".join(f"{name}\n" for name in tree.names), encoding="utf-8")
    if "" not in rows:
        (part / "splits").mkdir(exist_ok=True)
        for split, numbers in rows.items():
            np.save(part / "splits" / f"{split}.npy", np.frombuffer(numbers, np.int64))
    return count


def _paths(part: Path) -> Iterator[str]:
    with (part / "files.txt").open(encoding="utf-8", errors="surrogateescape") as listing:
        for line in listing:
            yield json.loads(line)


def _decode(root: Path, part: Path, count: int, recipe: Recipe) -> list[Damage]:
    """Have all cores write the rows of images.npy; row, path and reason of those that cannot be had."""
    shape = (3 if recipe.colour == "rgb" else 1, *recipe.size)
    size = int(np.prod(shape)) * np.dtype(recipe.dtype).itemsize
    file, progress = part / "rows.npy", part / "done.txt"
    if not file.exists() or not progress.exists():
        np.lib.format.open_memmap(file, "w+", recipe.dtype, (count, *shape)).flush()  # a sparse file
        progress.write_text("")
    offset = file.stat().st_size - count * size
    of_block = max(1, min(MOST_OF_BLOCK, BLOCK // size))
    done = finished(file, progress, offset, size)
    broken = [(row, *rest) for block in done.values() for row, *rest in block["damaged"]]
    blocks = _blocks(part, of_block, done)
    job = {"recipe": recipe._asdict(), "root": str(root.absolute()), "file": str(file), "offset": offset}
    broken += _by_all_cores(job, blocks, progress, count, sum(min(of_block, count - start) for start in done))
    return sorted(broken)


def _blocks(part: Path, of_block: int, done: dict[int, Any]) -> Iterator[dict[str, Any]]:
    paths, start = _paths(part), 0
    while own := list(islice(paths, of_block)):
        if start not in done:
            yield {"start": start, "paths": own}
        start += len(own)


def finished(file: Path, progress: Path, offset: int, size: int) -> dict[int, dict[str, Any]]:
    """The blocks that an earlier call has finished, by their first row: their `count` and what was `damaged`."""
    found: dict[int, dict[str, Any]] = {}
    with file.open("rb") as rows:
        for line in progress.read_text(encoding="utf-8").splitlines():
            try:
                block = json.loads(line)
                rows.seek(offset + block["start"] * size)
                if zlib.crc32(rows.read(block["count"] * size)) == block["crc"]:
                    found[block["start"]] = {"count": block["count"], "damaged": block["damaged"]}
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written
    return found


def _by_all_cores(
    job: dict[str, Any], blocks: Iterator[dict[str, Any]], progress: Path, count: int, before: int
) -> list[Damage]:
    broken: list[Damage] = []
    failures: list[BaseException] = []
    lock = threading.Lock()
    with progress_bar("decoding", count, before) as advance, progress.open("a", encoding="utf-8") as log:

        def feed(worker: "subprocess.Popen[bytes]") -> None:
            assert worker.stdin is not None
            assert worker.stdout is not None
            try:
                _tell(worker.stdin, job)
                while not failures:
                    with lock:
                        block = next(blocks, None)
                    if block is None:
                        break
                    _tell(worker.stdin, block)
                    answer = json.loads(worker.stdout.readline() or "{}")
                    if "crc" not in answer:
                        raise _failure(answer)
                    damaged = [(block["start"] + n, block["paths"][n], reason) for n, reason in answer["damaged"]]
                    line = {"start": block["start"], "count": len(block["paths"]), "crc": answer["crc"]}
                    with lock:
                        broken.extend(damaged)
                        log.write(json.dumps({**line, "damaged": damaged}) + "\n")
                        log.flush()
                        advance(len(block["paths"]))
            except BaseException as error:
                failures.append(error)
            finally:
                worker.stdin.close()

        with _workers() as workers:
            threads = [threading.Thread(target=feed, args=(worker,), daemon=True) for worker in workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if failures:
        raise failures[0]
    return broken


@contextmanager
def progress_bar(what: str, count: int, before: int) -> Iterator[Callable[[int], None]]:
    """Show how far something is, on a terminal; what is yielded takes how many rows were done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=count, completed=before)
        yield lambda rows: bar.advance(task, rows)


@contextmanager
def _workers() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """A process a core, which ends when its input does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    command = [sys.executable, "-I", decoding.__file__]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = [subprocess.Popen(command, **pipes) for _ in range(cores)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()


def _tell(pipe: IO[bytes], content: dict[str, Any]) -> None:
    pipe.write((json.dumps(content) + "\n").encode())
    pipe.flush()


def _failure(answer: dict[str, Any]) -> Exception:
    if "errno" in answer:
        return OSError(answer["errno"], answer["error"])
    return RunError("a process that decodes images has ended; what was done is kept: the same command goes on")


def drop(part: Path, broken: Sequence[Damage], count: int, damaged: Damaged, where: str, *, exact: bool) -> None:
    """Leave what could not be read out of everything.

    Raises:
        DataError: it is to be refused, or nothing is left.
    """
    if not broken:
        return
    if damaged == "refuse" or len(broken) == count:
        named = "; ".join(f"{path} {reason}" for _, path, reason in broken[:NAMED])
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        sizes = exact and any(reason.startswith("is ") and ", and the first" in reason for _, _, reason in broken)
        hint = (
            "data.size=64 (--size 64) scales all to one size"
            if sizes
            else "data.damaged=skip (--damaged skip) leaves them out"
        )
        files = f"{len(broken)} file{'s' * (len(broken) > 1)}"
        raise DataError(f"{files} in {where} cannot be taken: {named}{more}: {hint}")
    rows = np.load(part / "rows.npy", mmap_mode="r")
    kept = np.ones(len(rows), bool)
    kept[[row for row, _, _ in broken]] = False
    numbers = np.flatnonzero(kept)
    good = np.lib.format.open_memmap(part / "kept.npy", "w+", rows.dtype, (len(numbers), *rows.shape[1:]))
    for start in range(0, len(numbers), MOST_OF_BLOCK):
        good[start : start + MOST_OF_BLOCK] = rows[numbers[start : start + MOST_OF_BLOCK]]
    good.flush()
    (part / "kept.npy").replace(part / "rows.npy")
    if (part / "labels.npy").exists():
        np.save(part / "labels.npy", np.load(part / "labels.npy")[kept])
    new = np.cumsum(kept) - 1
    for path in (part / "splits").glob("*.npy"):
        own = np.load(path)
        np.save(path, new[own[kept[own]]])
    if not (part / "files.txt").exists():
        return
    with (part / "kept.txt").open("w", encoding="utf-8", errors="surrogateescape") as listing:
        listing.writelines(json.dumps(path) + "\n" for path, keep in zip(_paths(part), kept, strict=True) if keep)
    (part / "kept.txt").replace(part / "files.txt")


def _finish(part: Path) -> None:
    """Have everything on the disk under its name, the array last."""
    for name in ("done.txt", "key.txt"):
        (part / name).unlink()
    shutil.rmtree(part / SCRATCH, ignore_errors=True)
    for path in [*part.glob("*.npy"), *part.glob("*.txt"), *part.glob("splits/*.npy")]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    (part / "rows.npy").replace(part / "images.npy")
    (part / LOCK).unlink(missing_ok=True)
