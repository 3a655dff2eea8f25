"""The commands that show a trained model to others: export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vaelab.cli.arguments import Force, Run, Trust

commands = typer.Typer()


class To(StrEnum):
    """What --to takes."""

    onnx = "onnx"
    torch_export = "torch_export"
    safetensors = "safetensors"


@commands.command()
def export(
    run: Run,
    to: Annotated[To, typer.Option(help="The format.")] = To.onnx,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder to write to; by default export/ of the run.")
    ] = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Write encoder, decoder and both as ONNX or torch.export programs, or the weights as safetensors; checked."""
    from vaelab.sharing.export import export as export_run

    result = export_run(run, to=to.value, output=output, force=force, trust=trust or [])
    for note in result.notes:
        typer.echo(note, err=True)
    for path in result.paths:
        typer.echo(path)
