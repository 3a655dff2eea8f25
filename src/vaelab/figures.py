"""Pictures of a model, as arrays and as files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.autoencoder import Autoencoder

MARGIN = 2  # pixels between images
REACH = 2.5  # standard deviations of the latents, to either side


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1], row by row in a grid with white lines between them: (H', W', 3), uint8."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    cell_height, cell_width = height + MARGIN, width + MARGIN
    grid = np.full((rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3), 255, np.uint8)
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels.expand(-1, 3, -1, -1) if channels == 1 else pixels
    for number, image in enumerate(pixels.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = divmod(number, columns)
        top, left = top * cell_height + MARGIN, left * cell_width + MARGIN
        grid[top : top + height, left : left + width] = image
    return grid


def reconstructions(originals: Tensor, reconstructed: Tensor) -> np.ndarray:
    """A row of originals over a row of their reconstructions."""
    return tile(torch.cat([originals, reconstructed]), columns=len(originals))


def traversals(model: Autoencoder, latents: Tensor, *, rows: int = 10, columns: int = 11) -> np.ndarray:
    """A row for each of the dimensions whose latents (N, Z) vary most, in that order.

    In its row a dimension goes from its mean over the latents, less 2.5 of its standard deviations, to as much above;
    the others stay where the first of the latents has them.
    """
    deviation, mean = torch.std_mean(latents, dim=0)  # (Z,)
    dimensions = deviation.argsort(descending=True, stable=True)[:rows]
    way = torch.linspace(-REACH, REACH, columns, device=latents.device, dtype=latents.dtype)
    z = latents[0].repeat(len(dimensions), columns, 1)  # (rows, columns, Z)
    for row, dimension in enumerate(dimensions.tolist()):
        z[row, :, dimension] = mean[dimension] + way * deviation[dimension]
    return tile(model.decode(z.flatten(0, 1)).mean, columns)


def manifold(model: Autoencoder, latents: Tensor, *, side: int = 20) -> np.ndarray:
    """The plane of two-dimensional latents (N, 2), 2.5 standard deviations around their mean; z_1 to the right, z_2 up.

    Raises:
        ValueError: the latents have another dimension.
    """
    if latents.shape[1:] != (2,):
        raise ValueError(f"a plane shows two latent dimensions, and this model has {latents.shape[1]}")
    deviation, mean = torch.std_mean(latents, dim=0)
    way = torch.linspace(-REACH, REACH, side, device=latents.device, dtype=latents.dtype)
    up, right = torch.meshgrid(way.flip(0), way, indexing="ij")
    return tile(model.decode(mean + torch.stack([right, up], -1).flatten(0, 1) * deviation).mean, side)


def enlarged(picture: np.ndarray, width: int) -> np.ndarray:
    """The same picture with every pixel a square of them, about `width` wide."""
    zoom = max(1, round(width / picture.shape[1]))
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def save(picture: np.ndarray, path: Path, *, title: str, rows: tuple[str, ...] = ()) -> Path:
    """Write a picture (H, W, 3) as a PNG with a title and, if given, a label a row of it.

    Every pixel becomes the same whole number of pixels: nothing is resampled.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    large = enlarged(picture, width=900)
    height, width = large.shape[:2]
    dots = 100
    left, top, edge = (150 if rows else 15), 45, 15
    total_width, total_height = left + width + edge, top + height + edge
    with mpl.rc_context({"font.size": 13}):
        figure = Figure(figsize=(total_width / dots, total_height / dots), dpi=dots)
        figure.figimage(large, xo=left, yo=edge)
        figure.text(left / total_width, 1 - top / 2 / total_height, title, va="center")
        for number, label in enumerate(rows):
            centre = edge + height * (1 - (number + 0.5) / len(rows))
            figure.text((left - 12) / total_width, centre / total_height, label, ha="right", va="center")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    return path
