"""The parts of one experiment, as a config chooses them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch.utils.flop_counter import FlopCounterMode

from vaelab.config.names import config_name
from vaelab.data import ImageData
from vaelab.losses import Objective
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.networks import ConditionalDecoder, ConditionalEncoder
from vaelab.models.parts import PartName
from vaelab.seeding import derive_seed


def _no_path(name: str) -> str:
    if not re.fullmatch(r"[\w+=,.-]*\w[\w+=,.-]*", name):
        raise PydanticCustomError("name", "be a folder's name of letters, digits and _ + = , . -")
    return name


Name = Annotated[str, Field(max_length=100), AfterValidator(_no_path)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LatentDim = Annotated[int, Field(gt=0)]
Threads = Annotated[int, Field(gt=0, le=1024)]
Text = Annotated[str, Field(min_length=1)]
Part = Callable[..., Any]
PartOfFolder = Callable[[Path], Any]

FLOP_PER_THREAD = 5e8  # of a batch's reconstruction


@dataclass(frozen=True, kw_only=True)
class Init:
    """The weights that a model begins with.

    Args:
        run: a run folder, or a checkpoint; None for new ones.
        parts: those that get them; None for all.
    """

    run: Text | None = None
    parts: Annotated[list[PartName], Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse parts of nothing."""
        if self.parts and self.run is None:
            raise ValueError("init.parts says what to take of a run, and init.run names none")


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A published number that an experiment reproduces, as `vaelab ledger` and docs/ledger.md have it.

    Args:
        source: the paper, and the table or figure in it.
        row: which of the table's.
        value: the number; None where the paper has a figure or an order only.
        metric: of an evaluation of the test split, such as "elbo" or "nll_5000".
        protocol: how the paper trains and measures.
        here: what is different in this experiment: budget, binarization, data, networks.
        tried: what else was tried where the value is not reached.
    """

    source: Text
    row: Text
    value: float | None = None
    metric: Text
    protocol: Text
    here: Text
    tried: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The parts that a config describes; fields are the keys of the config.

    A part is a function of what only the experiment knows: the shape of an image, the size of the latent space, the
    folder of the run.
    """

    name: Name
    seed: Seed
    latent_dim: LatentDim
    conditional: bool = False
    data: ImageData
    encoder: Part
    posterior: Part
    decoder: Part
    loss: Part
    prior: Part | None = None
    objective: Objective
    optimizer: Part
    scheduler: Part | None = None
    trainer: Part
    callbacks: Mapping[str, PartOfFolder | None] | None = None
    logger: Mapping[str, PartOfFolder | None] | None = None
    metrics: Mapping[str, Part | None] | None = None
    threads: Threads | None = None
    compile: bool = False
    channels_last: bool = False
    init: Init | None = None
    frozen: list[PartName] | None = None
    paper: Paper | None = None

    def __post_init__(self) -> None:
        """Refuse combinations of settings that are valid one by one."""
        if self.conditional and self.data.classes == 1:
            raise ValueError(f"conditional=true needs two classes or more, and the data have only {self.data.names[0]}")
        if self.conditional and not self.data.classes:
            raise ValueError(
                f"conditional=true needs labels, and {config_name(self.data)} has none: conditional=false or, with "
                "data=array, a labels.npy beside images.npy"
            )
        if self.compile and (name := self.objective.taking_gradients()) is not None:
            raise ValueError(f"compile=true does not support gradients of gradients, which {name} needs: compile=false")

    @property
    def begins_with(self) -> str | None:
        """The run whose weights the model begins with."""
        return self.init.run if self.init is not None else None

    @property
    def init_parts(self) -> Sequence[PartName] | None:
        """The parts that get them; None for all."""
        return self.init.parts if self.init is not None else None

    def model(self) -> Autoencoder:
        """Build an autoencoder with weights f(seed)."""
        torch.manual_seed(derive_seed(self.seed, "weights"))
        shape, classes = self.data.shape, self.data.classes
        encoder = ConditionalEncoder(self.encoder, shape, classes) if self.conditional else self.encoder(shape)
        likelihood = self.likelihood()
        posterior = self.posterior(encoder.features, self.latent_dim)
        z, parameters = posterior.latent_dim, likelihood.parameter_shape
        model = Autoencoder(
            encoder=encoder,
            posterior=posterior,
            decoder=(
                ConditionalDecoder(self.decoder, z, parameters, classes)
                if self.conditional
                else self.decoder(z, parameters)
            ),
            likelihood=likelihood,
            prior=self._prior(z),
        )
        if model.prior is None and "prior" in {*(self.init_parts or ()), *(self.frozen or ())}:
            raise ValueError("init.parts or frozen name the prior, and this model has none")
        model.freeze(self.frozen or [])
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def suitable_threads(self) -> int:
        """The threads that an operation of this model is fast with: `threads`, or else one for each 0.5 GFLOP a batch.

        A small operation waits for its threads longer than it works, the more so where the machine is busy.
        """
        most = torch.get_num_threads()
        if self.threads is not None or most == 1:
            return self.threads or most
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            model = self.model().eval()
            x = torch.zeros(self.data.batch_size, *self.data.shape)
            try:
                with FlopCounterMode(display=False) as counter:
                    model.reconstruct(x, torch.zeros(len(x), dtype=torch.int64))
            except Exception:  # a part that looks at values: nothing is known of its work
                return most
        return max(1, min(most, int(counter.get_total_flops() / FLOP_PER_THREAD)))

    def _prior(self, latent_dim: int) -> Any:
        """Build p(z) for latents of this size."""
        if self.prior is None:
            return None
        if getattr(getattr(self.prior, "func", self.prior), "takes_classes", False):
            return self.prior(latent_dim, self.data.classes)
        return self.prior(latent_dim)

    def likelihood(self) -> Any:
        """Build p(x|z) for the data of this experiment."""
        if getattr(getattr(self.loss, "func", self.loss), "takes_columns", False):
            return self.loss(self.data.shape, self.data.form.groups)
        return self.loss(self.data.shape)

    def made_for(self, folder: Path, parts: Mapping[str, PartOfFolder | None] | None) -> list[Any]:
        """Make the callbacks or loggers of a run in `folder`."""
        return [part(folder) for part in (parts or {}).values() if part is not None]
