"""The files that a command on a run writes, and the seed of what it draws."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from vaelab.errors import RunError, unwritten
from vaelab.files import replacing
from vaelab.looking.load import Trained
from vaelab.runs.locate import folder_of
from vaelab.seeding import derive_seed

if TYPE_CHECKING:
    from vaelab.runs.run import Run

Writers = Mapping[str, Callable[[Path], object]]


class Result(NamedTuple):
    """The files written, and notes for the user."""

    paths: list[Path]
    notes: list[str]


@contextmanager
def seeded(trained: Trained, seed: int | None) -> Iterator[None]:
    """Seed random numbers as the figures of training do; the caller's generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(trained.experiment.seed if seed is None else seed, "figures"))
        yield


def targets_of(
    verb: str,
    run: "Run | str | Path",
    suffixes: Sequence[str],
    output: Sequence[Path],
    force: bool,
    default: Sequence[str] | None = None,
) -> list[Path]:
    """Return the files to write, checked before anything is computed.

    Raises:
        RunError: one has an unknown suffix, or exists already.
    """
    folder = folder_of(run)
    targets = [Path(path) for path in output]
    targets = targets or [folder.figures / f"{verb}{suffix}" for suffix in default or suffixes]
    mistakes = []
    for path in targets:
        if path.suffix.lower() not in suffixes:
            mistakes.append(f"--output {path}: {verb} writes {', '.join(suffixes)}, selected by the suffix")
        elif path.is_dir():
            mistakes.append(f"--output {path} is a folder: give the name of a file")
        elif path.exists() and not force:
            mistakes.append(f"{path} exists: --force replaces it, --output writes elsewhere")
    if mistakes:
        raise RunError("\n".join(mistakes))
    return targets


def write(targets: Sequence[Path], writers: Writers, notes: Sequence[str]) -> Result:
    """Write each target in the format of its suffix, atomically."""
    for path in targets:
        try:
            writers[path.suffix.lower()](path)
        except OSError as error:
            raise unwritten(path, error) from error
    return Result(list(targets), list(notes))


def save_pairs(
    path: Path, columns: Sequence[str], names: Sequence[str], pairs: Sequence[Sequence[Sequence[float]]]
) -> None:
    """Two lines a row of a table, the original and its reconstruction: its name, which one it is, and its columns."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "row", *columns])
        for name, pair in zip(names, pairs, strict=True):
            for kind, values in zip(("original", "reconstructed"), pair, strict=True):
                writer.writerow([name, kind, *(f"{value:.6g}" for value in values)])
