"""The services on a network that a run may log to, and the settings that say where they are."""

import os
from collections.abc import Iterator
from configparser import ConfigParser, Error
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

WANDB = "https://api.wandb.ai"


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
    try:
        settings.read(Path(folder, "settings").expanduser())
        own = settings.get("default", "base_url", fallback=WANDB)
    except (Error, UnicodeDecodeError):
        own = WANDB
    return os.environ.get("WANDB_BASE_URL", own).rstrip("/")


@contextmanager
def without_settings_here() -> Iterator[None]:
    """Stand in an empty folder: W&B takes settings, its server among them, from wandb/ in the folder one stands in."""
    with TemporaryDirectory() as empty, chdir(empty):
        yield
