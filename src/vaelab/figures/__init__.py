"""Draw pictures of a model, arrays (H, W, 3), uint8, and write them to files.

`save` and `animate` enlarge every pixel to a square of pixels, without resampling.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vaelab.figures.events import View as View
from vaelab.files import replacing

MARGIN = 2  # pixels between images
WIDTH, MOVING_WIDTH = 900, 300  # what a picture, and one that moves, is enlarged to, about, in pixels
THUMBNAIL = 64  # pixels of an image's longer side where many are shown
DOTS = 100  # an inch
SHADES = 32  # of grey in a picture that moves: less than half as many bytes as all 256, and not seen
TITLE, LABEL = 13, 11  # font sizes in points
OTHER_SCRIPTS = ["Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC"]
OTHER_SCRIPTS += ["Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Devanagari"]
LINE = 20  # pixels that a label is high


def tile(images: Tensor, columns: int, *, margin: int = MARGIN) -> np.ndarray:
    """Arrange images (N, C, H, W) in [0, 1] row by row in a grid with white lines between them: (H', W', 3), uint8.

    Images of neither one nor three channels are `drawable` grey.
    """
    images = drawable(images)
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    cell_height, cell_width = height + margin, width + margin
    grid = np.full((rows * cell_height + margin, columns * cell_width + margin, 3), 255, np.uint8)
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels.expand(-1, 3, -1, -1) if channels == 1 else pixels
    for number, image in enumerate(pixels.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = divmod(number, columns)
        top, left = top * cell_height + margin, left * cell_width + margin
        grid[top : top + height, left : left + width] = image
    return grid


def drawable(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) of one or three channels as they are, others as the mean of their channels."""
    return images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)


def thumbnails(images: Tensor) -> Tensor:
    """Scale images (N, C, H, W) to at most `THUMBNAIL` pixels per side: a sprite of 1,000 stays below 8,192 pixels."""
    height, width = images.shape[-2:]
    largest = max(height, width)
    if largest <= THUMBNAIL:
        return images
    size = (max(1, height * THUMBNAIL // largest), max(1, width * THUMBNAIL // largest))
    return interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)


def reconstructions(originals: Tensor, reconstructed: Tensor, *, columns: int = 10) -> np.ndarray:
    """Draw originals (N, C, H, W), at most `columns` per row, each row above their reconstructions."""
    columns = min(columns, len(originals))
    missing = originals.new_ones(-len(originals) % columns, *originals.shape[1:])  # white
    over, under = (torch.split(torch.cat([images, missing]), columns) for images in (originals, reconstructed))
    return tile(torch.cat([row for rows in zip(over, under, strict=True) for row in rows]), columns)


def samples(images: Tensor, columns: int | None = None) -> np.ndarray:
    """Draw images (N, C, H, W) in a grid of `columns`, by default nearly square."""
    return tile(images, columns or square(len(images)))


def interpolations(first: Tensor, path: Tensor, last: Tensor) -> np.ndarray:
    """Draw a row for each pair of images (N, C, H, W): the first, the `path` (steps, N, C, H, W), the last."""
    columns = torch.cat([first[None], path, last[None]])  # (steps + 2, N, C, H, W)
    return tile(columns.transpose(0, 1).flatten(0, 1), len(columns))


def traversals(images: Tensor) -> np.ndarray:
    """Draw a row for each latent dimension of images (dimensions, values, C, H, W)."""
    return tile(images.flatten(0, 1), images.shape[1])


def manifold(images: Tensor) -> np.ndarray:
    """Draw images (rows, columns, C, H, W) of a plane, edge to edge."""
    return tile(images.flatten(0, 1), images.shape[1], margin=0)


def square(n: int) -> int:
    """Return the columns of a nearly square grid of `n` images that is not higher than wide."""
    return math.isqrt(n - 1) + 1


def enlarged(picture: np.ndarray, width: int) -> np.ndarray:
    """Enlarge every pixel to a square of pixels, to a width of about `width`."""
    zoom = max(1, round(width / picture.shape[1]))
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def drawn(
    picture: np.ndarray,
    *,
    title: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    corner: str = "",
    about: int = WIDTH,
) -> np.ndarray:
    """Enlarge a picture and add a title, and labels of rows and columns as far as there is room.

    Args:
        picture: (H, W, 3), uint8.
        title: above it.
        rows: labels on the left, from top to bottom.
        columns: labels above, from left to right.
        corner: the meaning of the columns' labels, to the left of them.
        about: approximate width of the enlarged picture in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    large = enlarged(picture, about)
    height, width = large.shape[:2]
    with _lettering():
        edge, gap = 15, 8
        text_width = _widths()
        left = max(map(text_width, [*rows, corner]), default=0)
        left = left + edge + gap if left else edge
        top = 45 + (LINE if columns else 0)
        total = (max(left + width + edge, text_width(title, TITLE) + 2 * edge), top + height + edge)
        figure = Figure(figsize=(total[0] / DOTS, total[1] / DOTS), dpi=DOTS)
        canvas = FigureCanvasAgg(figure)

        def write(text: str, x: float, y: float, **style: Any) -> None:
            figure.text(x / total[0], 1 - y / total[1], text, va="center", **style)

        write(title, edge, 45 / 2, fontsize=TITLE)
        every = -(-LINE * len(rows) // height)
        for number, label in enumerate(rows):
            if number % every == 0:
                write(label, left - gap, top + height * (number + 0.5) / len(rows), ha="right")
        write(corner, left - gap, top - LINE / 2, ha="right")
        every = -(-(max(map(text_width, columns), default=0) + gap) * len(columns) // width)
        for number, label in enumerate(columns):
            if number % every == 0:
                write(label, left + width * (number + 0.5) / len(columns), top - LINE / 2, ha="center")
        canvas.draw()  # type: ignore[no-untyped-call]
        page = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    bottom = len(page) - edge
    page[bottom - height : bottom, left : left + width] = large  # matplotlib would need 50 MB for it
    return page


def save(picture: np.ndarray, path: Path, **labels: Any) -> Path:
    """Write a picture as a PNG, with the labels of `drawn`."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(drawn(picture, **labels)).save(temporary, format="png", optimize=True)
    return path


def animate(pictures: Sequence[np.ndarray], path: Path, *, titles: Sequence[str], seconds: float = 0.15) -> Path:
    """Write pictures of one size as a looping GIF that shows each for `seconds`."""
    from PIL import Image

    frames = [drawn(picture, title=title, about=MOVING_WIDTH) for picture, title in zip(pictures, titles, strict=True)]
    grey = all((frame == frame[..., :1]).all() for frame in frames)
    if grey:
        levels = [np.rint(frame[..., 0] * ((SHADES - 1) / 255)) for frame in frames]
        pages = [Image.fromarray(np.rint(level * (255 / (SHADES - 1))).astype(np.uint8)) for level in levels]
    else:
        pages = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as temporary:
        pages[0].save(
            temporary, format="gif", save_all=True, append_images=pages[1:], loop=0, duration=round(1000 * seconds)
        )
    return path


def scatter(
    points: np.ndarray,
    labels: np.ndarray | None,
    path: Path,
    *,
    title: str,
    axes: tuple[str, str],
    names: Sequence[str] = (),
) -> Path:
    """Write a PNG of points (N, 2), coloured by labels (N,) if any, with `names` in the legend."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with _lettering():
        figure = Figure(figsize=(WIDTH / DOTS, WIDTH / DOTS), dpi=DOTS, layout="constrained")
        panel = figure.add_subplot(xlabel=axes[0], ylabel=axes[1])
        panel.set_title(title, fontsize=TITLE, loc="left", pad=12)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_aspect("equal", adjustable="datalim")
        size = min(40, max(3, 20_000 / len(points)))  # square points
        style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.8}
        classes = np.unique(labels) if labels is not None else np.empty(0)
        if len(classes) == 0:
            panel.scatter(*points.T, **style)
        elif len(classes) <= 20:
            colours = mpl.color_sequences["tab10" if len(classes) <= 10 else "tab20"]
            for label, colour in zip(classes, colours, strict=False):
                name = names[label] if label < len(names) else str(label)
                panel.scatter(
                    *points[labels == label].T,
                    color=colour,
                    label=name,
                    **style,
                )
            figure.legend(title="label", frameon=False, markerscale=(40 / size) ** 0.5, loc="outside right upper")
        else:
            figure.colorbar(panel.scatter(points[:, 0], points[:, 1], c=labels, **style), label="label")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
    return path


@contextmanager
def _lettering() -> Iterator[None]:
    """Use installed fonts of any script; warn once about letters that none of them has."""
    import matplotlib as mpl
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in there)]
    with mpl.rc_context({"font.family": fonts, "font.size": LABEL}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = [each for each in caught if str(each.message).startswith("Glyph ")]
    for each in caught:
        if each not in missing:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if missing:
        warnings.warn("no installed font has all letters of the labels: missing ones are shown as boxes", stacklevel=3)


def _widths() -> Callable[..., int]:
    """(text, font size) -> its width in pixels."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer = RendererAgg(1, 1, DOTS)  # type: ignore[no-untyped-call]

    def width(text: str, size: float = LABEL) -> int:
        if not text:
            return 0
        measured, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)  # type: ignore[no-untyped-call]
        return math.ceil(float(measured))

    return width
