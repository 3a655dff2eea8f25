"""The commands that show a trained model to others: export, explore, push, pull."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vaelab.cli.arguments import Force, Run, Seed, Split, Trust

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


@commands.command()
def explore(
    run: Run,
    split: Split = "test",
    umap: Annotated[
        bool, typer.Option("--umap", help="Place the codes by UMAP instead of principal components.")
    ] = False,
    beside: Annotated[
        bool, typer.Option("--beside", help="Put model and data into scripts beside the page, for a large model.")
    ] = False,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; by default figures/explore.html of the run.")
    ] = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Write a page in which the model runs: codes, sliders, walks, draws, images of your own (.html)."""
    from vaelab.sharing.explorer import explore as write_page

    result = write_page(
        run, split=split, umap=umap, beside=beside, seed=seed, output=output, force=force, trust=trust or []
    )
    for note in result.notes:
        typer.echo(note, err=True)
    for path in result.paths:
        typer.echo(path)


Repo = Annotated[str, typer.Argument(help="user/name on the Hugging Face Hub.", show_default=False)]


@commands.command()
def push(
    run: Run,
    repo: Repo,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    trust: Trust = None,
) -> None:
    """Put weights, config, metrics, figures and a model card into a repository of the Hugging Face Hub."""
    from vaelab.sharing.hub import push as push_run

    typer.echo(push_run(run, repo, private=private, trust=trust or []).address)


@commands.command()
def pull(
    repo: Repo,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new folder; by default outputs/runs/NAME.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
    trust: Trust = None,
) -> None:
    """Fetch a model that was pushed, as the folder of a run that is done."""
    from vaelab.sharing.hub import pull as pull_run

    typer.echo(pull_run(repo, output=output, revision=revision, trust=trust or []).path)
