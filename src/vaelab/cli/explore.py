"""The commands that look at what a run has learned. Each is a function of `vaelab.looking.explore`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vaelab.looking.explore import Result

commands = typer.Typer()

Run = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint in it.", show_default=False)]
Own = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Images of your own: files, folders of files, .npy or .npz. They are fitted to the model, and it is said "
        "how. Without any, images of a split are taken.",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="The images: train, validation or test.")]
Images = Annotated[str | None, typer.Option(help="How many of the images, or their numbers: 0,5,7.")]
Label = Annotated[
    int | None,
    typer.Option(min=0, help="What a conditional model is told that all images show; by default their own labels."),
]
OneLabel = Annotated[int | None, typer.Option("--label", min=0, help="What a conditional model is told; by default 0.")]
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
    typer.Option("--trust", help="A package of your own whose classes a config may name; its code runs."),
]


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
    """Draw images over their reconstructions (.png)."""
    from vaelab.looking import explore

    _print(
        explore.reconstruct(
            run,
            own or [],
            split=split,
            images=images,
            label=label,
            invert=invert,
            stochastic=stochastic,
            seed=seed,
            output=output or [],
            force=force,
            trust=trust or [],
        )
    )


@commands.command()
def sample(
    run: Run,
    count: Annotated[int, typer.Option(min=1, help="Images.")] = 64,
    labels: Annotated[
        str | None, typer.Option(help="Of a conditional model: 0,1,2 in turn; by default every one.")
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
    from vaelab.looking import explore

    _print(
        explore.sample(
            run,
            count=count,
            labels=_numbers(labels),
            fit_gaussian=fit_gaussian,
            stochastic=stochastic,
            seed=seed,
            output=output or [],
            force=force,
            trust=trust or [],
        )
    )


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
    from vaelab.looking import explore

    _print(
        explore.interpolate(
            run,
            own or [],
            split=split,
            images=images,
            steps=steps,
            spherical=spherical,
            label=label,
            invert=invert,
            stochastic=stochastic,
            seed=seed,
            output=output or [],
            force=force,
            trust=trust or [],
        )
    )


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
    from vaelab.looking import explore

    _print(
        explore.traverse(
            run,
            split=split,
            image=image,
            label=label,
            dimensions=dimensions,
            reach=reach,
            steps=steps,
            stochastic=stochastic,
            seed=seed,
            output=output or [],
            force=force,
            trust=trust or [],
        )
    )


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
    from vaelab.looking import explore

    _print(
        explore.manifold(
            run,
            label=label,
            steps=steps,
            output=output or [],
            force=force,
            trust=trust or [],
        )
    )


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
    from vaelab.looking import explore

    _print(
        explore.embed(
            run,
            own or [],
            split=split,
            images=images,
            umap=umap,
            label=label,
            invert=invert,
            stochastic=stochastic,
            seed=seed,
            output=output or [],
            force=force,
            trust=trust or [],
        )
    )


def _numbers(text: str | None) -> list[int] | None:
    """Those that "0,1,2" lists."""
    from vaelab.errors import RunError

    try:
        return [int(word) for word in text.split(",")] if text is not None else None
    except ValueError:
        raise RunError(f"--labels {text}: give numbers such as 0,1,2") from None


def _print(result: "Result") -> None:
    """Where the files are, on the standard output; what is to be said of them beside it."""
    for note in result.notes:
        typer.echo(note, err=True)
    for path in result.paths:
        typer.echo(path)
