"""The command line. Heavy imports happen inside the commands, so that help and config mistakes appear at once."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from vaelab import __version__
from vaelab.cli import evaluate, explore, importing, ledger, score, share, train
from vaelab.cli.printing import complain, console, is_first_here
from vaelab.errors import UserError

app = typer.Typer(
    name="vaelab",
    help="Experiments with autoencoders, driven by configs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def vaelab(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Experiments with autoencoders, driven by configs."""


for group in (train, ledger, importing, evaluate, score, explore, share):
    app.add_typer(group.commands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default that of sys.argv.

    Exits with 2 after a user's mistake, which is printed without a traceback, with 1 where a disk is full or a run was
    not reproduced, with 3 where the loss is NaN or infinite, with 130 after Ctrl-C, with 143 after SIGTERM or SIGUSR1.
    """
    try:
        os.getcwd()  # noqa: PTH109 - only to see whether it exists
    except FileNotFoundError:
        complain(["the folder that this command runs in was removed: change to one that exists"])
        sys.exit(UserError.exit_code)
    try:
        app(arguments, prog_name="vaelab", standalone_mode=True)
    except UserError as error:
        # All processes of a launcher find the same; the first one on each machine reports it.
        complain(str(error).splitlines() if is_first_here() else [])
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console(errors=True).print("interrupted")
        sys.exit(130)
    except Exception as error:
        from vaelab.runs.surroundings import no_memory

        if not (why := no_memory(error)):
            raise
        complain([why])
        sys.exit(UserError.exit_code)
