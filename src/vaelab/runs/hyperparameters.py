"""Hyperparameters of a run: its config without settings of where and how fast it runs."""

from collections.abc import Iterator, Mapping
from typing import Any

# Where and how fast a run is trained and how it is evaluated; not what it learns.
SURROUNDINGS = {"callbacks", "logger", "metrics", "trainer", "data.root", "paper"}
MADE_BY = {"trainer.max_epochs", "trainer.max_steps", "trainer.precision", "trainer.accumulate_grad_batches"}


def hyperparameters(config: Mapping[str, Any]) -> dict[str, str | float]:
    """Return the settings that a person would compare runs by, flat: name -> number or text.

    A part has the name of its class; its options follow. Null values are left out.

    >>> hyperparameters({"seed": 1, "encoder": {"_target_": "vaelab.models.networks.MLPEncoder", "hidden": [400]}})
    {'seed': 1, 'encoder': 'MLPEncoder', 'encoder.hidden': '[400]'}

    Args:
        config: a run's, in plain types.
    """
    flat = dict(_flat("", config))
    return {name: value for name, value in flat.items() if name in MADE_BY or not _among(SURROUNDINGS, name)}


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, str | float]]:
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key == "_target_":
            yield prefix, str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            yield from _flat(name, value)
        elif isinstance(value, bool | list):
            yield name, str(value)
        elif value is not None:
            yield name, value


def _among(groups: set[str], name: str) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)
