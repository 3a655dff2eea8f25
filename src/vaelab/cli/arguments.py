"""The arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from vaelab.cli.completion import complete_override

Run = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint in it.", show_default=False)]
Own = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Images of your own: files, folders of files, .npy or .npz. They are fitted to the model, and each step "
        "of that is printed. Without any, images of a split are taken.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="What differs from the defaults: group=option of those below, or key=value of what --show prints.",
        show_default=False,
        autocompletion=complete_override,
    ),
]
Split = Annotated[str, typer.Option(help="The images: train, validation or test.")]
Images = Annotated[str | None, typer.Option(help="How many of the images, or their numbers: 0,5,7.")]
Label = Annotated[
    str | None,
    typer.Option(help="The label, name or number, given to a conditional model with every image; by default its own."),
]
OneLabel = Annotated[
    str | None, typer.Option("--label", help="The label, name or number, given to a conditional model; by default 0.")
]
Invert = Annotated[bool, typer.Option("--invert", help="Exchange light and dark of your own images.")]
Stochastic = Annotated[bool, typer.Option("--stochastic", help="Sample z from q(z|x) instead of taking its mean.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of what is drawn at random; by default the run's.")]
Output = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        "-o",
        help="A file to write; may be given repeatedly. By default in the run's figures/, as COMMAND.*",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        help="A package of your own, or a class, that a config may name; its code runs. Or a server that a run folder "
        "may log to.",
    ),
]
