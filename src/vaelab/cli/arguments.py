"""Every argument and option that more than one command has: its name, help, default. A command lists the names."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vaelab.cli.completion import complete_override

Run = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint in it.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="What differs from the defaults: group=option of those below, or key=value of what --show prints.",
        show_default=False,
        autocompletion=complete_override,
    ),
]
Split = Annotated[str, typer.Option(help="The images: train, validation or test.")]
Label = Annotated[
    str | None,
    typer.Option(help="The label, name or number, given to a conditional model with every image; by default its own."),
]
Invert = Annotated[bool, typer.Option("--invert", help="Exchange light and dark of your own images.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of what is drawn at random; by default the run's.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]
Own = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Images of your own: files, folders of files, .npy or .npz. They are fitted to the model, and each step "
        "of that is printed. Without any, images of a split are used.",
        show_default=False,
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(help="A prior that `vaelab fit` has fitted to the run, by its folder's name, such as flow."),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        help="A package of your own, or a class, that a config may name; its code runs. Or a server that a run folder "
        "may log to.",
    ),
]


def option(kind: Any, default: Any, *names: str, **settings: Any) -> tuple[Any, Any]:
    """The annotation and the default of an option."""
    return Annotated[kind, typer.Option(*names, **settings)], default


OPTIONS: dict[str, tuple[Any, Any]] = {
    "run": (Run, inspect.Parameter.empty),
    "own": (Own, None),
    "split": (Split, "test"),
    "images": option(str | None, None, help="How many of the images, or their numbers: 0,5,7."),
    "label": (Label, None),
    "invert": (Invert, False),
    "prior": (Prior, None),
    "stochastic": option(bool, False, "--stochastic", help="Sample z from q(z|x) instead of taking its mean."),
    "seed": (Seed, None),
    "output": option(
        list[Path] | None,
        None,
        "--output",
        "-o",
        help="A file to write; may be given repeatedly. By default in the run's figures/, as COMMAND.*",
    ),
    "force": (Force, False),
    "trust": (Trust, None),
}
"""The options of the commands that draw, by the parameters of the functions that they call."""


def with_options(
    function: Callable[..., None], names: str, own: dict[str, tuple[Any, Any]] | None = None
) -> Callable[..., None]:
    """Give a function of keywords the signature that Typer makes a command from.

    Args:
        function: takes all of them.
        names: of the options, in the order in which the help lists them.
        own: annotations and defaults of the command's own options.
    """
    known = OPTIONS | (own or {})
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=known[name][0], default=known[name][1])
        for name in names.split()
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function
