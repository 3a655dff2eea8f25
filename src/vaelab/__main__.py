"""The command `vaelab`, and `python -m vaelab`."""

import sys
import warnings
from typing import Any


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback, also while it is being imported. A warning is one line."""
    if sys.platform == "win32":
        print("error: vaelab runs on Linux and macOS; on Windows, use WSL", file=sys.stderr)
        sys.exit(2)
    warnings.formatwarning = _one_line
    try:
        from vaelab.cli.main import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


def _one_line(message: Warning | str, *place: Any, **line: Any) -> str:
    return f"warning: {' '.join(str(message).split())}\n"


if __name__ == "__main__":
    main()
