"""The command `vaelab`, and `python -m vaelab`."""

import sys


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback, also while it is being imported."""
    try:
        from vaelab.cli.main import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
