"""Runs compared: a table in the terminal, report.csv, and report.html, a page that needs nothing but itself."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from vaelab.errors import RunError, did_you_mean, unwritten
from vaelab.report.noise import letters
from vaelab.report.runs import NATS, STATES, ReportedRun, find_runs
from vaelab.runs.documents import write_text
from vaelab.sweeps.folder import short_names

NOISE = (
    "settings that share a letter differ by no more than the noise of their seeds (Welch's t-test, 5 %, each pair "
    "by itself)"
)
ROWS, ERRORS = 60, 10  # in the terminal, at most
_FIRST = ("test/elbo", "test/loss", "test/reconstruction", "test/kl", "test/mse")
_COUNTS = ("epochs", "steps")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Args:
        values: of the report's parameters, in their order; None where a run does not have the parameter.
        runs: all of them.
        counted: those that are done, one a seed: of several with the same seed, the last.
    """

    values: tuple[Any, ...]
    runs: Sequence[ReportedRun]
    counted: Sequence[ReportedRun]

    def numbers(self, metric: str) -> list[float]:
        """The metric of each counted run that has it, where it is finite."""
        values = [run.metrics[metric] for run in self.counted if metric in run.metrics]
        return [value for value in values if math.isfinite(value)]


@dataclass(frozen=True)
class Report:
    """Runs, and what they are compared by: all their metrics, or the `chosen` ones in that order."""

    runs: Sequence[ReportedRun]
    chosen: Sequence[str] = ()

    @cached_property
    def parameters(self) -> list[str]:
        """What differs between the runs, other than the seed.

        The axes of the sweep, where all runs are of one; else the hyperparameters of their configs that differ, without
        those that follow from the part they belong to.
        """
        if self._of_one_sweep:
            axes = dict.fromkeys(key for run in self.runs for key in run.axes or {})
            return [key for key in axes if key != "seed"]
        readable = [run for run in self.runs if run.hyperparameters]
        keys = dict.fromkeys(key for run in readable for key in run.hyperparameters)
        differ = [key for key in keys if len({run.hyperparameters.get(key) for run in readable}) > 1]
        among = set(differ)
        return [
            key for key in differ if not any(_follows(key, part, readable) for part in _above(key) if part in among)
        ]

    @cached_property
    def short_names(self) -> dict[str, str]:
        """A parameter's name -> the same, as short as it is clear."""
        return dict(zip(self.parameters, short_names(dict.fromkeys(self.parameters)), strict=True))

    @cached_property
    def metrics(self) -> list[str]:
        """What any of the runs has, the usual ones first; or the chosen ones."""
        if self.chosen:
            return list(self.chosen)
        found = dict.fromkeys(name for run in self.runs for name in run.metrics)
        others = [name for name in found if name not in _FIRST + _COUNTS]
        return [name for name in (*_FIRST, *others, *_COUNTS) if name in found]

    @property
    def compared(self) -> Sequence[str]:
        """The metrics of the terminal's table: the chosen ones, or else the usual ones, or else the first five."""
        return self.chosen or [name for name in self.metrics if name in _FIRST] or self.metrics[:5]

    @cached_property
    def groups(self) -> list[Group]:
        """By the values of the parameters, in their order. A run whose parameters cannot be read is in none."""
        members: dict[tuple[Any, ...], list[ReportedRun]] = {}
        for run in self.runs:
            if run.hyperparameters or run.axes is not None:
                members.setdefault(self.values(run), []).append(run)
        return [
            Group(values, runs, list({run.seed: run for run in runs if run.state == "done"}.values()))
            for values, runs in sorted(members.items(), key=lambda item: [order(value) for value in item[0]])
        ]

    def values(self, run: ReportedRun) -> tuple[Any, ...]:
        """A run's values of the parameters."""
        known = (run.axes or {}) if self._of_one_sweep else run.hyperparameters
        return tuple(known.get(key) for key in self.parameters)

    @cached_property
    def _of_one_sweep(self) -> bool:
        sweeps = {run.sweep for run in self.runs}
        return len(sweeps) == 1 and None not in sweeps

    @cached_property
    def units(self) -> dict[str, str]:
        """A metric's name -> its unit; empty for a count."""
        given = {name: unit for run in self.runs for name, unit in run.units.items()}
        usual = {
            name: "" if name in _COUNTS else "per pixel" if name.endswith("/mse") else NATS for name in self.metrics
        }
        return usual | given

    @cached_property
    def marks(self) -> dict[str, list[str]]:
        """A metric's name -> letters of the groups: two that share one differ by no more than their seeds explain."""
        return {name: letters([group.numbers(name) for group in self.groups]) for name in self.metrics}

    @cached_property
    def decimals(self) -> dict[str, int]:
        """A metric's name -> digits after the point by which the runs can be told apart."""
        return {name: decimals(run.metrics[name] for run in self.runs if name in run.metrics) for name in self.metrics}

    @property
    def incomparable(self) -> list[str]:
        """In which of loss and data runs that are done differ, so that their likelihoods cannot be compared."""
        parts = {"loss": ("loss",), "data": ("data", "data.binarize")}
        done = [run.hyperparameters for run in self.runs if run.state == "done"]
        return [part for part, keys in parts.items() if len({tuple(map(of.get, keys)) for of in done}) > 1]

    @property
    def without_rate(self) -> int:
        """How many runs are done and have no KL, as plain autoencoders."""
        return sum(run.state == "done" and "test/kl" not in run.metrics for run in self.runs)

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state that any is in."""
        states = [run.state for run in self.runs]
        return {state: states.count(state) for state in STATES if state in states}


def collect(folders: Sequence[Path], metrics: Sequence[str] = ()) -> Report:
    """A report of all runs in these folders, by all their metrics or by those named.

    Raises:
        RunError: a folder is not there, has no runs, none of them has metrics, or none has one of those named.
    """
    names = ", ".join(map(str, folders))
    report = Report(find_runs(folders), metrics)
    if not report.runs:
        raise RunError(f"{names}: there is no run in it; `vaelab train` makes them")
    if not any(run.metrics for run in report.runs):
        states = ", ".join(f"{count} {state}" for state, count in report.states.items())
        errors = [f"; {run.name}: {run.error}" for run in report.runs if run.error]
        raise RunError(f"{names}: no run in it has metrics ({states}){''.join(errors[:1])}")
    known = dict.fromkeys(name for run in report.runs for name in run.metrics)
    for name in metrics:
        if name not in known:
            raise RunError(f"--metrics {name}: no run in {names} has it{did_you_mean(name, known)}")
    return report


def write(report: Report, page: Path, *, title: str) -> tuple[Path, Path]:
    """The page and, beside it, the table, as .csv. Files of these names are replaced as a whole.

    Raises:
        RunError: they cannot be written; a StorageError where the disk is full.
    """
    from vaelab.report.page import rendered

    table = page.with_suffix(".csv")
    try:
        write_text(table, as_csv(report))
        write_text(page, rendered(report, title=title))
    except OSError as error:
        raise unwritten(page, error) from error
    return page, table


def as_csv(report: Report) -> str:
    """A row a run: its folder, state, seed, parameters, metrics with all digits, error and command."""
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    header = ["run", "state", "seed", *report.parameters, *report.metrics, "error", "command"]
    writer.writerow([_cell(name) for name in header])
    for run in report.runs:
        metrics = [run.metrics.get(name) for name in report.metrics]
        row = [run.name, run.state, run.seed, *report.values(run), *metrics, run.error, run.command]
        writer.writerow([_cell(value) for value in row])
    return rows.getvalue()


def as_table(report: Report) -> Table:
    """A row for each group of runs: mean and standard deviation over its seeds, and how many there are.

    Its texts are text: print it with `vaelab.text.console`.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in report.short_names.values():
        table.add_column(name)
    table.add_column("n", justify="right")
    for name in report.compared:
        table.add_column(name, justify="right", no_wrap=True)
    for i, group in enumerate(report.groups[:ROWS]):
        done, of = len(group.counted), len({run.seed for run in group.runs})
        n = str(done) if done == of else f"{done} of {of}"
        cells = [
            f"{spread(group.numbers(name), report.decimals[name])} {report.marks[name][i]}".rstrip()
            for name in report.compared
        ]
        table.add_row(*(as_text(value) for value in group.values), n, *cells)
    return table


def remarks(report: Report) -> Iterator[str]:
    """What the terminal's table does not say: how many runs are in which state, what failed, what is not shown."""
    yield ", ".join(f"{count} {state}" for state, count in report.states.items())
    failed = [run for run in report.runs if run.error]
    for run in failed[:ERRORS]:
        yield f"{run.name} {run.state}: {run.error.partition(chr(10))[0]}"
    if len(failed) > ERRORS:
        yield f"and {len(failed) - ERRORS} more errors, in the page"
    if any(any(report.marks[name]) for name in report.compared):
        yield NOISE
    if len(report.groups) > ROWS:
        yield f"{ROWS} of {len(report.groups)} settings; all are in the page"


def spread(values: Sequence[float], digits: int) -> str:
    """A mean and, of several values, their standard deviation (n - 1), to two digits of it.

    >>> spread([-104.2, -105.1, -103.9], 1), spread([2.5], 2), spread([], 2)
    ('-104.40 ± 0.62', '2.50', '')
    """
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0], digits)
    deviation = stdev(values)
    if deviation == 0 and digits == 0:  # a count
        return number(values[0], 0)
    digits = _digits(deviation, 1) if deviation > 0 else digits
    return f"{number(fmean(values), digits)} ± {number(deviation, digits)}"


def number(value: float, digits: int) -> str:
    """With so many digits after the point, if that is readable.

    >>> number(3.14159, 2), number(1e-20, 2), number(float("nan"), 2), number(0.0, 2)
    ('3.14', '1e-20', 'nan', '0.00')
    """
    plain = math.isfinite(value) and (value == 0 or 10.0**-digits <= abs(value) < 1e9)
    return f"{value:.{digits}f}" if plain else f"{value:.4g}"


def decimals(values: Iterable[float]) -> int:
    """Digits after the point that tell numbers apart: a ten-thousandth of their range.

    >>> decimals([-144.63, -104.7]), decimals([0.0301, 0.0412]), decimals([5, 20])
    (2, 5, 0)
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or all(value == int(value) for value in finite):
        return 0
    extent = max(finite) - min(finite)
    return _digits(extent or max(map(abs, finite)), 3)


def as_text(value: Any) -> str:
    """A parameter's value for people; nothing where a run has none.

    >>> as_text(0.0001), as_text(400), as_text("relu"), as_text(None)
    ('0.0001', '400', 'relu', '')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def order(value: Any) -> tuple[int, float, str]:
    """By which values of a parameter are sorted: numbers, then texts, then those without it."""
    if isinstance(value, int | float):
        return 0, value if value == value else math.inf, ""
    return (2, 0, "") if value is None else (1, 0, str(value))


def _digits(size: float, more: int) -> int:
    return min(12, max(0, more - math.floor(math.log10(size))))


def _above(key: str) -> Iterator[str]:
    """The parts that `key` is a knob of.

    >>> list(_above("objective.kl_weight.steps"))
    ['objective', 'objective.kl_weight']
    """
    words = key.split(".")
    return (".".join(words[:length]) for length in range(1, len(words)))


def _follows(key: str, above: str, runs: Sequence[ReportedRun]) -> bool:
    """Whether `key`, a knob of the part `above`, has one value for each choice of that."""
    chosen: dict[Any, Any] = {}
    values: list[Mapping[str, Any]] = [run.hyperparameters for run in runs]
    return all(chosen.setdefault(of.get(above), of.get(key)) == of.get(key) for of in values)


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
