"""The metrics of one split, kept in a run's evaluation/: what `vaelab evaluate` writes and a report reads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vaelab.metrics.registry import Value
from vaelab.runs.documents import read_json, typed, write_json


@dataclass(frozen=True)
class Evaluation:
    """One file of evaluation/.

    Args:
        split: train, validation or test.
        images: how many it has.
        binarize: as `data.binarize`.
        normalized_over: what p(x|z) is a density or a probability over.
        conditional: whether the model was given labels.
        step: of the optimizer, that the weights are from.
        seed: of the noise.
        metrics: by name, "test/elbo".
    """

    split: str
    images: int
    binarize: str
    normalized_over: str | None
    conditional: bool
    step: int
    seed: int
    metrics: Mapping[str, Value]

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.split}_step{self.step}_seed{self.seed}.json"

    @classmethod
    def read(cls, path: Path) -> "Evaluation | None":
        """Read a file; None where there is none.

        Raises:
            RunError: it is not an evaluation that vaelab writes.
        """
        content = read_json(path)
        if not content:
            return None
        metrics = typed(dict[str, dict[str, Any]], content.get("metrics", {}), path)
        return typed(cls, content | {"metrics": {name: _nested(metric) for name, metric in metrics.items()}}, path)

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        metrics = {name: _flat(value) for name, value in self.metrics.items()}
        write_json(path, asdict(replace(self, metrics={})) | {"metrics": metrics})


def _flat(value: Value) -> dict[str, Any]:
    error = {} if value.standard_error is None else {"standard_error": value.standard_error}
    return {"value": value.value, **error, "unit": value.unit, **value.details}


def _nested(metric: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: metric[key] for key in ("value", "unit", "standard_error") if key in metric}
    details = {key: detail for key, detail in metric.items() if key not in own}
    return {key: _number(value) for key, value in own.items()} | {"details": details}


def _number(value: Any) -> Any:
    """NaN and infinity, which JSON has as text, as numbers."""
    if isinstance(value, list):
        return [_number(one) for one in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
