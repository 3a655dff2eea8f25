"""`vaelab score`: scores of single items."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vaelab.cli.arguments import Force, Invert, Label, Own, Run, Seed, Split, Trust
from vaelab.cli.printing import console, track

commands = typer.Typer()


@commands.command()
def score(
    run: Run,
    own: Own = None,
    split: Split = "test",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of z per item for nll_k; by default nll_k is left out.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="A run, for its data, or files: measure how well each score separates their items from these."
        ),
    ] = None,
    label: Label = None,
    invert: Invert = False,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write to; by default the run's evaluation/.")
    ] = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Score each item by reconstruction, KL, -ELBO, nll_k (score.csv, score.npz); draw the best and the worst."""
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
        console().print(table)
    for note in result.notes:
        typer.echo(note, err=True)
    for path in result.paths:
        typer.echo(path)
