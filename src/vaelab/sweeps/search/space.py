"""What a search searches: parameters and their ranges, from Hydra's override grammar."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from vaelab.config.overrides import is_below, parse
from vaelab.errors import ConfigError

Value = CategoricalChoiceType


class Space:
    """Parameters with their distributions, and what stays as it is.

    `interval(a,b)` is a float, `int(interval(a,b))` an integer, both ends included; `range(a,b,step)` ends before b, as
    it does in Hydra; `tag(log,...)` draws the logarithm uniformly; `a,b`, `choice(a,b)` and `glob(...)` are choices,
    kept as the text that was written.

    Args:
        overrides: where a key is given twice, the later one counts.

    Raises:
        ConfigError: an override is none, a range holds nothing, or there is nothing to search.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.texts: dict[str, str] = {}  # the key with its + -> what was written
        self.fixed: list[str] = []
        self.of_runs: list[str] = []  # of both, without the settings of the sweep
        self.distributions: dict[str, BaseDistribution] = {}
        self._parameters: dict[str, str] = {}  # the key without it
        mistakes: list[str] = []
        given: dict[str, Override] = {}
        for override in parse(overrides, mistakes):
            given.pop(override.get_key_element(), None)
            given[override.get_key_element()] = override
        for key, override in given.items():
            if not is_below(override.key_or_group, ["hydra"]):
                self.of_runs.append(str(override.input_line))
            if not override.is_sweep_override():
                self.fixed.append(str(override.input_line))
                continue
            try:
                self.distributions[key] = _distribution(override)
            except ValueError as error:
                mistakes.append(f"{override.input_line}: {error}")
            self.texts[key] = str(override.input_line)
            self._parameters[key] = override.key_or_group
        if not self.texts and not mistakes:
            mistakes = ["there is nothing to search: write optimizer.lr=interval(1e-4,1e-2), for example"]
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def written(self) -> dict[str, list[str]]:
        """The parameters by name, with what was written of their values."""
        return {self._parameters[key]: [text.partition("=")[2]] for key, text in self.texts.items()}

    @property
    def numbers(self) -> dict[str, FloatDistribution | IntDistribution]:
        """The parameters that are no choices."""
        return {
            key: distribution
            for key, distribution in self.distributions.items()
            if isinstance(distribution, FloatDistribution | IntDistribution)
        }

    @property
    def values(self) -> dict[str, Sequence[Value] | None]:
        """The single values of each parameter; None where they are not countable."""
        return {key: _values(distribution) for key, distribution in self.distributions.items()}

    @property
    def size(self) -> float:
        """How many combinations there are."""
        return math.prod(math.inf if values is None else len(values) for values in self.values.values())

    def has(self, key: str, value: Any) -> bool:
        """Whether a value is among those of a parameter."""
        values, distribution = self.values[key], self.distributions[key]
        if values is not None:
            return value in values
        assert isinstance(distribution, FloatDistribution)
        return bool(distribution.low <= value <= distribution.high)

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """A value of each parameter; those that a trial has already stay."""
        return {key: _suggest(trial, key, distribution) for key, distribution in self.distributions.items()}

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """What the job with these values is composed from."""
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def parameters(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The same by the parameters' names, as what they mean."""
        parser = OverridesParser.create()
        return {self._parameters[key]: parser.parse_override(f"{key}={value}").value() for key, value in values.items()}

    def ends(self) -> list[dict[str, Value]]:
        """Combinations that have each choice and both ends of each range at least once.

        What is out of a knob's range is so at one of its ends.
        """
        ends = {key: _ends(distribution) for key, distribution in self.distributions.items()}
        first = {key: values[0] for key, values in ends.items()}
        others = chain.from_iterable(((key, value) for value in values[1:]) for key, values in ends.items())
        return [first, *(first | {key: value} for key, value in others)]


def _distribution(override: Override) -> BaseDistribution:
    """What Optuna calls the values that an override sweeps over.

    Raises:
        ValueError: there are none, or it is not to be searched.
    """
    key, sweep = override.key_or_group, override.value()
    if key == "seed":
        raise ValueError("a search would find the luckiest seed; repeat its best run: vaelab train -m seed=1,2,3 ...")
    if is_below(key, ["hydra"]):
        raise ValueError("settings of the sweep cannot be searched")
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    unknown = sorted(tags - {"log", "int"})
    if unknown:
        raise ValueError(f"there is no tag {unknown[0]}; there are int and log")
    log = "log" in tags
    if isinstance(sweep, IntervalSweep):
        return _interval(sweep, log=log, integer="int" in tags)
    if isinstance(sweep, RangeSweep):
        return _range(sweep, log=log)
    if log:
        raise ValueError("log is for numbers: interval(...) or range(...)")
    if isinstance(sweep, ChoiceSweep):
        sweep.shuffle = False  # their order is that of the study
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise ValueError("there is no value in it")
    return CategoricalDistribution(choices)


def _interval(sweep: IntervalSweep, *, log: bool, integer: bool) -> BaseDistribution:
    low, high = sweep.start, sweep.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("both ends should be finite")
    if low >= high:
        raise ValueError(f"the first end should be below the second: interval({high:g},{low:g})")
    if log and low <= 0:
        raise ValueError("log needs an interval above 0")
    if integer and not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError("the ends should be integers")
    if integer or isinstance(low, int):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _range(sweep: RangeSweep, *, log: bool) -> BaseDistribution:
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    if not all(number.is_finite() for number in (start, stop, step)) or step == 0:
        raise ValueError("its numbers should be finite, and its step not 0")
    count = math.ceil((stop - start) / step)
    if count < 1:
        raise ValueError("there is no value in it")
    low, high = sorted((start, start + (count - 1) * step))
    if log and (low <= 0 or abs(step) != 1):
        raise ValueError("log needs a range above 0, in steps of 1")
    if isinstance(sweep.range(), range):
        return IntDistribution(int(low), int(high), log=log, step=int(abs(step)))
    if log:
        raise ValueError("log needs integers in a range; interval(...) is for other numbers")
    return FloatDistribution(float(low), float(high), step=float(abs(step)))


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Value:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(key, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(key, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(key, choices)
    raise TypeError(distribution)


def _values(distribution: BaseDistribution) -> Sequence[Value] | None:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices
        case IntDistribution(low=low, high=high, step=step):
            return range(low, high + 1, step)
        case FloatDistribution(low=low, high=high, step=float() as step):
            count = int((Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))) + 1
            return _Evenly(low, step, count)
    return None


class _Evenly(Sequence[Value]):
    """low, low + step, ... without the errors of adding up."""

    def __init__(self, low: float, step: float, count: int) -> None:
        self.low, self.step, self.length = Decimal(str(low)), Decimal(str(step)), count

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return float(self.low + index * self.step)


def _ends(distribution: BaseDistribution) -> list[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return list(dict.fromkeys([distribution.low, distribution.high]))
