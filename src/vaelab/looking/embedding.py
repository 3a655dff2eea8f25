"""Codes of images as tables, and as points in two dimensions."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.errors import RunError
from vaelab.files import replacing

Points = tuple[np.ndarray, tuple[str, str]]  # (N, 2), and what the axes are


def principal_components(z: np.ndarray) -> Points:
    """Codes (N, Z) in two dimensions, and what these are: themselves, or the two in which they vary most.

    Raises:
        RunError: they are fewer than 3.
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
    """The same by UMAP (McInnes et al. 2018), which keeps neighbours together: 15 of each, at its defaults.

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


def save_npz(path: Path, z: np.ndarray, names: Sequence[str], labels: np.ndarray | None) -> None:
    """`z`, `names` and, where there are any, `labels`, as arrays."""
    own_labels = {} if labels is None else {"labels": labels}
    with replacing(path) as temporary, temporary.open("wb") as file:  # given a name, numpy would add a suffix to it
        np.savez(file, allow_pickle=False, z=z, names=np.array(names), **own_labels)


def save_csv(path: Path, z: np.ndarray, names: Sequence[str], labels: Sequence[str] | None) -> None:
    """A line an image: its name, the name of its label where there are any, and z0, z1, ..."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        label = [] if labels is None else ["label"]
        table.writerow(["image", *label, *(f"z{j}" for j in range(z.shape[1]))])
        for number, (name, code) in enumerate(zip(names, z, strict=True)):
            own_label = [] if labels is None else [labels[number]]
            table.writerow([name, *own_label, *(str(value) for value in code)])  # the shortest that reads as the same


def _require(images: int, least: int, what: str) -> None:
    if images < least:
        raise RunError(
            f"{what} needs at least {least} images, here are {images}; --output codes.csv writes a table alone"
        )
