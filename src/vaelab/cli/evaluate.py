"""The commands that measure: evaluate, report."""

from pathlib import Path
from typing import Annotated

import typer

from vaelab.cli.arguments import Prior, Run, Seed, Split, Trust
from vaelab.cli.printing import console, print_evaluation, track
from vaelab.errors import RunError

commands = typer.Typer()


@commands.command()
def evaluate(
    run: Run,
    split: Split = "test",
    samples: Annotated[
        int | None,
        typer.Option(
            help="Samples of z per image, such as 5000, for the importance-weighted log-likelihood; takes minutes."
        ),
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(
            help="Images to sample, such as 10000, and compare with those of the split by Frechet distance, ..."
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="The feature space for --generation: pixels, classifier, a network of torchvision.models such as "
            "inception_v3, or FILE.py:NAME of your own."
        ),
    ] = "classifier",
    weights: Annotated[
        str | None,
        typer.Option(help="A file with the weights of torchvision's network; by default they are downloaded."),
    ] = None,
    fit_gaussian: Annotated[
        bool,
        typer.Option(
            "--fit-gaussian", help="With --generation: sample z from a Gaussian fitted to the codes of training images."
        ),
    ] = False,
    factors: Annotated[
        bool, typer.Option("--factors", help="Disentanglement scores of data with known factors: MIG, DCI, ...")
    ] = False,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of your own, package.module.function; needs --trust package.")
    ] = None,
    prior: Prior = None,
    seed: Seed = None,
    trust: Trust = None,
) -> None:
    """Compute metrics of a run's model, such as ELBO, SSIM, active units; docs/metrics.md defines them."""
    from vaelab.looking.evaluate import Wanted, evaluation_of

    if prior is not None:
        from vaelab.runs.locate import prior_of

        run = prior_of(run, prior)
    wanted = Wanted(samples, generation, features, weights, fit_gaussian, factors, metric or [])
    try:
        evaluation = evaluation_of(run, wanted, split=split, seed=seed, trust=trust or [], track=track)
    except KeyboardInterrupt as stopped:
        typer.echo(
            f"interrupted: finished metrics are in {stopped.args[0]}" if stopped.args else "interrupted", err=True
        )
        raise typer.Exit(130) from None
    print_evaluation(evaluation)


@commands.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Sweep folders, run folders, or folders that contain them.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The page, NAME.html; NAME.csv goes beside it. By default report.html in the folder."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics to compare, in this order: test/elbo,generation/kid. By default all.")
    ] = None,
) -> None:
    """Compare runs in a table, here and as .csv, and on a page with charts and pictures (.html)."""
    from vaelab.report.report import as_table, collect, remarks, write

    if output is not None and output.suffix != ".html":
        raise RunError(f"--output {output}: the name should end in .html")
    page = output or Path(folders[0] if len(folders) == 1 else "", "report.html")
    found = collect(folders, [] if metrics is None else [name.strip() for name in metrics.split(",")])
    title = ", ".join(folder.resolve().name for folder in folders)
    written = write(found, page, title=title)
    console(wide=True).print(as_table(found))
    for line in [*remarks(found), *written]:
        typer.echo(line)
