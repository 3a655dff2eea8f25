"""Codes of images as tables, and as points in two dimensions: the command `embed`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaelab import figures
from vaelab.errors import RunError
from vaelab.files import replacing
from vaelab.looking.chosen import choose, labels_for
from vaelab.looking.codes import codes_of, numbers_of_codes
from vaelab.looking.load import opened
from vaelab.looking.outputs import Result, Writers, seeded, targets_of, write

if TYPE_CHECKING:
    from vaelab.runs.run import Run

Points = tuple[np.ndarray, tuple[str, str]]  # (N, 2), and what the axes are


def embed(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    images: str | None = None,
    umap: bool = False,
    label: int | str | None = None,
    invert: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Write the codes of images as tables (.npz, .csv) and draw them in two dimensions (.png).

    The .npz holds `z` (N, Z), float32, the means of q(z|x) or, `stochastic`, samples; `names` (N,), which are numbers
    in the split or file names; and `labels` (N,) where there are any. Of a model with codes it also holds their
    numbers, `codes` (N, H, W) or (N, H, W, codes of a place), int64; where they are on several grids, `codes_0`,
    `codes_1`, ..., the smallest first. The .csv has the same in columns, the numbers of codes as code0, code1, ... The
    picture shows the first two principal components or, `umap`, a UMAP (McInnes et al. 2018).

    Further arguments as in `reconstruct`; without `images` they are all of the split.
    """
    targets = targets_of("embed", run, [".npz", ".csv", ".png"], output, force)
    trained = opened(run, trust=trust)
    chosen = choose(trained.experiment.data, own, split, images, invert, None)
    told = labels_for(trained.model, len(chosen.rows), chosen.labels, label, trained.experiment.data.names)
    with seeded(trained, seed):
        z = codes_of(trained.model, chosen.rows, told, stochastic=stochastic).numpy()
        codes = numbers_of_codes(trained.model, chosen.rows, told)
    labels = chosen.labels.numpy() if chosen.labels is not None else None
    classes = trained.experiment.data.names
    named = [classes[label] if label < len(classes) else str(label) for label in labels] if labels is not None else None
    title = f"{trained.experiment.name}: codes of {len(z)} {chosen.what}"
    notes = list(chosen.notes)
    if any(path.suffix.lower() == ".png" for path in targets):  # before anything is written, since it may fail
        map_seed = trained.experiment.seed if seed is None else seed
        try:
            points, axes = umap_points(z, map_seed) if umap else principal_components(z)
        except RunError as error:
            if output or umap:
                raise
            notes.append(f"no picture: {error}")
            targets = [path for path in targets if path.suffix.lower() != ".png"]
    writers: Writers = {
        ".npz": lambda path: save_npz(path, z, chosen.names, labels, codes),
        ".csv": lambda path: save_csv(path, z, chosen.names, named, codes),
        ".png": lambda path: figures.scatter(points, labels, path, title=title, axes=axes, names=classes),
    }
    return write(targets, writers, notes)


def principal_components(z: np.ndarray) -> Points:
    """Project codes (N, Z) to two dimensions: as they are, or the first two principal components.

    Raises:
        RunError: there are fewer than 3.
    """
    _require(len(z), 3, "a picture of codes")
    if z.shape[1] == 1:
        return np.column_stack([z[:, 0], z[:, 0].argsort().argsort() / len(z)]), ("z0", "share of images below")
    if z.shape[1] == 2:
        return z, ("z0", "z1")
    found = projection(z)
    return found.points(z), found.axes


class Projection(NamedTuple):
    """A plane through codes: the point of z is directions (z - centre).

    Shapes: `centre` (Z,), `directions` (2, Z), orthonormal.
    """

    centre: np.ndarray
    directions: np.ndarray
    axes: tuple[str, str]

    def points(self, z: np.ndarray) -> np.ndarray:
        """Codes (N, Z) in the plane, (N, 2)."""
        points: np.ndarray = (z - self.centre) @ self.directions.T
        return points


def projection(z: np.ndarray) -> Projection:
    """The plane of codes (N, Z), Z > 1: that of the dimensions themselves, or the one in which they vary most."""
    if z.shape[1] == 2:
        return Projection(np.zeros(2, z.dtype), np.eye(2, dtype=z.dtype), ("z0", "z1"))
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, svd_solver="full")
    with np.errstate(invalid="ignore"):  # codes that do not vary at all
        pca.fit(z)
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    first, second = (f"principal component {n} ({share:.0%} of the variance)" for n, share in enumerate(shares, 1))
    return Projection(pca.mean_, pca.components_, (first, second))


def umap_points(z: np.ndarray, seed: int) -> Points:
    """Project codes to two dimensions by UMAP (McInnes et al. 2018), with its default of 15 neighbours.

    Raises:
        RunError: umap-learn is not installed, or there are fewer than 16 codes.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise RunError('--umap needs the package umap-learn: pip install "vaelab[umap]"') from error
    _require(len(z), 16, "a UMAP")
    points = UMAP(random_state=seed % 2**32, n_jobs=1).fit_transform(z)
    return points, ("UMAP 1", "UMAP 2")


def save_npz(
    path: Path, z: np.ndarray, names: Sequence[str], labels: np.ndarray | None, codes: Sequence[np.ndarray] = ()
) -> None:
    """Write `z`, `names` and, if any, `labels` and `codes` as arrays; with several grids `codes_0`, `codes_1`, ..."""
    own_labels = {} if labels is None else {"labels": labels}
    own_labels |= {"codes" if len(codes) == 1 else f"codes_{number}": grid for number, grid in enumerate(codes)}
    with replacing(path) as temporary, temporary.open("wb") as file:  # given a name, numpy would add a suffix to it
        np.savez(file, allow_pickle=False, z=z, names=np.array(names), **own_labels)


def save_csv(
    path: Path, z: np.ndarray, names: Sequence[str], labels: Sequence[str] | None, codes: Sequence[np.ndarray] = ()
) -> None:
    """Write a line for each image: its name, its label's name if known, z0, z1, ..., and the numbers of its codes."""
    columns = {"image": names} if labels is None else {"image": names, "label": labels}
    numbers = np.hstack([np.empty((len(z), 0), np.int64), *(grid.reshape(len(z), -1) for grid in codes)])  # (N, L)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        header = [*columns, *(f"z{j}" for j in range(z.shape[1])), *(f"code{j}" for j in range(numbers.shape[1]))]
        table.writerow(header)
        for *known, latent, code in zip(*columns.values(), z, numbers, strict=True):
            table.writerow([*known, *map(str, latent), *code])  # the shortest text that reads as the same number


def _require(images: int, least: int, what: str) -> None:
    if images < least:
        raise RunError(
            f"{what} needs at least {least} images, and there are {images}; --output codes.csv writes only a table"
        )
