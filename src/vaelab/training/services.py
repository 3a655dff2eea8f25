"""The services on a network that a run may log to, and the settings that say where they are."""

import os
from collections.abc import Iterator
from configparser import ConfigParser, Error
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig


def addresses(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Each service that a run with this config logs to, and its address."""
    loggers = config.get("logger")
    for logger in loggers.values() if isinstance(loggers, DictConfig) else ():
        if not isinstance(logger, DictConfig):
            continue
        if str(logger.get("_target_")).endswith(".wandb") and logger.get("offline") is not True:
            yield "Weights & Biases", wandb_address()
        if logger.get("tracking_uri") is not None:
            yield "MLflow", str(logger.get("tracking_uri"))


def wandb_address() -> str:
    """W&B's server: WANDB_BASE_URL or, of one's own settings, those in ~/.config/wandb or WANDB_CONFIG_DIR."""
    folder = os.environ.get("WANDB_CONFIG_DIR", Path("~", ".config", "wandb"))
    settings = ConfigParser(interpolation=None)
    with suppress(Error, UnicodeDecodeError):
        settings.read(Path(folder, "settings").expanduser())
    own = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback=None)
    try:
        from wandb import Settings

        return str((Settings(base_url=own) if own else Settings()).base_url).rstrip("/")  # W&B has moved before
    except (ImportError, ValueError):  # it is said elsewhere that there is no W&B, or that it takes no such URL
        return own or "https://api.wandb.ai"


@contextmanager
def without_settings_here() -> Iterator[None]:
    """Stand in an empty folder: W&B takes settings, its server among them, from wandb/ in the folder one stands in."""
    with TemporaryDirectory() as empty, chdir(empty):
        yield
