"""Read checkpoints that anybody may have written: no code is run, and memory is bounded by the file's size."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.errors import RunError
from vaelab.training.tensor_files import SUFFIX, read_weights


def read(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of plain tensors and containers, every byte of it checked; of a .safetensors file the weights alone.

    Raises:
        Exception: of any kind; the file is damaged, or is not what torch.save writes.
    """
    if path.suffix == SUFFIX:
        weights, texts = read_weights(path)
        return {"state_dict": weights, "global_step": int(texts["step"])}
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, as no checkpoint is")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("it declares more content than it has")
        damaged = archive.testzip()  # torch.load does not look at the checksums
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"it holds a {type(checkpoint).__name__}, not a checkpoint")
    if any(tensor.nbytes > size for tensor in tensors(checkpoint)):
        raise ValueError("it declares a tensor that is larger than the file")
    return checkpoint


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` its weights in a checkpoint, which may hold those of critics beside them.

    Raises:
        RunError: it is damaged, not of this model, or holds what is NaN or infinite.
    """
    try:
        state = read(path)["state_dict"]
        weights = {
            name.removeprefix("model."): value for name, value in state.items() if not name.startswith("objective.")
        }
        for name, own in model.state_dict().items():
            if name in weights and weights[name].dtype.is_floating_point != own.dtype.is_floating_point:
                raise ValueError(f"{name} is of {weights[name].dtype}, not of {own.dtype}")
        model.load_state_dict(weights)
        if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
            raise ValueError("a weight is NaN or infinite")
    except RunError:
        raise
    except Exception as error:  # a foreign file may fail in any way
        raise RunError(f"{path} cannot be loaded: {reason(error)}") from error


def step_of(path: Path) -> int:
    """The optimizer's step that a checkpoint was written at.

    Raises:
        RunError: it does not say.
    """
    step = read(path).get("global_step")
    if not isinstance(step, int):
        raise RunError(f"{path} cannot be loaded: it has no global_step")
    return step


def tensors(content: Any) -> Iterator[Tensor]:
    """The tensors in nested containers."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from tensors(value)


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return " ".join(str(error).split())[:300] or type(error).__name__
