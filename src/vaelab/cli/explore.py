"""The commands that look at what a run has learned. Each is a function of `vaelab.looking.explore`."""

from typing import Annotated, Any

import typer

from vaelab.cli.arguments import (
    Force,
    Images,
    Invert,
    Label,
    OneLabel,
    Output,
    Own,
    Run,
    Seed,
    Split,
    Stochastic,
    Trust,
)

commands = typer.Typer()


@commands.command()
def reconstruct(
    run: Run,
    own: Own = None,
    split: Split = "test",
    images: Images = None,
    label: Label = None,
    invert: Invert = False,
    stochastic: Stochastic = False,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Draw images over their reconstructions (.png); of a table, write both (.csv)."""
    _look("reconstruct", locals())


@commands.command()
def sample(
    run: Run,
    count: Annotated[int, typer.Option(min=1, help="Images.")] = 64,
    labels: Annotated[
        str | None, typer.Option(help="Of a conditional model: names or numbers, 0,1,2 in turn; by default every one.")
    ] = None,
    fit_gaussian: Annotated[
        bool, typer.Option("--fit-gaussian", help="Draw z from a Gaussian fitted to the codes of the training images.")
    ] = False,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Sample the pixels from p(x|z) instead of taking their means.")
    ] = False,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Draw new images from the prior (.png)."""
    _look("sample", locals() | {"labels": None if labels is None else labels.split(",")})


@commands.command()
def interpolate(
    run: Run,
    own: Own = None,
    split: Split = "test",
    images: Images = None,
    steps: Annotated[int, typer.Option(min=2, help="Images from one to the next, with both ends.")] = 11,
    spherical: Annotated[bool, typer.Option("--spherical", help="On an arc instead of a line.")] = False,
    label: Label = None,
    invert: Invert = False,
    stochastic: Stochastic = False,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Go from each image to the next between their codes (.png, or .gif with --output)."""
    _look("interpolate", locals())


@commands.command()
def traverse(
    run: Run,
    split: Split = "test",
    image: Annotated[
        int | None, typer.Option(min=0, help="Hold the code of this image of the split instead of the mean.")
    ] = None,
    label: OneLabel = None,
    dimensions: Annotated[int, typer.Option(min=1, help="Rows, at most.")] = 16,
    reach: Annotated[float, typer.Option(help="Standard deviations to both sides of the mean.")] = 3.0,
    steps: Annotated[int, typer.Option(min=2, help="Columns: values of each dimension.")] = 11,
    stochastic: Stochastic = False,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Vary each latent dimension by itself, those with most KL first (.png and .gif)."""
    _look("traverse", locals())


@commands.command()
def manifold(
    run: Run,
    label: OneLabel = None,
    steps: Annotated[int, typer.Option(min=2, help="Images in each of the two directions.")] = 20,
    output: Output = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Draw the latent plane of a model with latent_dim=2 (.png)."""
    _look("manifold", locals())


@commands.command()
def embed(
    run: Run,
    own: Own = None,
    split: Split = "test",
    images: Images = None,
    umap: Annotated[bool, typer.Option("--umap", help="Draw a UMAP instead of principal components.")] = False,
    label: Label = None,
    invert: Invert = False,
    stochastic: Stochastic = False,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    trust: Trust = None,
) -> None:
    """Write the codes of images as tables (.npz, .csv) and draw them in two dimensions (.png)."""
    _look("embed", locals())


def _look(command: str, given: dict[str, Any]) -> None:
    """Call the function of `vaelab.looking.explore` with what was given; print the files that it has written.

    What is to be said of them goes to the standard error.
    """
    from vaelab.looking import explore

    result = getattr(explore, command)(**{name: value for name, value in given.items() if value is not None})
    for note in result.notes:
        typer.echo(note, err=True)
    for path in result.paths:
        typer.echo(path)
