"""Weights in safetensors files: tensors and texts, without pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vaelab.errors import RunError

SUFFIX = ".safetensors"


def write_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a model's weights with texts beside them.

    Raises:
        RunError: the package safetensors is not installed.
    """
    library = _library()
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    library.torch.save_file(weights, path, metadata=dict(metadata))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a file by their names, and its texts.

    Raises:
        RunError: the package safetensors is not installed.
        Exception: of any kind; the file is damaged, or is none of tensors.
    """
    library = _library()
    with library.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _library() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise RunError('safetensors files need the package safetensors: pip install "vaelab[safetensors]"') from error
    return safetensors
