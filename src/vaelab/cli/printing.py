"""Print the results of commands, and their errors."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaelab import text

if TYPE_CHECKING:
    from vaelab.looking.evaluate import Evaluated
    from vaelab.runs.run import Run
    from vaelab.sweeps.folder import SweepFolder

Result = TypeVar("Result")
MOST = 100  # mistakes printed


def console(*, errors: bool = False, wide: bool = False) -> Console:
    """Return standard output or standard error, with text printed literally; `wide` if it is not a terminal."""
    return text.console(stderr=errors, soft_wrap=errors, width=200 if wide and not sys.stdout.isatty() else None)


def complain(mistakes: Iterable[str]) -> None:
    """Print a line for each mistake."""
    shown = list(mistakes)
    if len(shown) > MOST:
        shown[MOST:] = [f"and {len(shown) - MOST} more"]
    for line in shown:
        console(errors=True).print(Text.assemble(("error:", "bold red"), " ", text.clean(line)))


def is_first_here() -> bool:
    """Whether this is the only process that a launcher has started on this machine, or the first of them."""
    rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return not rank.isdecimal() or int(rank) == 0


def report_run(trained: Callable[[], "Run"]) -> None:
    """Train; print the metrics, figures and folder."""
    run = _stoppable(trained)
    _print_metrics(run.metrics)
    for path in [*run.figures, run.folder]:
        typer.echo(path)


def report_sweep(ran: Callable[[], "SweepFolder"]) -> "SweepFolder":
    """Sweep; print the table, failed jobs and the folder, and return it; exit with 1 if any job failed."""
    from vaelab.sweeps.table import best, failures, summary

    folder = _stoppable(ran)
    jobs = folder.jobs
    console(wide=True).print(summary(jobs, folder.metrics))
    for line in best(folder):
        typer.echo(line)
    failed = list(failures(jobs))
    complain(failed)
    typer.echo(text.clean(str(folder.path)))
    if failed:
        raise typer.Exit(1)
    return folder


def track(steps: Sequence[Any], description: str) -> Iterable[Any]:
    """Show the progress of a loop on a terminal."""
    from rich.progress import track as rich_track

    terminal = console(errors=True)
    return rich_track(steps, description, console=terminal, transient=True, disable=not terminal.is_terminal)


def _stoppable(trained: Callable[[], Result]) -> Result:
    """Return what `trained` returns; after an interrupt, print how to continue."""
    try:
        return trained()
    except KeyboardInterrupt as stopped:
        if stopped.args:
            typer.echo(f"\ninterrupted: `vaelab resume {stopped.args[0]}` continues it", err=True)
        raise typer.Exit(130) from None


def _print_metrics(metrics: Mapping[str, float]) -> None:
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.6g}")
    console().print(table)


def print_evaluation(evaluation: "Evaluated") -> None:
    """Print a table of the metrics with their units, and why others are missing."""
    output, found = console(wide=True), evaluation.found
    header = f"{found.images} images of the {found.split} split, step {found.step}, seed {found.seed}"
    header += "" if found.binarize == "none" else f", binarized ({found.binarize})"
    header += ", conditional on labels" if found.conditional else ""
    output.print(header, soft_wrap=True)
    table = Table(box=None)
    table.add_column("metric", style="bold", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("±", no_wrap=True)
    table.add_column("unit")
    for name, metric in found.metrics.items():
        value, error = metric.value, metric.standard_error
        shown = f"{value:.6g}" if isinstance(value, float | int) else f"{min(value):.3g} to {max(value):.3g}"
        details = [
            f"{key.replace('_', ' ')} {detail:.6g}"
            for key, detail in metric.details.items()
            if isinstance(detail, float | int)  # text is in the file
        ]
        table.add_row(name, shown, "" if error is None else f"{error:.2g}", "; ".join([metric.unit, *details]))
    output.print(table)
    for reason in dict.fromkeys(evaluation.omitted.values()):
        names = ", ".join(name for name, why in evaluation.omitted.items() if why == reason)
        output.print(f"not computed: {names}: {reason}", style="dim", soft_wrap=True)
    for path in [*evaluation.figures, evaluation.path]:
        typer.echo(path)
