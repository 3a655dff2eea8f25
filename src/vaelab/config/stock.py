"""Classes of Lightning and torch under their own names, with their own arguments.

Their modules and base classes are fixed here, so that a name admits no other code of those packages. In the user's own
config they need no `--trust`; in a run folder, which may be somebody else's, each does.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PydanticSchemaGenerationError, PydanticUndefinedAnnotation, ValidationError

from vaelab.config.values import adapter, explain
from vaelab.errors import did_you_mean


class Kind(NamedTuple):
    """A kind of class.

    Args:
        places: pattern of the keys of a config that admit one.
        module: where they have their public names.
        base: the class that they inherit from.
        given: arguments that vaelab supplies.
        more: keys besides their own arguments.
    """

    places: str
    module: str
    base: str
    given: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


CALLBACK = Kind(r"callbacks\.\w+", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.callback.Callback")
LOGGER = Kind(r"logger\.\w+", "pytorch_lightning.loggers", "pytorch_lightning.loggers.logger.Logger")
OPTIMIZER = Kind(r"([\w.]+[._])?optimizer", "torch.optim", "torch.optim.optimizer.Optimizer", ("params",))
SCHEDULER = Kind(
    r"([\w.]+[._])?scheduler",
    "torch.optim.lr_scheduler",
    "torch.optim.lr_scheduler.LRScheduler",
    ("optimizer", "last_epoch"),
    ("monitor", "interval", "frequency"),
)
KINDS = (SCHEDULER, OPTIMIZER, CALLBACK, LOGGER)

MORE: Mapping[str, Any] = {
    "monitor": str,
    "interval": Literal["step", "epoch"],
    "frequency": Annotated[int, Field(gt=0)],
}

AT_THE_END = (
    "it changes the weights after the last checkpoint, so they would be neither saved nor tested; "
    "pytorch_lightning.callbacks.EMAWeightAveraging keeps an average that is both"
)
REFUSED = {
    "StochasticWeightAveraging": AT_THE_END,
    "ModelPruning": "it renames the weights, so that our checkpoints could not be loaded",
    "BatchSizeFinder": "the batch size is set by the config: try data.batch_size=... with trainer=debug",
    "LearningRateFinder": "the learning rate is set by the config: sweep it, vaelab train -m optimizer.lr=1e-4,1e-3",
    "GradientAccumulationScheduler": "our module takes its own steps: use trainer.accumulate_grad_batches",
    "LBFGS": "it evaluates the loss several times a step, but the noise of a step is drawn once",
    "SequentialLR": "it takes scheduler objects, which a config cannot hold; scheduler=cosine has a warm-up",
    "ChainedScheduler": "it takes scheduler objects, which a config cannot hold",
}


@dataclass(frozen=True)
class Stock:
    """An optimizer, callback or logger class with its arguments.

    Args:
        target: the class.
        keywords: its arguments.
    """

    target: type
    keywords: Mapping[str, Any]

    def __call__(self, given: Any) -> Any:
        """Make an optimizer for parameters, or a callback or logger for a run folder.

        A callback or logger writes into the run folder, unless its arguments say otherwise.
        """
        if not isinstance(given, Path):
            return self.target(given, **self.keywords)
        own = {"dirpath": str(given / "checkpoints"), "save_dir": str(given)}
        takes = inspect.signature(self.target).parameters
        return self.target(**({name: path for name, path in own.items() if name in takes} | dict(self.keywords)))


@dataclass(frozen=True)
class Unmade:
    """A stock class that a run folder names and that is not needed: it is not imported."""

    name: str

    def __call__(self, *given: Any) -> Any:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"{self.name} was not meant to be made")


def named(path: str, name: str) -> Kind | None:
    """Return the kind of class that a name stands for, by its module; None where `path` does not admit one."""
    module, _, attribute = name.rpartition(".")
    kind = next((kind for kind in KINDS if kind.module == module and attribute.isidentifier()), None)
    return kind if kind is not None and re.fullmatch(kind.places, path) else None


def names(config: Any, path: str = "") -> Iterator[str]:
    """Yield the names of such classes in a config."""
    if isinstance(config, Mapping):
        if isinstance(name := config.get("_target_"), str) and named(path, name):
            yield name
        for key, node in config.items():
            yield from names(node, f"{path}.{key}" if path else str(key))


def kind_of(target: Any) -> Kind | None:
    """Return the kind of a class by its base classes, also for a class of the user's own."""
    if not inspect.isclass(target):
        return None
    bases = {f"{base.__module__}.{base.__qualname__}" for base in target.__mro__}
    return next((kind for kind in KINDS if kind.base in bases), None)


def loaded(kind: Kind, name: str) -> type:
    """Import a class by its name.

    Raises:
        ValueError: there is none, or it is not of that kind.
    """
    attribute = name.rpartition(".")[2]
    module = import_module(kind.module)
    target = getattr(module, attribute, None)
    if kind_of(target) is not kind:
        names = [each for each in dir(module) if kind_of(getattr(module, each)) is kind]
        raise ValueError(f"{kind.module} has no such class{did_you_mean(attribute, names)}")
    assert isinstance(target, type)
    return target


def refusal(part: type) -> str | None:
    """Return why a class, or one that inherits from it, cannot be used; None where it can be."""
    places = tuple(kind.module.partition(".")[0] for kind in KINDS)
    bases = [base.__name__ for base in part.__mro__ if base.__module__.startswith(places) and base.__name__ in REFUSED]
    return f"cannot be used: {REFUSED[bases[0]]}" if bases else None


def arguments(path: str, kind: Kind, target: type, values: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """Convert `values` to the declared types of a class's arguments; append what is wrong to `mistakes`."""
    try:
        parameters = inspect.signature(target, eval_str=True).parameters
    except NameError:  # a name that only a type checker imports
        parameters = inspect.signature(target).parameters
    known = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in kind.given
    }
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    found = {}
    for key, value in values.items():
        if key in known:
            found[key] = _converted(f"{path}.{key}", known[key].annotation, value, mistakes)
        elif key in kind.more:
            found[key] = _converted(f"{path}.{key}", MORE[key], value, mistakes)
        elif free:
            found[key] = value
        else:
            mistakes.append(
                f"{path}.{key}: {target.__name__} has no {key}; there are {', '.join([*known, *kind.more])}"
            )
    ours = {"dirpath", "save_dir"}
    for name, parameter in known.items():
        if name not in {*values, *ours} and parameter.default is parameter.empty:
            mistakes.append(f"{path}.{name}: missing; {target.__name__} needs it")
    return found


def _converted(path: str, annotation: Any, value: Any, mistakes: list[str]) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    try:
        return adapter(annotation).validate_python(value)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):  # a type that pydantic does not know
        return value
    except ValidationError as error:
        mistakes.extend(explain(path, annotation, value, error))
        return value


def made(path: str, kind: Kind, target: type, values: Mapping[str, Any], mistakes: list[str]) -> Any:
    """Return a class with its arguments, after trying them; append what is wrong to `mistakes`."""
    if (reason := refusal(target)) is not None:
        mistakes.append(f"{path}._target_={target.__module__}.{target.__qualname__}: {reason}")
        return None
    before = len(mistakes)
    keywords = arguments(path, kind, target, values, mistakes)
    if len(mistakes) > before:
        return None
    part: Any = Stock(target, keywords)
    try:
        if kind is SCHEDULER:
            part = _schedule(target, keywords)
        elif kind is OPTIMIZER:
            part([_parameter()])
        elif kind is CALLBACK:
            part(Path("run"))
    except Exception as error:  # of whatever class
        mistakes.append(f"{path}: {target.__name__}: {' '.join(str(error).split()) or type(error).__name__}")
        return None
    return part


def _schedule(target: type, keywords: Mapping[str, Any]) -> Any:
    """Return a scheduler class with its arguments, after trying it on an optimizer with rate and momentum."""
    from torch.optim import SGD

    from vaelab.training.learning_rate import TorchSchedule

    of_lightning = {name: keywords[name] for name in SCHEDULER.more if name in keywords}
    own = {name: value for name, value in keywords.items() if name not in of_lightning}
    schedule = TorchSchedule(target, own, **of_lightning)
    schedule(SGD([_parameter()], lr=0.1, momentum=0.9), 100)
    return schedule


def _parameter() -> Any:
    import torch

    return torch.nn.Parameter(torch.zeros(1, 1))
