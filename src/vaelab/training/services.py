"""Network services that a run may log to, and their addresses."""

import os
from collections.abc import Iterator
from configparser import ConfigParser, Error
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig


def addresses(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield each service that a run with this config logs to, and its address."""
    loggers = config.get("logger")
    for logger in loggers.values() if isinstance(loggers, DictConfig) else ():
        if not isinstance(logger, DictConfig):
            continue
        if str(logger.get("_target_")).endswith(".wandb") and logger.get("offline") is not True:
            yield "Weights & Biases", wandb_address()
        if logger.get("tracking_uri") is not None:
            yield "MLflow", str(logger.get("tracking_uri"))


def wandb_address() -> str:
    """Return W&B's server: from WANDB_BASE_URL or the user's settings in ~/.config/wandb or WANDB_CONFIG_DIR."""
    folder = os.environ.get("WANDB_CONFIG_DIR", Path("~", ".config", "wandb"))
    settings = ConfigParser(interpolation=None)
    with suppress(Error, UnicodeDecodeError):
        settings.read(Path(folder, "settings").expanduser())
    own = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback=None)
    try:
        from wandb import Settings

        return str((Settings(base_url=own) if own else Settings()).base_url).rstrip(
            "/"
        )  # W&B has changed its default before
    except (ImportError, ValueError):  # reported elsewhere: W&B is not installed, or refuses the URL
        return own or "https://api.wandb.ai"


@contextmanager
def without_settings_here() -> Iterator[None]:
    """Change to an empty folder: W&B reads settings, among them its server, from wandb/ in the working directory."""
    with TemporaryDirectory() as empty, chdir(empty):
        yield
