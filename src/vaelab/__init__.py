"""Experiments with autoencoders, driven by configs.

>>> import vaelab
>>> config = vaelab.compose(["model=ae", "latent_dim=8"])
>>> config.latent_dim
8

`vaelab.train(config)` trains it and returns a `Run`, `vaelab.load(run)` its model, `vaelab.evaluate(run)` its metrics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaelab.config.compose import compose
    from vaelab.errors import ConfigError, DataError, DivergenceError, RunError, StorageError, UserError
    from vaelab.looking.evaluate import evaluate
    from vaelab.looking.load import load
    from vaelab.runs.reproduce import Reproduction, reproduce
    from vaelab.runs.run import Run, resume, train

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "DataError",
    "DivergenceError",
    "Reproduction",
    "Run",
    "RunError",
    "StorageError",
    "UserError",
    "compose",
    "evaluate",
    "load",
    "reproduce",
    "resume",
    "train",
]

# Lightning takes seconds to import: `import vaelab` and the command line wait for it only when they need it.
_HOMES = {
    "compose": "vaelab.config.compose",
    "evaluate": "vaelab.looking.evaluate",
    "load": "vaelab.looking.load",
    **dict.fromkeys(["Reproduction", "reproduce"], "vaelab.runs.reproduce"),
    **dict.fromkeys(["Run", "resume", "train"], "vaelab.runs.run"),
    **dict.fromkeys(
        ["ConfigError", "DataError", "DivergenceError", "RunError", "StorageError", "UserError"], "vaelab.errors"
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vaelab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
