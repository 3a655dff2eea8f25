"""The commands that measure: evaluate, report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vaelab.cli.arguments import Run, Seed, Split, Trust
from vaelab.cli.printing import console, print_evaluation
from vaelab.errors import RunError

commands = typer.Typer()


@commands.command()
def evaluate(
    run: Run,
    split: Split = "test",
    samples: Annotated[
        int | None,
        typer.Option(help="Samples of z an image, such as 5000, for the importance-weighted log-likelihood: minutes."),
    ] = None,
    seed: Seed = None,
    trust: Trust = None,
) -> None:
    """Numbers about a run's model: ELBO, log-likelihood, reconstructions, latents. docs/metrics.md explains them."""
    from rich.progress import track as rich_track

    from vaelab.looking.evaluate import evaluation_of

    terminal = console(errors=True)

    def track(steps: Sequence[Any], description: str) -> Iterable[Any]:
        return rich_track(steps, description, console=terminal, transient=True, disable=not terminal.is_terminal)

    try:
        evaluation = evaluation_of(run, split=split, samples=samples, seed=seed, trust=trust or [], track=track)
    except KeyboardInterrupt as stopped:
        typer.echo(
            f"interrupted: what was finished is in {stopped.args[0]}" if stopped.args else "interrupted", err=True
        )
        raise typer.Exit(130) from None
    print_evaluation(evaluation)


@commands.command()
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
    console(wide=True).print(as_table(found))
    for line in [*remarks(found), *written]:
        typer.echo(line)
