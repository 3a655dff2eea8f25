"""The whole config, checked against the constructors that it names, before anything is read or written.

The rules are not here: a part's knobs, their types and ranges are the keyword parameters of its own constructor;
what it is given by the experiment it takes by position. Combinations are judged by making the model, on no device
and without memory, asking the objective whether it can have it, and having both see two images without pixels.
"""

import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from vaelab.config.compose import CONF, sources, unresolved
from vaelab.config.experiment import Experiment
from vaelab.config.names import config_name
from vaelab.data import Form
from vaelab.errors import ConfigError, did_you_mean
from vaelab.losses import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.networks import projections
from vaelab.models.networks.convolutional import Grid
from vaelab.models.parts import CodePosterior, UnsuitableError
from vaelab.performance import linear

# Where layers are computed: their lines say nothing of who gave them a wrong shape.
LAYERS = (Path(torch.__file__).parent, Path(linear.__file__), Path(projections.__file__))


def check(
    config: DictConfig, *, trust: Sequence[str] = (), trained: bool = False, form: Form | None = None
) -> Experiment:
    """The experiment that `config` describes.

    Args:
        config: as composed.
        trust: packages whose classes a `_target_` may name, besides those that conf/ names.
        trained: there has been training with it, so its parts are known to fit each other.
        form: what a run has kept of its data, which need not be there then.

    Raises:
        ConfigError: every mistake in it, with the allowed values or the nearest name.
    """
    try:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError([unresolved(error)]) from error
    checker = _Checker(tuple(trust))
    arguments = checker.arguments("", Experiment, values)
    if checker.mistakes:
        raise ConfigError(checker.mistakes)
    if form is not None:
        arguments["data"].recall(form)
    try:
        experiment = Experiment(**arguments)
        _ = experiment.data.form  # tensors that it reads are no meta tensors
        with torch.device("meta"):
            model = experiment.model()
        experiment.objective.requires(model)
        with torch.device("meta"):
            experiment.objective.build(model, experiment.seed)
        if not trained:  # which imports what training does anyway, for a second and more
            _require_shapes(model.eval())
    except UnsuitableError as error:
        raise ConfigError([error.worded(config_name)]) from error
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    except (RuntimeError, OverflowError, TypeError, AttributeError) as error:  # too many numbers, a part without one
        raise ConfigError([f"the model cannot be made: {_first_line(error)}"]) from error
    _require_memory(model, trained=trained)
    if not trained:
        _require_loss(experiment, model)
    return experiment


def _require_loss(experiment: Experiment, model: Autoencoder) -> None:
    """Have the objective go through two images that have a shape and no pixels: what cannot be said so, passes."""
    x = torch.zeros(2, *experiment.data.shape, device="meta")
    try:
        step = Step(model, x, torch.zeros(2, dtype=torch.int64, device="meta"))
        experiment.objective(step)
        experiment.objective.critic_losses(step)
    except NotImplementedError:
        return
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        if "meta" in str(error):
            return
        frames = [
            frame
            for frame in extract_tb(error.__traceback__)
            if not any(Path(frame.filename).is_relative_to(place) for place in LAYERS)
        ]
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        message = f"the loss cannot be computed of images {experiment.data.shape}: {_first_line(error)} ({where})"
        raise ConfigError([message]) from error


def _require_shapes(model: Autoencoder) -> None:
    """Refuse parts whose outputs the next part cannot take, of a model on the meta device, in evaluation mode."""
    posterior, decoder = model.posterior, model.decoder
    for grid in (module for module in decoder.modules() if isinstance(module, Grid)):
        if isinstance(posterior, CodePosterior) and posterior.codes != math.prod(grid.sizes):
            raise ValueError(
                f"decoder.features=null has a grid of {' x '.join(map(str, grid.sizes))} places, and the posterior has "
                f"{posterior.codes} codes: as many decoder.channels as encoder.channels make the grids the same"
            )
    size, wanted = posterior.latent_dim, tuple(model.likelihood.parameter_shape)
    y = torch.zeros(2, dtype=torch.int64, device="meta")
    try:
        q = model.encode(torch.zeros(2, *model.likelihood.shape, device="meta"), y)
        z = torch.zeros(2, size, device="meta")
        parameters = decoder(z) if model.classes is None else decoder(z, y)
    except Exception:  # a part of somebody's own may look at values: if it is wrong, training says how
        return
    if (q.batch_shape, q.event_shape) != ((2,), (size,)):
        raise UnsuitableError(
            f"{{}} gives a distribution of batch shape {tuple(q.batch_shape)} and event shape {tuple(q.event_shape)} "
            f"for 2 images: with its latent_dim they should be (2,) and ({size},)",
            posterior,
        )
    if tuple(parameters.shape) != (2, *wanted):
        raise UnsuitableError(
            f"{{}} gives {tuple(parameters.shape[1:])} for a latent, and {{}} takes {wanted}", decoder, model.likelihood
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _require_memory(model: torch.nn.Module, *, trained: bool) -> None:
    """Refuse a model that this machine has not the memory for, before the system ends the process for it.

    Training takes gradients as well, as many as weights, and what the optimizer keeps, which is not counted.
    """
    need = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    need += 0 if trained else sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    have = _memory()
    if need > have:
        largest = max(model.named_parameters(), key=lambda named: named[1].nbytes)[0]
        raise ConfigError(
            [
                f"the model's weights{'' if trained else ' and gradients'} take {need / 1e9:,.0f} GB, and this machine "
                f"has {have / 1e9:,.0f} GB of memory: most of them in {largest}; make a layer or latent_dim smaller"
            ]
        )


def _memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    if not hasattr(os, "sysconf"):
        return float("inf")
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def check_part(path: str, node: Mapping[str, Any], *, trust: Sequence[str] = ()) -> Any:
    """The part that one node of a config describes.

    Raises:
        ConfigError: every mistake in it.
    """
    checker = _Checker(tuple(trust))
    part = checker.part(path, node)
    if checker.mistakes:
        raise ConfigError(checker.mistakes)
    return part


class _Checker:
    """Walks a config along the constructors it names, and collects what is wrong."""

    def __init__(self, trust: tuple[str, ...]) -> None:
        self.trust = trust
        self.mistakes: list[str] = []

    def arguments(self, path: str, target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `target` that `values` gives, checked."""
        knobs = {name: p for name, p in _signature(target).items() if p.kind is p.KEYWORD_ONLY}
        arguments = {}
        for key, value in values.items():
            where = f"{path}.{key}" if path else str(key)
            if key not in knobs:
                of = f"{path} ({target.__name__})" if path else "the config"
                self.mistakes.append(f"{where}: {of} has no {key}{did_you_mean(str(key), knobs)}")
            else:
                arguments[str(key)] = self.value(where, knobs[str(key)].annotation, value)
        for name, parameter in knobs.items():
            if name not in values and parameter.default is inspect.Parameter.empty:
                group = name if (CONF / name).is_dir() else None
                fix = f"; add it with +{group}=..." if group else ""
                self.mistakes.append(f"{f'{path}.' if path else ''}{name}: missing{fix}")
        return arguments

    def value(self, path: str, annotation: Any, value: Any) -> Any:
        """`value` as its type: a part that was made, a number that is in range."""
        if isinstance(value, dict) and "_target_" in value:
            made = self.part(path, value)
            try:
                return _adapter(annotation).validate_python(made) if made is not None else None
            except ValidationError:
                self.mistakes.append(f"{path}: a {value['_target_']} cannot stand there")
                return None
        if isinstance(value, dict) and inspect.isclass(annotation):  # pydantic would make one of it
            self.mistakes.append(f"{path}={_shown(value)}: should be a part, which has a _target_")
            return None
        of_each = _mapped(annotation)
        if isinstance(value, dict) and of_each is not None:
            return {name: self.value(f"{path}.{name}", of_each, node) for name, node in value.items()}
        try:
            return _adapter(annotation).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            self.mistakes += _explain(path, annotation, value, error)
            return None

    def part(self, path: str, node: Mapping[str, Any]) -> Any:
        """What `_target_` names: made, or where the experiment has to give it something, about to be made."""
        name = node["_target_"]
        reason = self._refusal(path, name)
        if reason is not None:
            self.mistakes.append(f"{path}._target_={name}: {reason}")
            return None
        try:
            module, _, attribute = name.rpartition(".")
            target = getattr(import_module(module), attribute)
            inspect.signature(target)
        except Exception as error:  # the module is somebody's own
            self.mistakes.append(f"{path}._target_={name}: cannot be used ({type(error).__name__}: {error})")
            return None
        extra = getattr(target, "extra", None)
        if extra is not None and find_spec(extra) is None:
            self.mistakes.append(f'{path}: needs the package {extra}: pip install "vaelab[{extra}]"')
            return None
        before = len(self.mistakes)
        arguments = self.arguments(path, target, {k: v for k, v in node.items() if k != "_target_"})
        if len(self.mistakes) > before:
            return None
        if any(p.kind is not p.KEYWORD_ONLY for p in _signature(target).values()):
            return partial(target, **arguments)
        try:
            return target(**arguments)
        except ValueError as error:
            self.mistakes.append(f"{path}: {error}")
            return None

    def _refusal(self, path: str, name: Any) -> str | None:
        """Why `_target_` may not be `name` at `path`; None where it may."""
        if isinstance(name, str) and any(name.startswith(f"{package}.") for package in self.trust if package):
            return None
        places = shipped_targets().get(name, ()) if isinstance(name, str) else ()
        if not places:
            return "not among the parts that vaelab ships; a class of a package of your own needs --trust PACKAGE"
        if not any(_covers(place, path) for place in places):
            fitting = [name for name, places in shipped_targets().items() if any(_covers(p, path) for p in places)]
            return f"no part that can stand there{did_you_mean(name, fitting)}"
        return None


@cache
def shipped_targets() -> Mapping[str, frozenset[str]]:
    """The names that a `_target_` may have without anybody's trust, and where: as conf/ itself has them.

    Where is a key, such as "encoder"; "callbacks." stands for all below that key. The options of a group that is no
    key, such as term, stand below the keys under which the presets put them.
    """
    keys = inspect.signature(Experiment).parameters
    target = re.compile(r"^([ -]*)_target_:\s*(\S+)", re.MULTILINE)
    put_at = re.compile(r"^\s*- /(\w+)@(\w+)", re.MULTILINE)  # an option of a group, as part of another
    within: dict[str, set[str]] = {}
    for group, _, text in sources():
        for of, key in put_at.findall(text):
            within.setdefault(of, set()).add(f"{group}.{key}" if group in keys else f"{key}.")
    places: dict[str, set[str]] = {}
    for group, _, text in sources():
        own = {group} if group in keys or "." in group else set()
        for indent, name in target.findall(text):
            below = {f"{group}."} if group in keys else within.get(group, set())
            places.setdefault(name, set()).update(below if indent else own | within.get(group, set()))
    return {name: frozenset(found) for name, found in places.items()}


def _covers(place: str, path: str) -> bool:
    return path == place or (place.endswith(".") and path.startswith(place))


def _signature(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target, eval_str=True).parameters
    except NameError:  # a name that only a type checker imports, in what the config has no part in
        return inspect.signature(target).parameters


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the annotated type is a model or dataclass with a config of its own
        return TypeAdapter(annotation)


def _explain(path: str, annotation: Any, value: Any, error: ValidationError) -> Iterable[str]:
    """Pydantic's complaints in the words of a config: key, value, what would be right."""
    literals = [name for name in _literals(annotation) if isinstance(name, str)]
    complaints: dict[str, list[str]] = {}
    for detail in error.errors():
        if detail["type"] in ("is_instance_of", "needs_python_object", "none_required", "callable_type"):
            continue  # alternatives that a YAML value cannot be anyway
        index = "".join(f"[{part}]" for part in detail["loc"] if isinstance(part, int))
        message = re.sub(r"^(Input|String|List) should ", "", detail["msg"])
        complaints.setdefault(index, []).append("have a value here" if detail["type"] == "missing" else message)
    for index, messages in complaints.items():
        given = value
        for position in map(int, re.findall(r"\d+", index)):
            given = given[position] if isinstance(given, list) and position < len(given) else None
        hint = did_you_mean(given, literals) if isinstance(given, str) and literals else ""
        hint = hint if "did you mean" in hint else ""
        yield f"{path}{index}={_shown(given)}: should {' or '.join(dict.fromkeys(messages))}{hint}"
    if not complaints:
        yield f"{path}={_shown(value)}: should be a part, which has a _target_"


def _mapped(annotation: Any) -> Any:
    """V of Mapping[str, V], also where it is one of several alternatives."""
    if get_origin(annotation) is Mapping:
        return get_args(annotation)[1]
    found = (_mapped(alternative) for alternative in get_args(annotation) if get_origin(annotation) is UnionType)
    return next((value for value in found if value is not None), None)


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [name for argument in get_args(annotation) for name in _literals(argument)]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
