"""Make the parts that a config names, with its values checked against the signatures of their constructors.

The options of a part are the keyword-only parameters of its constructor, with their types and ranges; positional
parameters come from the experiment. Classes of Lightning and torch keep their own arguments (`vaelab.config.stock`).
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from vaelab.config import stock
from vaelab.config.conf import CONF, contents, covers, may_stand, options, shipped_targets
from vaelab.config.values import adapter, explain, mapped, shown
from vaelab.errors import ConfigError, did_you_mean

GIVEN = {
    "callbacks.": "(folder)",
    "logger.": "(folder)",
    "metrics.": "(subject)",
    "optimizer": "(parameters)",
    "scheduler": "(total_steps, steps_per_epoch)",
}
"""The positional arguments of parts that are made only when a run begins."""


class Maker:
    """Walk a config along the constructors it names, make the parts, and collect mistakes.

    Args:
        trust: packages and classes that a `_target_` may name besides those of conf/.
        own: whether the user wrote the config, which may then name the stock classes of Lightning and torch.
        trained: whether a trained model is to be loaded, which needs none of those.
    """

    def __init__(self, trust: Sequence[str] = (), *, own: bool = True, trained: bool = False) -> None:
        self.trust = tuple(trust)
        self.own = own
        self.trained = trained
        self.mistakes: list[str] = []
        self.stock: list[str] = []  # the names of those made

    def arguments(self, path: str, target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of `target` in `values`, checked."""
        knobs = {name: p for name, p in _signature(target).items() if p.kind is p.KEYWORD_ONLY}
        unknown = [key for key in values if key not in knobs]
        if unknown and hasattr(target, "passes_on"):  # to a class that takes long to import
            knobs |= target.passes_on()
        arguments = {}
        for key, value in values.items():
            where = f"{path}.{key}" if path else str(key)
            if key not in knobs:
                of = f"{path} ({target.__name__})" if path else "the config"
                self.mistakes.append(f"{where}: {of} has no {key}{did_you_mean(str(key), knobs)}")
            else:
                arguments[str(key)] = self.value(where, knobs[str(key)].annotation, value, strict=key not in unknown)
        for name, parameter in knobs.items():
            if name not in values and parameter.default is inspect.Parameter.empty:
                where = f"{path}.{name}" if path else name
                self.mistakes.append(f"{where}: missing{_remedy(where)}")
        return arguments

    def value(self, path: str, annotation: Any, value: Any, *, strict: bool = True) -> Any:
        """Convert `value` to its type: a part is made, a number checked against its range."""
        if isinstance(value, dict) and "_target_" in value:
            made = self.part(path, value)
            try:
                return adapter(annotation).validate_python(made) if made is not None else None
            except ValidationError:
                self.mistakes.append(f"{path}: a {value['_target_']} does not fit there")
                return None
        if isinstance(value, dict) and inspect.isclass(annotation):  # pydantic would make one of it
            self.mistakes.append(f"{path}={shown(value)}: should be a part, which has a _target_")
            return None
        of_each = mapped(annotation)
        if isinstance(value, dict) and of_each is not None:
            return {name: self.value(f"{path}.{name}", of_each, node) for name, node in value.items()}
        try:
            if not strict:
                return adapter(annotation).validate_python(value)
            return adapter(annotation).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            self.mistakes += explain(path, annotation, value, error)
            return None

    def part(self, path: str, node: Mapping[str, Any]) -> Any:
        """Make what `_target_` names, or a partial of it where the experiment supplies positional arguments."""
        name = node["_target_"]
        values = {key: value for key, value in node.items() if key != "_target_"}
        trusted = isinstance(name, str) and any(f"{name}.".startswith(f"{word}.") for word in self.trust if word)
        kind = stock.named(path, name) if isinstance(name, str) else None
        if kind is not None and not may_stand(name, path):
            return self._stock(path, kind, name, values, trusted=trusted)
        if not trusted and (reason := self._refusal(path, name)) is not None:
            self.mistakes.append(f"{path}._target_={name}: {reason}")
            return None
        try:
            module, _, attribute = name.rpartition(".")
            target = getattr(import_module(module), attribute)
            inspect.signature(target)
        except Exception as error:  # the module is the user's
            self.mistakes.append(f"{path}._target_={name}: cannot be used ({type(error).__name__}: {error})")
            return None
        if (kind := stock.kind_of(target)) is not None:
            return stock.made(path, kind, target, values, self.mistakes)
        extra = getattr(target, "extra", None)
        if extra is not None and find_spec(extra) is None:
            self.mistakes.append(f'{path}: needs the package {extra}: pip install "vaelab[{extra}]"')
            return None
        before = len(self.mistakes)
        arguments = self.arguments(path, target, values)
        if len(self.mistakes) > before:
            return None
        if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in _signature(target).values()):
            return self._later(path, target, arguments)
        try:
            return target(**arguments)
        except ValueError as error:
            self.mistakes.append(f"{path}: {error}")
            return None

    def _stock(self, path: str, kind: stock.Kind, name: str, values: Mapping[str, Any], *, trusted: bool) -> Any:
        """Make a class of Lightning or torch."""
        if self.trained:
            return stock.Unmade(name)
        if not (self.own or trusted):
            self.mistakes.append(
                f"{path}._target_={name}: a run folder, which may be somebody else's, names a class that conf/ does "
                f"not use: allow it with --trust {name}"
            )
            return None
        try:
            target = stock.loaded(kind, name)
        except (ValueError, ImportError) as error:
            self.mistakes.append(f"{path}._target_={name}: {error}")
            return None
        self.stock.append(name)
        return stock.made(path, kind, target, values, self.mistakes)

    def _later(self, path: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Return a partial of `target`; the experiment supplies the positional arguments."""
        given = next((words for place, words in GIVEN.items() if covers(place, path)), None)
        if given is not None:
            try:
                inspect.signature(target).bind(*given.split(","), **arguments)
            except TypeError as error:
                name = getattr(target, "__name__", target)
                self.mistakes.append(
                    f"{path}: {name} is called with {given}, which does not fit its signature: {error}"
                )
                return None
        return partial(target, **arguments)

    def _refusal(self, path: str, name: Any) -> str | None:
        """Return why `_target_` may not be `name` at `path`; None where it may."""
        places = shipped_targets().get(name, ()) if isinstance(name, str) else ()
        if not places:
            kinds = [kind.module for kind in stock.KINDS if stock.named(path, f"{kind.module}.X") is kind]
            of_kind = f", or a class of {kinds[0]} by its full name" if kinds else ""
            return f"not a part that vaelab ships; use one of your own with --trust PACKAGE{of_kind}"
        if not may_stand(name, path):
            fitting = [name for name in shipped_targets() if may_stand(name, path)]
            return f"not a part that fits there{did_you_mean(name, fitting)}"
        return None


def check_part(path: str, node: Mapping[str, Any], *, trust: Sequence[str] = ()) -> Any:
    """Make the part that one node of a config describes.

    Raises:
        ConfigError: every mistake in it.
    """
    maker = Maker(trust)
    part = maker.part(path, node)
    if maker.mistakes:
        raise ConfigError(maker.mistakes)
    return part


def _remedy(path: str) -> str:
    """Say how to add the part that is missing at `path`, if conf/ has one."""
    if (CONF / path).is_dir():
        return f"; add it with +{path}={options(path)[0]}"
    group = path.rpartition(".")[2].rpartition("_")[2]  # objective.discriminator_optimizer is an optimizer
    fitting = [
        part.name for part in contents() if part.group == group and may_stand(part.content.get("_target_", ""), path)
    ]
    return f"; add it with +{group}@{path}={fitting[0]}" if fitting else ""


def _signature(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target, eval_str=True).parameters
    except NameError:  # a name that only a type checker imports, in parameters that no config sets
        return inspect.signature(target).parameters
