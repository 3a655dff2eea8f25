"""A sweep as a table: live while it runs, and at its end with the mean over seeds."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from statistics import mean, stdev
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from vaelab import text
from vaelab.runs.documents import State
from vaelab.sweeps.folder import METRICS, Job, SweepFolder, short_names, shown
from vaelab.text import one_line

STYLES = {
    "done": "green",
    "failed": "bold red",
    "unreadable": "bold red",
    "running": "cyan",
    "interrupted": "yellow",
    "pruned": "magenta",
    "waiting": "dim",
}
BROKEN = ("failed", "unreadable")


@contextmanager
def watched(sweep: SweepFolder, going: Mapping[int, Job], of: int | None = None) -> Iterator[Callable[[Job], str]]:
    """Show a sweep while it runs: in a terminal as a live table, elsewhere by a line for each job that has ended.

    Yields a function to be called with each job that has ended; it returns that line.

    Args:
        sweep: read once; after that only the jobs that are going are read.
        going: jobs by their numbers, as it changes.
        of: how many jobs there will be; by default, as many as there are.
    """
    console = text.console()
    states: dict[int, State] = {job.number: job.state for job in sweep.jobs}
    over = count(1 + sum(state in ("done", "pruned") for state in states.values()))
    names = sweep.metrics

    def say(job: Job) -> str:
        state = states[job.number] = job.state
        said = one_line(job.error) if state in BROKEN else _shown_metrics(job.metrics, names)
        name = f"job {job.number} ({job.label})" if job.parameters else f"job {job.number}"
        line = f"{next(over)}/{of or len(sweep.record.jobs)} {name} {state}: {said}"
        if not console.is_terminal:
            print(line, flush=True)
        return line

    if not console.is_terminal:
        yield say
        return
    rows = max(5, console.height - 8)

    def live() -> Table:
        states.update({number: job.state for number, job in list(going.items())})
        return _live(sweep.jobs, states, rows, names)

    with Live(
        get_renderable=live,
        console=console,
        refresh_per_second=1,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    ):
        yield say


def summary(jobs: Sequence[Job], metrics: Sequence[str] = METRICS) -> Table:
    """The metrics of all jobs; where a sweep varies the seed, their mean and standard deviation over it.

    Where the jobs differ in nothing but the seed, that is one row.
    """
    names = [name for name in metrics if any(name in job.metrics for job in jobs)]
    seeds = any("seed" in job.parameters for job in jobs)
    table = Table(box=None, header_style="bold", pad_edge=False)
    keys = list(dict.fromkeys(key for job in jobs for key in job.parameters if key != "seed"))
    for column in short_names(dict.fromkeys(keys)):
        table.add_column(column)
    table.add_column("n" if seeds else "state")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        rest = {key: value for key, value in job.parameters.items() if key != "seed"}
        groups.setdefault(json.dumps(rest if seeds else job.number), []).append(job)
    for group in groups.values():
        values = [one_line(shown(group[0].parameters[key]), 100) if key in group[0].parameters else "" for key in keys]
        done = [job.metrics for job in group if job.state == "done"]
        state = f"{len(done)}" if len(done) == len(group) else f"{len(done)} of {len(group)}"
        cells = [_spread([reached[name] for reached in done if name in reached]) for name in names]
        table.add_row(*values, state if seeds else _state(group[0].state), *cells)
    return table


def best(sweep: SweepFolder) -> Iterator[str]:
    """Of a search, a line on its trials and one for each of the best."""
    search = sweep.record.search
    if search is None:
        return
    if search.trials:
        ended = [f"{count} {how}" for how, count in search.trials.items() if count and how != "all"]
        yield one_line(f"{search.trials.get('all', 0)} trials: {', '.join(ended)}", 300)
    if len(search.metrics) > 1 and search.best:
        yield f"none is better in everything than these {len(search.best)}:"
    for trial in search.best:
        parameters = ", ".join(f"{name}={shown(value)}" for name, value in short_names(trial.parameters).items())
        name = f"job {trial.job}" if trial.job is not None else f"trial {trial.trial} of another sweep"
        values = ", ".join(f"{metric} {value:.6g}" for metric, value in trial.values.items())
        yield one_line(f"best: {name} ({parameters}): {values}; {trial.run}")


def failures(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for each job that failed: which, with what, and where its traceback is."""
    for job in jobs:
        status = job.status
        if status.state == "failed":
            yield f"job {job.number} ({job.label}) failed: {status.error}; {job.run.log} has the traceback"
        elif status.state == "unreadable":
            yield f"job {job.number} ({job.label}) is unreadable: {status.error}"


def _live(jobs: Sequence[Job], known: Mapping[int, State], rows: int, metrics: Sequence[str]) -> Table:
    """Those that run, then those that failed, then the others, as far as there is room."""
    states: list[State] = [known.get(job.number, "waiting") for job in jobs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STYLES if state in states)
    table = Table(title=counts, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in ("job", "parameters", "state", "progress", "metric"):
        table.add_column(column, no_wrap=True)
    order = ["running", "failed", "unreadable", "interrupted", "waiting", "pruned", "done"]
    chosen = sorted(zip(jobs, states, strict=True), key=lambda pair: order.index(pair[1]))[:rows]
    for job, state in sorted(chosen, key=lambda pair: pair[0].number):
        progress, metric = _progress(job) if state in ("running", "interrupted") else ("", "")
        if state in BROKEN:
            metric = job.error.partition("\n")[0][:60]
        elif state == "done":
            metric = _shown_metrics(job.metrics, metrics)
        table.add_row(str(job.number), job.label, _state(state), progress, metric)
    return table


def _progress(job: Job) -> tuple[str, str]:
    """How far a run has been trained, and its validation loss, or else its training loss."""
    progress = job.status.progress
    if progress is None:
        return "", ""
    of = "" if progress.epochs is None else f"/{progress.epochs}"
    name = "val/loss" if "val/loss" in progress.terms else "train/loss"
    value = f"{name} {progress.terms[name]:.4f}" if name in progress.terms else ""
    return f"epoch {progress.epoch}{of}", value


def _shown_metrics(metrics: Mapping[str, float], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {metrics[name]:.6g}" for name in names if name in metrics)


def _spread(values: Sequence[float]) -> str:
    """A mean and, of several values, their standard deviation.

    >>> _spread([1.0, 2.0, 3.0]), _spread([2.5]), _spread([])
    ('2 ± 1', '2.5', '')
    """
    if not values:
        return ""
    return f"{mean(values):.6g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def _state(state: str) -> Any:
    return Text(state, style=STYLES.get(state, ""))
