"""`vaelab export`: a trained model for those who do not have vaelab, checked against itself.

The networks take and give values in the units of the data: pixels in [0, 1], all else as it is stored.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vaelab import __version__
from vaelab.errors import DataError, RunError, unwritten
from vaelab.files import replacing
from vaelab.looking.load import Trained, in_data_units, load, opened
from vaelab.metrics.subject import split_images
from vaelab.models.autoencoder import Autoencoder
from vaelab.runs.documents import signed
from vaelab.runs.folder import WEIGHTS
from vaelab.runs.locate import folder_of
from vaelab.seeding import derive_seed
from vaelab.sharing.formats import FORMATS, Runner, described
from vaelab.sharing.networks import Network, networks_of
from vaelab.training.tensor_files import write_weights

if TYPE_CHECKING:
    from vaelab.runs.run import Run

To = Literal["onnx", "torch_export", "safetensors"]
TOLERANCE = 1e-4  # of the largest number that torch gives
IMAGES = 16  # of the data that a network is checked on
PLACES = ("root", "cache", "init", "run")  # keys of a config whose values are paths; others are where they are absolute


class Exported(NamedTuple):
    """The files written, and how much they differ from torch."""

    paths: list[Path]
    notes: list[str]


def export(
    run: "Run | str | Path",
    *,
    to: To = "onnx",
    output: Path | None = None,
    force: bool = False,
    trust: Sequence[str] = (),
) -> Exported:
    """Write encoder, decoder and both of a run as `to` has them, each with what describes the model inside.

    What is in the files is run beside torch, on random and real rows and for several numbers of them, before any of
    them is there.

    Args:
        run: the run, its folder or a checkpoint.
        to: `onnx` (.onnx) or `torch_export` (.pt2): encoder, decoder and autoencoder; `safetensors`: the weights with
            the config, which `vaelab.load` reads.
        output: the folder to write to; by default export/ of the run.
        force: replace files.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: an operation of the model is not there in that format, a package is missing, or files are in the way.
    """
    folder = Path(output) if output is not None else folder_of(run).path / "export"
    names = [WEIGHTS] if to == "safetensors" else [f"{name}{FORMATS[to].suffix}" for name in NAMES]
    paths = [folder / name for name in names]
    if taken := [path for path in paths if path.exists() and not force]:
        raise RunError(f"{taken[0]} is there already: --force replaces it, --output writes elsewhere")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--output {folder} is a file: name a folder")
    trained = opened(run, trust=trust)
    if to == "safetensors":
        return _write({paths[0]: weights_file(trained, trust)}, [])
    FORMATS[to].require()
    contents, notes = networks(trained, to)
    return _write(dict(zip(paths, contents.values(), strict=True)), notes)


NAMES = ("encoder", "decoder", "autoencoder")


def networks(
    trained: Trained, to: To, names: Sequence[str] = NAMES, *, data_units: bool = True
) -> tuple[dict[str, bytes], list[str]]:
    """Files of the networks named, checked; and what was found.

    Args:
        trained: the model; with `data_units` it is changed to one for values in the units of its data.
        to: the format.
        names: of the networks.
        data_units: else they take and give values in the units that the model was trained in.

    Raises:
        RunError: an operation is not there in that format, or does not give what torch gives.
    """
    form = trained.experiment.data.form
    model = in_data_units(trained.model, form) if data_units else trained.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(trained.experiment.seed, "export"))
        checks, notes = _rows(trained, model, data_units=data_units)
    metadata = {name: description(trained, name) for name in names}
    made = [network for network in networks_of(model, *next(iter(checks.values()))) if network.name in names]
    contents = {}
    for network in made:
        written = FORMATS[to].write(network, metadata[network.name])
        largest = max(
            _difference(network, written.run, model, *rows, what=what, to=to) for what, rows in checks.items()
        )
        contents[network.name] = written.content
        notes.append(f"{network.name}: within {largest:.1e} of torch on {' and '.join(checks)}")
    return contents, notes


def description(trained: Trained, network: str) -> dict[str, str]:
    """The metadata of a file: what goes in and comes out, the config, and the form of the data."""
    form, model = trained.experiment.data.form, trained.model
    pixels = form.values == "levels"
    return described(
        {
            "vaelab": __version__,
            "name": trained.experiment.name,
            "network": network,
            "step": trained.step,
            "shape": list(form.shape),
            "values": "pixels in [0, 1]" if pixels else "in the units of the data",
            "scaling": {"shift": 0.0, "scale": 255.0 if pixels else 1.0},
            "latent_dim": model.posterior.latent_dim,
            "space": model.space,
            "conditional": model.classes is not None,
            "classes": list(form.names),
            "config": signed(OmegaConf.to_yaml(without_places(trained.folder.config))),
            "data": form.to_json(),
        }
    )


def without_places(config: DictConfig) -> DictConfig:
    """A copy that names no folder of this machine: of a path it keeps the last part."""

    def without(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {name: without(value, str(name)) for name, value in node.items()}
        if isinstance(node, list):
            return [without(value, key) for value in node]
        return Path(node).name if isinstance(node, str) and _is_place(key, node) else node

    found: DictConfig = OmegaConf.create(without(OmegaConf.to_container(config)))
    return found


def without_place(override: str) -> str:
    """The same of an override.

    >>> without_place("data.root=/home/me/photos"), without_place("latent_dim=8")
    ('data.root=photos', 'latent_dim=8')
    """
    key, _, value = override.partition("=")
    return f"{key}={Path(value).name}" if value and _is_place(key.lstrip("+").split(".")[-1], value) else override


def _is_place(key: str, value: str) -> bool:
    return key in PLACES or value.startswith(("/", "~"))


def weights_file(trained: Trained, trust: Sequence[str] = ()) -> bytes:
    """A .safetensors file of the weights and what describes the model; it is loaded, and found to be the same model.

    Raises:
        RunError: the package safetensors is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, WEIGHTS)
        write_weights(path, trained.model, description(trained, "autoencoder"))
        again, own = load(path, trust=trust).state_dict(), in_data_units(trained.model, trained.experiment.data.form)
        if not all(value.equal(again[name]) for name, value in own.state_dict().items()):
            raise RunError("the weights that were written are not those that were read again")
        return path.read_bytes()


def _rows(
    trained: Trained, model: Autoencoder, *, data_units: bool
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """Rows to check a network on, with labels: random ones, and those of the data where they are here."""
    form = trained.experiment.data.form
    low, high = form.span
    classes = model.classes or 1
    as_it_is = not data_units or form.values == "levels" or form.scaling is None

    def fitting(x: Tensor) -> Tensor:
        return x if as_it_is or form.scaling is None else form.scaling.undo(x).float()

    random = low + (high - low) * torch.rand(5, *form.shape)
    rows = {"random rows": (fitting(random), torch.randint(classes, (5,)))}
    try:
        splits = trained.experiment.data.splits
        split = "test" if len(splits.test) else "train"
        found = split_images(trained.experiment.data, split).first(IMAGES)
    except DataError as error:
        return rows, [f"checked on random rows alone: {error}"]
    labels = found.labels.clamp(0, classes - 1)
    return rows | {f"{len(found)} {split} rows": (fitting(found.x), labels)}, []


@torch.no_grad()
def _difference(
    network: Network, run: Runner, model: Autoencoder, x: Tensor, y: Tensor, *, what: str, to: str
) -> float:
    """The largest difference between torch and a file, relative to the largest number.

    Raises:
        RunError: it is more than TOLERANCE.
    """
    first = model.encode(x, y).mean if network.name == "decoder" else x
    inputs: Mapping[str, Tensor] = dict(zip(network.inputs, (first, y), strict=False))
    expected = network.module(*inputs.values())
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    found = run(inputs)
    largest = 0.0
    for name, own, other in zip(network.outputs, expected, found, strict=True):
        if own.shape != other.shape:
            raise RunError(
                f"the {network.name} of {to} gives {tuple(other.shape)} for its {name}, not {tuple(own.shape)}"
            )
        difference = (own.double() - other.double()).abs().max().item() / max(own.abs().max().item(), 1e-30)
        if not difference <= TOLERANCE:
            raise RunError(
                f"the {network.name} of {to} differs from torch: its {name} on {what} by {difference:.2g} of the "
                f"largest number, and {TOLERANCE:g} are allowed; an operation of it is computed in another way there"
            )
        largest = max(largest, difference)
    return largest


def _write(files: Mapping[Path, bytes], notes: Sequence[str]) -> Exported:
    for path, content in files.items():
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise unwritten(path, error) from error
    return Exported(list(files), list(notes))
