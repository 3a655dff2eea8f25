"""The commands that train: train, resume, reproduce."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import OmegaConf
from rich.table import Table

from vaelab.cli.arguments import Overrides, Run, Trust
from vaelab.cli.printing import console, report_run, report_sweep
from vaelab.config.compose import compose_with_hydra, run_dir, without_hydra
from vaelab.config.conf import groups, options
from vaelab.errors import ConfigError
from vaelab.text import clean

commands = typer.Typer()


class Part(StrEnum):
    """The choices of --cfg."""

    job = "job"
    hydra = "hydra"
    all = "all"


class Info(StrEnum):
    """The choices of --info."""

    defaults = "defaults"
    defaults_tree = "defaults-tree"
    searchpath = "searchpath"


_GROUPS = "\n\n".join(
    [
        "Groups and their options:",
        *(f"{name}: {', '.join(options(name))}" for name in groups()),
        "Schedules, terms and corruptions are placed at a key: +schedule@objective.kl_weight=linear, "
        "+term@objective.terms.mmd=mmd.",
    ]
)


@commands.command(epilog=_GROUPS)
def train(
    overrides: Overrides = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Sweep: one job for each combination of a=1,2 b=3,4.")
    ] = False,
    config_dir: Annotated[
        Path | None, typer.Option(help="A folder of your own config groups, searched as well.")
    ] = None,
    trust: Trust = None,
    show: Annotated[
        bool, typer.Option("--show", help="Check the config (not the data and devices), print it resolved and stop.")
    ] = False,
    cfg: Annotated[
        Part | None, typer.Option("--cfg", "-c", help="Print the config as Hydra composes it, unchecked, and stop.")
    ] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="With --cfg: resolve its interpolations.")] = False,
    info: Annotated[
        Info | None, typer.Option("--info", "-i", help="Print the files that the config is composed of and stop.")
    ] = None,
) -> None:
    """Train a model, or with -m several: `vaelab train model=vae latent_dim=8 trainer.max_epochs=5`."""
    overrides, trust = overrides or [], trust or []
    if cfg is not None or info is not None:
        from vaelab.cli.composition import print_config, print_info

        if cfg is not None:
            print_config(cfg.value, overrides, config_dir, resolve=resolve)
        if info is not None:
            print_info(info.value, overrides, config_dir)
        return
    if multirun:
        from vaelab.sweeps.sweep import sweep

        report_sweep(partial(sweep, overrides, config_dir=config_dir, trust=trust))
        return
    config = compose_with_hydra(overrides, config_dir=config_dir)
    if config.hydra.runtime.choices.get("sweep") is not None:
        raise ConfigError([f"sweep={config.hydra.runtime.choices.sweep}: a sweep needs -m (--multirun)"])
    own, folder = without_hydra(config), run_dir(config)
    from vaelab.config.check import checked  # needs torch, but not yet Lightning

    what = checked(own, trust=trust)
    if show:
        typer.echo(OmegaConf.to_yaml(own), nl=False)
        return
    from vaelab.config.overrides import parse
    from vaelab.runs.run import train_into

    chosen = parse(overrides, []).sets("hydra.run.dir")
    report_run(partial(train_into, folder, what, exact=chosen, overrides=overrides))


@commands.command()
def fit(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Which prior, prior={'|'.join(options('fit'))}, and what differs from its defaults, such as "
            "prior.components=20 or trainer.max_epochs=5.",
            show_default=False,
        ),
    ] = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Sweep: one job for each combination, prior=flow,mixture.")
    ] = False,
    trust: Trust = None,
) -> None:
    """Fit a density to the codes of a run, its weights frozen: `vaelab fit RUN prior=flow`. It goes to RUN/priors/."""
    from vaelab.runs.priors import fit as fit_prior
    from vaelab.runs.priors import sweep_words

    overrides, trust = overrides or [], trust or []
    if multirun:
        from vaelab.sweeps.sweep import sweep

        report_sweep(partial(sweep, sweep_words(run, overrides, trust=trust), trust=trust))
        return
    report_run(partial(fit_prior, run, overrides, trust=trust))


@commands.command()
def resume(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run or of a sweep, or a checkpoint.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="For a run: more epochs, trainer.max_epochs=40. For a sweep: another launcher, such as "
            "hydra/launcher=joblib; for a search also more trials, hydra.sweeper.n_trials=50.",
            show_default=False,
        ),
    ] = None,
    trust: Trust = None,
) -> None:
    """Resume a run or a sweep that was stopped; it ends in the same bits as if it had not been."""
    from vaelab.runs.locate import folder_of
    from vaelab.sweeps.folder import SweepFolder

    if SweepFolder.is_one(run):
        from vaelab.sweeps.sweep import resume as resume_sweep

        report_sweep(partial(resume_sweep, run, overrides or [], trust=trust or []))
        return
    if folder_of(run).done and not overrides:
        typer.echo(f"{run} is done; to train for more epochs, add trainer.max_epochs=...")
        return
    from vaelab.runs.run import resume as resume_run

    report_run(partial(resume_run, run, overrides or [], trust=trust or []))


@commands.command()
def reproduce(
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new run folder; by default outputs/runs/<time>_<name>_again."),
    ] = None,
    trust: Trust = None,
) -> None:
    """Run a run's config again and compare the two bit by bit; exit with 1 if they differ."""
    from vaelab.runs.differences import summary
    from vaelab.runs.reproduce import reproduce as run_again

    reproduction = run_again(run, folder=output, trust=trust or [])
    if reproduction.identical:
        typer.echo(f"identical: {reproduction.run.folder} equals {run} bit by bit")
    else:
        table = Table("figure", "", "absolute", "relative", box=None)
        for difference in summary(reproduction.differences):
            amounts = (difference.absolute, difference.relative)
            shown = ["" if amount is None else f"{amount:.3g}" for amount in amounts]
            table.add_row(clean(" ".join(difference.place)), clean(difference.what), *shown)
        console().print(table)
        typer.echo(f"different: {reproduction.run.folder} differs from {run}")
    for part, changes in reproduction.circumstances.items():
        typer.echo(f"not the same {part}: {'; '.join(changes)}")
    if not reproduction.identical:
        if not reproduction.circumstances:
            typer.echo("packages, data, hardware and code are the same")
        raise typer.Exit(1)
