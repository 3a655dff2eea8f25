"""`vaelab evaluate` and `vaelab score`: numbers of a run's model, of a split and of each item."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vaelab.cli.explore import Force, Invert, Label, Own, Run, Seed, Split

if TYPE_CHECKING:
    from vaelab.looking.evaluate import Evaluation

commands = typer.Typer()

Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust", help="A package of your own whose classes a config may name, or a file of --features; its code runs."
    ),
]


@commands.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or one of the files in its checkpoints/.")],
    split: Annotated[str, typer.Option(help="The images: test, validation or train.")] = "test",
    samples: Annotated[
        int | None,
        typer.Option(help="Samples of z an image, such as 5000, for the importance-weighted log-likelihood: minutes."),
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(
            help="Images to sample, such as 10000, and compare with those of the split: Frechet distance, ..."
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="The space they are compared in: pixels, classifier, inception, or FILE.py:NAME of your own."
        ),
    ] = "classifier",
    fit_gaussian: Annotated[
        bool, typer.Option("--fit-gaussian", help="Sample from a Gaussian fitted to the codes of training images.")
    ] = False,
    factors: Annotated[
        bool, typer.Option("--factors", help="Scores of how codes tell the data's factors of variation: MIG, DCI, ...")
    ] = False,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of your own, package.module.function; needs --trust package.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn; by default the run's.")] = None,
    trust: Trust = None,
) -> None:
    """Numbers about a run's model: ELBO, log-likelihood, reconstructions, latents. docs/metrics.md explains them."""
    from vaelab.looking.evaluate import Wanted, evaluation_of

    wanted = Wanted(samples, generation, features, fit_gaussian, factors, metric or [])
    try:
        evaluation = evaluation_of(run, wanted, split=split, seed=seed, trust=trust or [], track=track)
    except KeyboardInterrupt as stopped:
        typer.echo(
            f"interrupted: what was finished is in {stopped.args[0]}" if stopped.args else "interrupted", err=True
        )
        raise typer.Exit(130) from None
    _print_evaluation(evaluation)


@commands.command()
def score(
    run: Run,
    own: Own = None,
    split: Split = "test",
    samples: Annotated[int | None, typer.Option(min=1, help="Of z an item, for nll_k; leave it out for none.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="A run, whose data, or files, whose items are to be told from the others by their scores."),
    ] = None,
    label: Label = None,
    invert: Invert = False,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder to write to; by default in the run's evaluation/.")
    ] = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Score each item: reconstruction, KL, -ELBO, nll_k (score.csv, score.npz), and draw the best and the worst."""
    from vaelab.looking.score import score as score_items

    result = score_items(
        run,
        own or [],
        split=split,
        samples=samples,
        against=against,
        label=label,
        invert=invert,
        seed=seed,
        output=output,
        force=force,
        trust=trust or [],
        track=track,
    )
    if result.detection:
        table = Table("score", "AUROC", "average precision", "by chance", box=None)
        for name, found in result.detection.items():
            table.add_row(name, f"{found.auroc:.4f}", f"{found.average_precision:.4f}", f"{found.chance:.4f}")
        Console().print(table)
    for note in result.notes:
        typer.echo(note, err=True)
    for path in result.paths:
        typer.echo(path)


def track(steps: Sequence[Any], description: str) -> Iterable[Any]:
    """Show how far a loop is, on a terminal."""
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    return rich_track(steps, description, console=console, transient=True, disable=not console.is_terminal)


def _print_evaluation(evaluation: "Evaluation") -> None:
    """Print a table of the metrics with their units, and the reasons why others are missing."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(", ".join(f"{key} {value}" for key, value in evaluation.header.items()), soft_wrap=True)
    table = Table(box=None)
    table.add_column("metric", style="bold", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("±", no_wrap=True)
    table.add_column("unit")
    for name, metric in evaluation.metrics.items():
        value, error = metric.value, metric.standard_error
        shown = f"{value:.6g}" if isinstance(value, float | int) else f"{min(value):.3g} to {max(value):.3g}"
        details = [
            f"{key.replace('_', ' ')} {detail:.6g}"
            for key, detail in metric.details.items()
            if isinstance(detail, float | int)  # what is said in words is in the file
        ]
        table.add_row(name, shown, "" if error is None else f"{error:.2g}", "; ".join([metric.unit, *details]))
    console.print(table)
    for reason in dict.fromkeys(evaluation.omitted.values()):
        names = ", ".join(name for name, why in evaluation.omitted.items() if why == reason)
        console.print(f"not computed: {names}: {reason}", style="dim", markup=False, highlight=False, soft_wrap=True)
    for path in [*evaluation.figures, evaluation.path]:
        typer.echo(path)
