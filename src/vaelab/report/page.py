"""report.html: one page with its data, pictures, style and script in it, which fetches nothing."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from vaelab.pages import embedded_json, source_hash
from vaelab.report.report import NOISE, Group, Report, as_text, number, order, spread
from vaelab.report.runs import STATES, ReportedRun, own_file

FIGURES = ("samples", "reconstructions")
SHOWN = 48  # groups of runs at most whose pictures are in the page, which makes a few megabytes
COLUMNS = 12  # of them side by side
WIDE = 520  # pixels, about
TITLE = 45  # pixels above a picture that `figures.save` writes its title in
MAX_PIXELS = 4096 * 4096  # of a picture that is read
MAX_BYTES = 8 << 20


@dataclass(frozen=True)
class Picture:
    """A figure of one run, as the page has it."""

    run: ReportedRun
    caption: str
    source: str


@dataclass(frozen=True)
class Sheet:
    """Pictures laid out by the parameters: a row for each of `rows`, or else one after the other."""

    figure: str
    corner: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Picture | None]]
    left_out: str


def rendered(report: Report, *, title: str) -> str:
    """The page. What comes from run folders is in it as text, escaped."""
    here = Path(__file__).parent
    style, script = ((here / f"report.{kind}").read_text() for kind in ("css", "js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((here / "report.html.jinja").read_text())
    return template.render(
        title=title,
        made=f"{datetime.now():%Y-%m-%d %H:%M}",
        report=report,
        states=STATES,
        rows=[_row(report, run) for run in report.runs],
        groups=[_group(report, number, group) for number, group in enumerate(report.groups)],
        noise=NOISE if any(map(any, report.marks.values())) else "",
        seeds=any(len(group.counted) > 1 for group in report.groups),
        sheets=[sheet for figure in FIGURES if (sheet := _sheet(report, figure)) is not None],
        data=Markup(embedded_json(_data(report))),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {source_hash(style)}; script-src {source_hash(script)}",
    )


def _data(report: Report) -> dict[str, Any]:
    """What the script draws from. A run's group and values are numbers of lists that come with it."""
    of_run = {run.folder: number for number, group in enumerate(report.groups) for run in group.runs}
    counted = {run.folder for group in report.groups for run in group.counted}
    values = [sorted({group.values[i] for group in report.groups}, key=order) for i in range(len(report.parameters))]
    return {
        "parameters": [
            {
                "name": name,
                "short": report.short_names[name],
                "numeric": all(isinstance(value, int | float) and math.isfinite(value) for value in values[i]),
                "values": [value if isinstance(value, int) else as_text(value) for value in values[i]],
            }
            for i, name in enumerate(report.parameters)
        ],
        "metrics": [
            {"name": name, "unit": report.units[name], "decimals": report.decimals[name]} for name in report.metrics
        ],
        "groups": [
            [values[i].index(value) for i, value in enumerate(group.values)] for group in report.groups
        ],
        "runs": [
            {
                "name": run.name,
                "seed": run.seed,
                "group": of_run.get(run.folder),
                "counted": run.folder in counted,
                "metrics": [_finite(run.metrics.get(name)) for name in report.metrics],
            }
            for run in report.runs
        ],
    }  # fmt: skip


def _row(report: Report, run: ReportedRun) -> dict[str, Any]:
    metrics = [(name, run.metrics.get(name)) for name in report.metrics]
    return {
        "run": run,
        "parameters": [as_text(value) for value in report.values(run)],
        "metrics": ["" if value is None else _minus(number(value, report.decimals[name])) for name, value in metrics],
        "exact": ["" if value is None else repr(value) for _, value in metrics],
    }


def _group(report: Report, number: int, group: Group) -> dict[str, Any]:
    return {
        "parameters": [as_text(value) for value in group.values],
        "n": len(group.counted),
        "metrics": [
            (
                _minus(spread(values, report.decimals[name])),
                report.marks[name][number],
                repr(fmean(values)) if values else "",
            )
            for name in report.metrics
            for values in [group.numbers(name)]
        ],
    }


def _sheet(report: Report, figure: str) -> Sheet | None:
    """A figure of the first seed of each group, or of each seed where nothing else differs."""
    names = list(report.short_names.values())
    found = {
        tuple(map(as_text, group.values)): run
        for group in report.groups
        for run in sorted(group.counted, key=lambda run: order(run.seed))[:1]
        if own_file(_path(run, figure))
    }
    if not names or len(report.groups) == 1:
        names = ["seed"]
        of_group = [run for group in report.groups for run in group.counted]
        found = {(as_text(run.seed),): run for run in of_group if own_file(_path(run, figure))}
    if not found:
        return None
    axis = max(range(len(names)), key=lambda i: (len({values[i] for values in found}), i))
    columns = list(dict.fromkeys(values[axis] for values in found))
    rows = list(dict.fromkeys((*values[:axis], *values[axis + 1 :]) for values in found))
    others = [*names[:axis], *names[axis + 1 :]]
    if len(names) > 1 and len(rows) * len(columns) <= 2 * len(found):
        shown_columns = _evenly(columns, COLUMNS)
        shown_rows = _evenly(rows, SHOWN // len(shown_columns))
        grid = {
            _caption(others, row): [
                _picture(found.get((*row[:axis], column, *row[axis:])), figure, names) for column in shown_columns
            ]
            for row in shown_rows
        }
        shown, corner, labels = len(shown_rows) * len(shown_columns), names[axis], shown_columns
    else:
        chosen = _evenly(list(found), SHOWN)
        grid = {"": [_picture(found[values], figure, names, values) for values in chosen]}
        shown, corner, labels = len(chosen), "", []
    missing = len(found) - shown
    left_out = f"{missing} of {len(found)} are left out, evenly, to keep the page light." if missing > 0 else ""
    return Sheet(figure, corner, labels, grid, left_out)


def _picture(run: ReportedRun | None, figure: str, names: Sequence[str], values: Sequence[str] = ()) -> Picture | None:
    """The figure, smaller; None where it cannot be had."""
    if run is None:
        return None
    path = _path(run, figure)
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            below = (0, min(TITLE, image.height - 1), image.width, image.height)
            small = image.reduce(max(1, round(image.width / WIDE)), below).convert("RGB")
    except Exception:  # a foreign file may fail in any way
        return None
    file = io.BytesIO()
    small.save(file, "webp", quality=70, method=2)
    caption = _caption(names, values) if len(names) <= 4 else run.name
    return Picture(run, caption, f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}")


def _path(run: ReportedRun, figure: str) -> Path:
    return run.folder / "figures" / f"{figure}.png"


def _caption(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=bool(values)) if value)


def _evenly(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, the first and the last included.

    >>> _evenly(range(9), 3), _evenly("ab", 3)
    ([0, 4, 8], ['a', 'b'])
    """
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / max(1, most - 1))] for i in range(most)]


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
