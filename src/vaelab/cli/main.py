"""The command line. Heavy imports happen inside the commands: help and a misspelt key are answered at once."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vaelab import __version__
from vaelab.cli import explore
from vaelab.cli.explore import Trust
from vaelab.config.compose import compose_with_hydra, groups, options, run_dir, without_hydra
from vaelab.errors import ConfigError, RunError, UserError

if TYPE_CHECKING:
    from vaelab.looking.evaluate import Evaluation
    from vaelab.runs.run import Run
    from vaelab.sweeps.folder import SweepFolder

app = typer.Typer(
    name="vaelab",
    help="Experiments with autoencoders, driven by configs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Result = TypeVar("Result")
TrustOfRun = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        help="A package of your own whose classes the config may name, or a tracking server that it may log to.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="What differs from the defaults: group=option of those below, or key=value of what --show prints.",
        show_default=False,
    ),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def vaelab(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Experiments with autoencoders, driven by configs."""


_GROUPS = "\n\n".join(
    [
        "Groups and their options:",
        *(f"{name}: {', '.join(options(name))}" for name in groups()),
        "Schedules, terms and corruptions are put at a knob: +schedule@objective.kl_weight=linear, "
        "+term@objective.terms.mmd=mmd.",
    ]
)


@app.command(epilog=_GROUPS)
def train(
    overrides: Overrides = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Sweep: one job for each combination of a=1,2 b=3,4.")
    ] = False,
    config_dir: Annotated[
        Path | None, typer.Option(help="A folder of your own config groups, searched as well.")
    ] = None,
    trust: Trust = None,
    show: Annotated[bool, typer.Option("--show", help="Print the config and stop.")] = False,
) -> None:
    """Train a model, or with -m several: `vaelab train model=vae latent_dim=8 trainer.max_epochs=5`."""
    overrides, trust = overrides or [], trust or []
    if multirun:
        from vaelab.sweeps.sweep import sweep

        _report_sweep(partial(sweep, overrides, config_dir=config_dir, trust=trust))
        return
    config = compose_with_hydra(overrides, config_dir=config_dir)
    if config.hydra.runtime.choices.get("sweep") is not None:
        raise ConfigError([f"sweep={config.hydra.runtime.choices.sweep}: a sweep needs -m (--multirun)"])
    own, folder = without_hydra(config), run_dir(config)
    if show:
        typer.echo(OmegaConf.to_yaml(own), nl=False)
        return
    from vaelab.config.check import check

    check(own, trust=trust)  # needs torch, but not yet Lightning
    from vaelab.runs.run import train_into

    chosen = any(text.startswith("hydra.run.dir=") for text in overrides)
    _report(partial(train_into, folder, own, exact=chosen, trust=trust, overrides=overrides))


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of a sweep.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Of a sweep: another launcher, such as hydra/launcher=joblib; of a search also more trials, "
            "hydra.sweeper.n_trials=50.",
            show_default=False,
        ),
    ] = None,
    trust: TrustOfRun = None,
) -> None:
    """Continue a run or a sweep that was stopped, to the same end as if it had not been."""
    from vaelab.runs.folder import RunFolder
    from vaelab.sweeps.folder import SweepFolder

    if SweepFolder.is_one(run):
        from vaelab.sweeps.sweep import resume as resume_sweep

        _report_sweep(partial(resume_sweep, run, overrides or [], trust=trust or []))
        return
    if overrides:
        raise ConfigError(
            [f"{text}: a run is resumed as it was started; train anew to change it" for text in overrides]
        )

    if RunFolder.open(run).done:
        typer.echo(f"{run} is done: there is nothing to resume")
        return
    from vaelab.runs.run import resume as resume_run

    _report(partial(resume_run, run, trust=trust or []))


@app.command()
def reproduce(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new run folder; by default outputs/runs/<time>_<name>_again."),
    ] = None,
    trust: TrustOfRun = None,
) -> None:
    """Run a run's config again and compare the two, to the bit. Exits with 1 where they differ."""
    from vaelab.runs.differences import summary
    from vaelab.runs.reproduce import reproduce as run_again

    reproduction = run_again(run, folder=output, trust=trust or [])
    if reproduction.identical:
        typer.echo(f"identical: {reproduction.run.folder} has the bits of {run}")
    else:
        table = Table("figure", "", "absolute", "relative", box=None)
        for difference in summary(reproduction.differences):
            amounts = (difference.absolute, difference.relative)
            shown = ["" if amount is None else f"{amount:.3g}" for amount in amounts]
            table.add_row(escape(" ".join(difference.place)), escape(difference.what), *shown)
        Console().print(table)
        typer.echo(f"different: {reproduction.run.folder} has not the bits of {run}")
    for part, changes in reproduction.circumstances.items():
        typer.echo(f"not the same {part}: {'; '.join(changes)}")
    if not reproduction.identical:
        if not reproduction.circumstances:
            typer.echo("packages, data, hardware and code are the same")
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or one of the files in its checkpoints/.")],
    split: Annotated[str, typer.Option(help="The images: test, validation or train.")] = "test",
    samples: Annotated[
        int | None,
        typer.Option(help="Samples of z an image, such as 5000, for the importance-weighted log-likelihood: minutes."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn; by default the run's.")] = None,
    trust: Trust = None,
) -> None:
    """Numbers about a run's model: ELBO, log-likelihood, reconstructions, latents. docs/metrics.md explains them."""
    from rich.progress import track as rich_track

    from vaelab.looking.evaluate import evaluation_of

    console = Console(stderr=True)

    def track(steps: Sequence[Any], description: str) -> Iterable[Any]:
        return rich_track(steps, description, console=console, transient=True, disable=not console.is_terminal)

    try:
        evaluation = evaluation_of(run, split=split, samples=samples, seed=seed, trust=trust or [], track=track)
    except KeyboardInterrupt as stopped:
        typer.echo(
            f"interrupted: what was finished is in {stopped.args[0]}" if stopped.args else "interrupted", err=True
        )
        raise typer.Exit(130) from None
    _print_evaluation(evaluation)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Sweep folders, run folders, or what holds them.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The page, NAME.html; NAME.csv goes beside it. By default report.html in the folder."
        ),
    ] = None,
) -> None:
    """Compare runs: a table here and as .csv, and a page with charts and pictures (.html)."""
    from vaelab.report.report import as_table, collect, remarks, write

    if output is not None and output.suffix != ".html":
        raise RunError(f"--output {output}: the page is a file that ends in .html")
    page = output or Path(folders[0] if len(folders) == 1 else "", "report.html")
    found = collect(folders)
    title = ", ".join(folder.resolve().name for folder in folders)
    written = write(found, page, title=title)
    Console(width=None if sys.stdout.isatty() else 200).print(as_table(found))
    for line in [*remarks(found), *written]:
        typer.echo(line)


app.add_typer(explore.commands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default that of sys.argv.

    Exits with 2 after a user's mistake, which is printed without a traceback, with 1 where a disk is full or a run was
    not reproduced, with 3 where the loss is NaN or infinite, with 130 after Ctrl-C, with 143 after SIGTERM or SIGUSR1.
    """
    try:
        app(arguments, standalone_mode=True)
    except UserError as error:
        # Of the processes that a launcher has started on a machine, one says what all find.
        lines = str(error).splitlines() if _is_first_here() else []
        _complain(lines)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(130)
    except Exception as error:
        from vaelab.runs.surroundings import no_memory

        if not (why := no_memory(error)):
            raise
        _complain([why])
        sys.exit(UserError.exit_code)


def _complain(mistakes: Iterable[str]) -> None:
    """Print a line for each."""
    for line in mistakes:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(line)}", highlight=False)


def _report(trained: Callable[[], "Run"]) -> None:
    """Print what a run ended with, and where it is."""
    run = _stoppable(trained)
    _print_metrics(run.metrics)
    for path in [*run.figures, run.folder]:
        typer.echo(path)


def _is_first_here() -> bool:
    """Whether this is the only process that a launcher has started on this machine, or the first of them."""
    rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return not rank.isdecimal() or int(rank) == 0


def _report_sweep(ran: Callable[[], "SweepFolder"]) -> None:
    """Print the table of a sweep, which jobs failed, and where it is; exit with 1 where any failed."""
    from vaelab.sweeps.table import best, failures, summary

    folder = _stoppable(ran)
    jobs = folder.jobs
    Console(width=None if sys.stdout.isatty() else 200).print(summary(jobs, folder.metrics))
    for line in best(folder):
        typer.echo(line)
    failed = list(failures(jobs))
    _complain(failed)
    typer.echo(folder.path)
    if failed:
        raise typer.Exit(1)


def _stoppable(trained: Callable[[], Result]) -> Result:
    """What `trained` returns; where it was stopped, say how to go on."""
    try:
        return trained()
    except KeyboardInterrupt as stopped:
        if stopped.args:
            typer.echo(f"\ninterrupted: `vaelab resume {stopped.args[0]}` goes on", err=True)
        raise typer.Exit(130) from None


def _print_metrics(metrics: Mapping[str, float]) -> None:
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.6g}")
    Console().print(table)


def _print_evaluation(evaluation: "Evaluation") -> None:
    """A table of the metrics with their units, and the reasons why others are missing."""
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in evaluation.header.items()), soft_wrap=True)
    table = Table(box=None)
    table.add_column("metric", style="bold", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("±", no_wrap=True)
    table.add_column("unit")
    for name, metric in evaluation.metrics.items():
        value, error = metric.value, metric.standard_error
        shown = f"{value:.6g}" if isinstance(value, float | int) else f"{min(value):.3g} to {max(value):.3g}"
        details = [f"{key.replace('_', ' ')} {detail:.6g}" for key, detail in metric.details.items()]
        table.add_row(name, shown, "" if error is None else f"{error:.2g}", "; ".join([metric.unit, *details]))
    console.print(table)
    for reason in dict.fromkeys(evaluation.omitted.values()):
        names = ", ".join(name for name, why in evaluation.omitted.items() if why == reason)
        console.print(f"not computed: {names}: {reason}", style="dim", markup=False, highlight=False, soft_wrap=True)
    typer.echo(evaluation.path)
