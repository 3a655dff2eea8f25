"""The commands that draw what a run has learned. Each calls a function of `vaelab.looking`."""

from importlib import import_module
from typing import Any

import typer

from vaelab.cli.arguments import option, with_options

commands = typer.Typer()


def _drawing(name: str, summary: str, options: str, *, module: str = "explore", **own: tuple[Any, Any]) -> None:
    """Add a command.

    Args:
        name: of the command, and of the function in `vaelab.looking.MODULE` that it calls.
        summary: for the help.
        options: names of its options.
        module: where the function is.
        own: options that no other command has, or has with another meaning.
    """

    def command(**given: Any) -> None:
        if "labels" in given:
            given["labels"] = None if given["labels"] is None else given["labels"].split(",")
        function = getattr(import_module(f"vaelab.looking.{module}"), name)
        result = function(**{key: value for key, value in given.items() if value is not None})
        for note in result.notes:
            typer.echo(note, err=True)
        for path in result.paths:
            typer.echo(path)

    commands.command(name, help=summary)(with_options(command, options, own))


_drawing(
    "reconstruct",
    "Draw images over their reconstructions (.png); of a table, write both (.csv).",
    "run own split images label invert stochastic seed output force trust",
)
_drawing(
    "sample",
    "Draw new images from the prior (.png).",
    "run count labels fit_gaussian prior temperature top_k stochastic seed output force trust",
    count=option(int, 64, min=1, help="How many images."),
    labels=option(
        str | None, None, help="Of a conditional model: names or numbers, 0,1,2 in turn; by default every one."
    ),
    fit_gaussian=option(
        bool, False, "--fit-gaussian", help="Draw z from a Gaussian fitted to the codes of the training images."
    ),
    temperature=option(float | None, None, help="Of a transformer over codes: below 1, likely codes become likelier."),
    top_k=option(int | None, None, min=1, help="Of a transformer over codes: draw of the so many likeliest."),
    stochastic=option(bool, False, "--stochastic", help="Sample the pixels from p(x|z) instead of taking their means."),
)
_drawing(
    "interpolate",
    "Go from each image to the next between their codes (.png, or .gif with --output).",
    "run own split images steps spherical label invert stochastic seed output force trust",
    steps=option(int, 11, min=2, help="Images from one to the next, with both ends."),
    spherical=option(bool, False, "--spherical", help="On an arc instead of a line."),
)
_drawing(
    "traverse",
    "Vary each latent dimension by itself, those with the largest KL first (.png and .gif).",
    "run split image label dimensions reach steps stochastic seed output force trust",
    image=option(int | None, None, min=0, help="Hold the code of this image of the split instead of the mean."),
    label=option(
        str | None, None, help="The label, name or number, given to a conditional model; by default the image's, or 0."
    ),
    dimensions=option(int, 16, min=1, help="The largest number of rows."),
    reach=option(float, 3.0, help="Standard deviations on both sides of the mean."),
    steps=option(int, 11, min=2, help="Columns: values of each dimension."),
)
_drawing(
    "manifold",
    "Draw the latent plane of a model with latent_dim=2 (.png).",
    "run label steps output force trust",
    label=option(str | None, None, help="The label, name or number, given to a conditional model; by default 0."),
    steps=option(int, 20, min=2, help="Images in each of the two directions."),
)
_drawing(
    "embed",
    "Write the codes of images as tables (.npz, .csv) and draw them in two dimensions (.png).",
    "run own split images umap label invert stochastic seed output force trust",
    module="embedding",
    umap=option(bool, False, "--umap", help="Draw a UMAP instead of principal components."),
)
