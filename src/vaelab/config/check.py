"""Check a whole config against the constructors that it names, before anything is read or written.

The rules live elsewhere: a part's options, their types and ranges are those of its own constructor. Combinations are
checked by building the model on the meta device, asking the objective whether it accepts it, and passing two images
through both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.config.compose import unresolved
from vaelab.config.experiment import Experiment
from vaelab.config.memory import memory
from vaelab.config.monitors import unwatchable
from vaelab.config.names import config_name
from vaelab.config.parts import Maker
from vaelab.data import Form
from vaelab.errors import ConfigError
from vaelab.losses import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.networks import projections
from vaelab.models.networks.convolutional import Grid
from vaelab.models.parts import CodePosterior, UnsuitableError
from vaelab.performance import linear

# Where layers are computed: frames in there do not show who passed a wrong shape.
LAYERS = (Path(torch.__file__).parent, Path(linear.__file__), Path(projections.__file__))

MODULES = 10_000


@dataclass(frozen=True)
class Checked:
    """A config and the experiment that it describes: checked once, then passed on.

    Args:
        config: as composed.
        experiment: its parts.
        trust: names that another process must trust to accept the same config from the run folder.
        own: whether the user wrote it; for a run folder's config nothing is downloaded.
    """

    config: DictConfig
    experiment: Experiment
    trust: tuple[str, ...] = ()
    own: bool = True


def check(
    config: DictConfig,
    *,
    trust: Sequence[str] = (),
    own: bool = True,
    trained: bool = False,
    form: Form | None = None,
) -> Experiment:
    """The experiment that `config` describes.

    Args:
        config: as composed.
        trust: packages whose classes a `_target_` may name, besides those that conf/ names.
        own: whether the user wrote it. A run folder may be somebody else's: without trust its config names no stock
            class of Lightning or torch, and nothing is downloaded for it.
        trained: whether a model was trained with it, so that its parts are known to fit each other.
        form: the data's form as a run has kept it; the data themselves need not be there then.

    Raises:
        ConfigError: every mistake in it, with the allowed values or the nearest name.
    """
    return checked(config, trust=trust, own=own, trained=trained, form=form).experiment


def checked(
    config: DictConfig,
    *,
    trust: Sequence[str] = (),
    own: bool = True,
    trained: bool = False,
    form: Form | None = None,
) -> Checked:
    """`check`, returning the config and the trust decisions as well."""
    try:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError([unresolved(error)]) from error
    maker = Maker(trust, own=own, trained=trained)
    arguments = maker.arguments("", Experiment, values)
    if maker.mistakes:
        raise ConfigError(maker.mistakes)
    if form is not None:
        arguments["data"].recall(form)
    try:
        experiment = Experiment(**arguments)
        _ = experiment.data.form  # outside of the meta device, since it may read tensors
        with torch.device("meta"):
            model = experiment.model()
        _require_few_layers(model)
        experiment.objective.requires(model)
        with torch.device("meta"):
            experiment.objective.build(model, experiment.seed)
        if not trained:  # it imports for a second and more what training needs anyway
            _require_shapes(model.eval())
    except UnsuitableError as error:
        raise ConfigError([error.worded(config_name)]) from error
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    except (
        RuntimeError,
        OverflowError,
        TypeError,
        AttributeError,
    ) as error:  # such as an overflow
        raise ConfigError([f"the model cannot be made: {_first_line(error)}"]) from error
    _require_memory(model, trained=trained)
    if not trained and (mistakes := unwatchable(experiment, model, _require_loss(experiment, model))):
        raise ConfigError(mistakes)
    experiment.data.fetch = own
    return Checked(config, experiment, (*trust, *maker.stock), own)


def _require_loss(experiment: Experiment, model: Autoencoder) -> list[str] | None:
    """Evaluate the objective on two meta images; return the names of its terms.

    None where a part needs values: it cannot be checked this way, and passes.
    """
    x = torch.zeros(2, *experiment.data.shape, device="meta")
    try:
        step = Step(model, x, torch.zeros(2, dtype=torch.int64, device="meta"))
        return [*experiment.objective(step), *experiment.objective.critic_losses(step)]
    except NotImplementedError:
        return None
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        if "meta" in str(error):
            return None
        frames = [
            frame
            for frame in extract_tb(error.__traceback__)
            if not any(Path(frame.filename).is_relative_to(place) for place in LAYERS)
        ]
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        message = f"the loss cannot be computed for images {experiment.data.shape}: {_first_line(error)} ({where})"
        raise ConfigError([message]) from error


def _require_shapes(model: Autoencoder) -> None:
    """Refuse parts whose outputs do not fit the next part; `model` is on the meta device, in evaluation mode."""
    posterior, decoder = model.posterior, model.decoder
    for grid in (module for module in decoder.modules() if isinstance(module, Grid)):
        if isinstance(posterior, CodePosterior) and (places := math.prod(posterior.grids[-1])) != math.prod(grid.sizes):
            raise ValueError(
                f"decoder.features=null has a grid of {' x '.join(map(str, grid.sizes))} places, but the posterior has "
                f"{places} codes: give decoder.channels as many entries as encoder.channels"
            )
    size, wanted = posterior.latent_dim, tuple(model.likelihood.parameter_shape)
    y = torch.zeros(2, dtype=torch.int64, device="meta")
    try:
        q = model.encode(torch.zeros(2, *model.likelihood.shape, device="meta"), y)
        z = torch.zeros(2, size, device="meta")
        parameters = decoder(z) if model.classes is None else decoder(z, y)
    except Exception:  # a custom part may look at values; training reports what is wrong with it
        return
    if (q.batch_shape, q.event_shape) != ((2,), (size,)):
        raise UnsuitableError(
            f"{{}} returns a distribution of batch shape {tuple(q.batch_shape)} and event shape {tuple(q.event_shape)} "
            f"for 2 images; with its latent_dim they should be (2,) and ({size},)",
            posterior,
        )
    if tuple(parameters.shape) != (2, *wanted):
        raise UnsuitableError(
            f"{{}} returns shape {tuple(parameters.shape[1:])} for a latent, and {{}} expects {wanted}",
            decoder,
            model.likelihood,
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _require_few_layers(model: torch.nn.Module) -> None:
    """Refuse a model with so many layers that checking it would take minutes.

    Raises:
        ValueError: it has more than MODULES modules.
    """
    count = sum(1 for _ in model.modules())
    if count > MODULES:
        raise ValueError(
            f"the networks have {count:,} layers and other modules, and the limit is {MODULES:,}: take fewer blocks or "
            "shorter lists of widths"
        )


def _require_memory(model: torch.nn.Module, *, trained: bool) -> None:
    """Refuse a model that does not fit in memory, before the system kills the process.

    For training, gradients count as well; the state of the optimizer does not.
    """
    need = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    need += 0 if trained else sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    have = memory()
    if need > have:
        largest = max(model.named_parameters(), key=lambda named: named[1].nbytes)[0]
        raise ConfigError(
            [
                f"the model's weights{'' if trained else ' and gradients'} take {need / 1e9:,.0f} GB, and this "
                f"machine has {have / 1e9:,.0f} GB of memory; the largest is {largest}: make it or latent_dim smaller"
            ]
        )
