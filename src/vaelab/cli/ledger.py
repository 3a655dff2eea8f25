"""`vaelab ledger`: a published number, reproduced."""

from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer

from vaelab.cli.arguments import Trust
from vaelab.cli.printing import report_sweep, track

commands = typer.Typer()


@commands.command()
def ledger(
    name: Annotated[
        str, typer.Argument(help="An experiment of papers/, such as burda_2015_iwae_5.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="The seeds, seed=1,2,3, and what differs from the experiment.", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder with a sweep for each row; it is resumed.")
    ] = Path("outputs", "ledger"),
    trust: Trust = None,
) -> None:
    """Reproduce a published number: train with each seed and evaluate; `experiment=papers/NAME` says what differs."""
    from vaelab.sweeps.ledger import evaluate_row, paper_of, train_row

    trust, paper = trust or [], paper_of(name)
    folder = report_sweep(partial(train_row, name, overrides or [], output=output, trust=trust))
    values = evaluate_row(name, folder, trust=trust, track=track)
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    published = "" if paper.value is None else f"; {paper.source}: {paper.value:g}"
    typer.echo(
        f"test/{paper.metric} {mean(values):.6g}{spread} ({len(values)} seed{'s' * (len(values) > 1)}){published}"
    )
