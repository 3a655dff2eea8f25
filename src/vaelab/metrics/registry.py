"""Register metrics: functions of a trained model that declare what they report and what they need.

    @metric("sharpness", needs=["images"])
    def sharpness(subject: Subject, *, radius: int = 1) -> Found:
        yield "sharpness", Value(..., "per pixel")

Keyword parameters are its options, set and checked like those of any part of a config (docs/metrics.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vaelab.metrics.subject import Subject

Number = float | list[float]


@dataclass(frozen=True)
class Value:
    """A number, or one for each latent dimension; `details` are what else it depends on."""

    value: Number
    unit: str
    standard_error: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Found = Iterable[tuple[str, Value | str]]  # names and values; in place of one that cannot be had, the reason
Metric = Callable[["Subject"], Found]
Function = TypeVar("Function", bound=Callable[..., Found])


class Declaration(NamedTuple):
    """What a metric reports, what it needs of a subject, and a function that gives further reasons against it."""

    names: Sequence[str]
    needs: Sequence[str]
    why_not: Callable[..., str | None] | None


def metric(
    *names: str, needs: Sequence[str] = (), why_not: Callable[..., str | None] | None = None
) -> Callable[[Function], Function]:
    """Register a function of a subject as a metric.

    Args:
        names: of all numbers that it may report; if a need is not met they are omitted, with the reason.
        needs: "images", "labels", "factors", "densities", "vectors": see `Subject.why_not`.
        why_not: takes the metric's own arguments and returns why it cannot be computed, as far as that is known
            before training; None where it can.
    """

    def register(function: Function) -> Function:
        function.declaration = Declaration(names, needs, why_not)  # type: ignore[attr-defined]
        return function

    return register


def declaration(function: Callable[..., Any]) -> Declaration:
    """Return the declaration of a metric, or of one with its options set.

    Raises:
        TypeError: it was not registered.
    """
    inner = function.func if isinstance(function, partial) else function
    found = getattr(inner, "declaration", None)
    if not isinstance(found, Declaration):
        name = getattr(inner, "__name__", type(inner).__name__)
        raise TypeError(f"{name} is not a metric: register it with @vaelab.metrics.metric")
    return found


def reason_against(function: Metric, subject: "Subject") -> str | None:
    """Return why a metric cannot be computed for a subject; None where it can be."""
    _, needs, why_not = declaration(function)
    reason = next((reason for need in needs if (reason := subject.why_not(need))), None)
    if reason is None and why_not is not None:
        return why_not(subject, **(function.keywords if isinstance(function, partial) else {}))
    return reason


def measured(function: Metric, subject: "Subject") -> Found:
    """Yield the values of a metric, or for each of its names why there is none."""
    reason = reason_against(function, subject)
    if reason:
        yield from ((name, reason) for name in declaration(function).names)
    else:
        yield from function(subject)


def mean_of(rows: Tensor, unit: str, details: Mapping[str, Any] | None = None) -> Value:
    """Return the mean of one number per image, (N,), and its standard error, which is NaN for one image."""
    rows = rows.double().cpu()
    error = rows.std().item() / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
    return Value(torch.mean(rows).item(), unit, error, details or {})
