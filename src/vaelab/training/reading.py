"""Read checkpoints that anybody may have written, without running code, in memory bounded by the file's size."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.errors import RunError
from vaelab.training.tensor_files import SUFFIX, read_weights


def read(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of plain tensors and containers, or the weights of a .safetensors file; check every byte.

    Raises:
        Exception: of any kind, if the file is damaged or was not written by torch.save.
    """
    if path.suffix == SUFFIX:
        weights, texts = read_weights(path)
        return {"state_dict": weights, "global_step": int(texts["step"])}
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, and checkpoints are not")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("it declares more content than it has")
        damaged = archive.testzip()  # torch.load does not check the checksums
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"it contains a {type(checkpoint).__name__}, not a checkpoint")
    if any(tensor.nbytes > size for tensor in tensors(checkpoint)):
        raise ValueError("it declares a tensor larger than the file")
    return checkpoint


def load_weights(model: nn.Module, path: Path, parts: Sequence[str] | None = None) -> None:
    """Load the weights of `model`, or of some of its `parts`; the checkpoint may have those of critics as well.

    Raises:
        RunError: it is damaged, of another model, or has a weight that is NaN or infinite.
    """
    try:
        state = read(path)["state_dict"]
        weights = {
            name.removeprefix("model."): value for name, value in state.items() if not name.startswith("objective.")
        }
        own = model.state_dict()
        if parts is not None:
            weights = {name: value for name, value in weights.items() if name.partition(".")[0] in parts}
            own = {name: value for name, value in own.items() if name.partition(".")[0] in parts}
        for name, value in own.items():
            if name in weights and weights[name].dtype.is_floating_point != value.dtype.is_floating_point:
                raise ValueError(f"{name} has type {weights[name].dtype}, not {value.dtype}")
            if name in weights and weights[name].shape != value.shape:
                shapes = [tuple(weights[name].shape), tuple(value.shape)]
                raise ValueError(f"{name} has the shape {shapes[0]}, and in this model {shapes[1]}")
        if parts is not None and weights.keys() != own.keys():
            missing, more = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
            raise ValueError(f"it has no {missing[0]}" if missing else f"it has {more[0]}, and this model does not")
        model.load_state_dict(weights, strict=parts is None)
        if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
            raise ValueError("a weight is NaN or infinite")
    except RunError:
        raise
    except Exception as error:  # a foreign file may fail in any way
        raise RunError(f"{path} cannot be loaded: {reason(error)}") from error


def step_of(path: Path) -> int:
    """Return the optimizer's step at which a checkpoint was written.

    Raises:
        RunError: the checkpoint does not have it.
    """
    step = read(path).get("global_step")
    if not isinstance(step, int):
        raise RunError(f"{path} cannot be loaded: it has no global_step")
    return step


def tensors(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from tensors(value)


def reason(error: Exception) -> str:
    """Format an error in one line."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return " ".join(str(error).split())[:300] or type(error).__name__
