"""Draw histograms and heat maps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.files import replacing

DOTS = 100  # an inch
TITLE, LABEL = 13, 11  # font sizes in points


def histograms(values: Mapping[str, np.ndarray], path: Path, *, title: str, axis: str) -> Path:
    """Write a PNG of overlaid histograms of several sets of numbers, each normalized by its size.

    Bins are equal between the 0.1 and the 99.9 percentile of all; what is beyond counts in the outermost.
    """
    low, high = np.percentile(np.concatenate([*values.values()]), [0.1, 99.9])
    high = high if high > low else low + 1
    with _panel(path, (9, 4.5), title) as panel:
        for name, of_set in values.items():
            clipped = np.clip(of_set, low, high)
            shares = np.full(len(clipped), 1 / len(clipped))
            panel.hist(clipped, np.linspace(low, high, 81), weights=shares, alpha=0.55, label=f"{name} ({len(of_set)})")
        panel.set_xlabel(axis)
        panel.set_ylabel("share of items")
        panel.legend(frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    return path


def heat_map(
    values: np.ndarray, path: Path, *, title: str, rows: Sequence[str], columns: Sequence[str], unit: str
) -> Path:
    """Write a PNG of numbers (rows, columns) as shades, with the numbers if there are up to 400."""
    size = (max(4.5, 2.4 + 0.62 * len(columns)), max(2.6, 1.4 + 0.36 * len(rows)))
    with _panel(path, size, title) as panel:
        shown = panel.imshow(values, cmap="Greys", aspect="auto", vmin=0)
        panel.set_xticks(range(len(columns)), columns)
        panel.set_yticks(range(len(rows)), rows)
        middle = values.max() / 2
        if values.size <= 400:
            for (i, j), value in np.ndenumerate(values):
                style = {"color": "white" if value > middle else "black", "fontsize": 9}
                panel.text(j, i, f"{value:.2f}", ha="center", va="center", **style)
        panel.figure.colorbar(shown, label=unit)
    return path


@contextmanager
def _panel(path: Path, inches: tuple[float, float], title: str) -> Iterator[Any]:
    """Give axes to draw on, and write them to a file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": LABEL}):
        figure = Figure(figsize=inches, dpi=DOTS, layout="constrained")
        panel = figure.add_subplot()
        panel.set_title(title, fontsize=TITLE, loc="left", pad=12)
        yield panel
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
