"""A network in the format of another library, and the same network run by that library."""

import json
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vaelab.errors import RunError
from vaelab.sharing.networks import Network

# What a message of torch or of its converter calls an operation.
_OPERATION = re.compile(
    r"(?:OpOverload\(op=')?\b((?:aten|prims|torchvision|quantized|[a-z_]\w*)(?:::|\.)\w+)(?:\.\w+)?\b"
)
_TORCH = Path(torch.__file__).parent
Runner = Callable[[Mapping[str, Tensor]], list[Tensor]]


class Written(NamedTuple):
    """The bytes of a file, and what runs them."""

    content: bytes
    run: Runner


class Format(Protocol):
    """Writes a network."""

    suffix: str

    def require(self) -> None:
        """Raise RunError where a package is missing."""

    def write(self, network: Network, metadata: Mapping[str, str]) -> Written:
        """The file, with the metadata in it, and the network that is in the file.

        Raises:
            RunError: the network has an operation that the format has not.
        """


class Onnx:
    """ONNX, run by ONNX Runtime on the CPU."""

    suffix = ".onnx"

    def require(self) -> None:
        """Refuse to go on without the packages."""
        if not all(find_spec(package) for package in ("onnx", "onnxruntime", "onnxscript")):
            raise RunError('explore and export --to onnx need the packages of vaelab[onnx]: pip install "vaelab[onnx]"')

    def write(self, network: Network, metadata: Mapping[str, str]) -> Written:
        """The model with the metadata among its metadata_props."""
        program = traced(network)
        with _refusals(network, "ONNX"), _quiet():
            converted = torch.onnx.export(
                program,
                tuple(network.inputs.values()),
                input_names=list(network.inputs),
                output_names=network.outputs,
                dynamo=True,
                verbose=False,
            )
            assert converted is not None
            model = converted.model_proto
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        if (size := model.ByteSize()) >= 2**31:
            raise RunError(
                f"the {network.name} takes {size / 1e9:.1f} GB, and a file of ONNX holds 2 GB: "
                "--to safetensors or torch_export"
            )
        content = model.SerializeToString()
        return Written(content, self._runner(content))

    def _runner(self, content: bytes) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
            found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            return [torch.from_numpy(output) for output in found]

        return run


class TorchExport:
    """A program of torch.export, as torch.export.save writes it."""

    suffix = ".pt2"

    def require(self) -> None:
        """Nothing but torch."""

    def write(self, network: Network, metadata: Mapping[str, str]) -> Written:
        """The program with the metadata as the file vaelab.json in it."""
        import io

        program, file = traced(network), io.BytesIO()
        with _refusals(network, "torch.export"), _quiet():
            torch.export.save(program, file, extra_files={"vaelab.json": json.dumps(dict(metadata))})
            content = file.getvalue()
            module = torch.export.load(io.BytesIO(content)).module()

        def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
            with torch.no_grad():
                found = module(*inputs.values())
            return [found] if isinstance(found, Tensor) else list(found)

        return Written(content, run)


FORMATS: Mapping[str, Format] = {"onnx": Onnx(), "torch_export": TorchExport()}


def traced(network: Network) -> torch.export.ExportedProgram:
    """The operations of a network, for any number of rows.

    Raises:
        RunError: what it does depends on values, or on the number of rows.
    """
    rows = torch.export.Dim("batch")
    with _refusals(network, "torch.export"), _quiet(), torch.no_grad():
        return torch.export.export(
            network.module, tuple(network.inputs.values()), dynamic_shapes=tuple({0: rows} for _ in network.inputs)
        )


@contextmanager
def _refusals(network: Network, library: str) -> Iterator[None]:
    """Say in one line which operation of a network a library does not take."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # of many kinds, most of them private
        raise RunError(
            f"the {network.name} cannot be exported: {library} has no way for {_operation(error)}"
        ) from error


def _operation(error: BaseException) -> str:
    """The operation that an error is about, and the line that asks for it, as far as it says so."""
    chain, lines = [], list[str]()
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        lines += [
            f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line}"
            for frame in traceback.extract_tb(link.__traceback__)
            if not Path(frame.filename).is_relative_to(_TORCH)
            and "vaelab/sharing" not in Path(frame.filename).as_posix()
        ]
        link = link.__cause__ or link.__context__
    text = " ".join(str(link) for link in chain)
    if "specialized it to be a constant" in text:
        return "what depends on the number of rows, such as len(x): x.shape[0] does not"
    named = [
        name
        for name in _OPERATION.findall(text)
        if name.split(":")[0].split(".")[0] in ("aten", "prims", "torchvision")
    ]
    where = f" ({lines[-1]})" if lines else ""
    if named:
        return f"{named[0]}{where}"
    return f"an operation of it{where}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter says of its own work."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def described(values: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as texts: JSON but for what is text already."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
