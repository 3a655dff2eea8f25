"""Check values of a config against the types that constructors declare, and explain mistakes in a config's words."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from vaelab.config.conf import groups, options
from vaelab.errors import did_you_mean


@cache
def adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return the validator of an annotated type."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, extra="forbid"))
    except PydanticUserError:  # a model or dataclass with a config of its own
        return TypeAdapter(annotation)


def explain(path: str, annotation: Any, value: Any, error: ValidationError) -> Iterable[str]:
    """Translate pydantic's complaints into a config's words: key, value, what would be right."""
    literals = [name for name in _literals(annotation) if isinstance(name, str)]
    complaints: dict[str, list[str]] = {}
    for detail in error.errors():
        if detail["type"] in ("is_instance_of", "needs_python_object", "none_required", "callable_type"):
            continue  # alternatives that no YAML value can be
        index = _place(detail["loc"], value)
        complaints.setdefault(index, []).append(_said(detail["type"], detail["msg"], value))
    for index, messages in complaints.items():
        given = value
        for key in re.findall(r"\w+", index):
            if isinstance(given, dict):
                given = given.get(key)
            else:
                given = given[int(key)] if isinstance(given, list) and int(key) < len(given) else None
        hint = did_you_mean(given, literals) if isinstance(given, str) and literals else ""
        hint = hint if "did you mean" in hint else _as_number(given, messages) or _as_part(path, annotation)
        yield f"{path}{index}={shown(given)}: should {' or '.join(dict.fromkeys(messages))}{hint}"
    if not complaints:
        yield f"{path}={shown(value)}: should be a part, which has a _target_"


def _place(loc: Iterable[int | str], value: Any) -> str:
    """Write pydantic's place of a mistake as a config does; it has the alternatives of a type in it as well."""
    keys = [part for part in loc if isinstance(part, int) or (isinstance(value, dict) and part.isidentifier())]
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)


def _said(kind: str, message: str, value: Any) -> str:
    if kind == "missing":
        return "have a value here"
    if kind == "unexpected_keyword_argument":
        return "not be there"
    if kind in ("list_type", "tuple_type") and not isinstance(value, list | dict):
        return f"be a list: [{shown(value)}]"
    return re.sub(r"^(Input|String|List|Tuple) should ", "", message)


def _as_number(value: Any, messages: Iterable[str]) -> str:
    """Say how to turn text into a number; empty where the text is not a number."""
    wanted = any("integer" in message or "number" in message for message in messages)
    if not (wanted and isinstance(value, str)):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    return "; it is text: leave the quotes out, or decode a variable: '\"${oc.decode:${oc.env:NAME}}\"'"


def _as_part(path: str, annotation: Any) -> str:
    """Say how a part is put at a key, where its class stands among the types that the key takes."""
    classes = {getattr(kind, "__name__", "").lower() for kind in get_args(annotation)}
    fitting = [f"+{group}@{path}={options(group)[0]}" for group in groups() if group in classes]
    return f", or be a part: {fitting[0]}" if fitting else ""


def mapped(annotation: Any) -> Any:
    """Return V of Mapping[str, V], also where it is one of several alternatives."""
    if get_origin(annotation) is Mapping:
        return get_args(annotation)[1]
    found = (mapped(alternative) for alternative in get_args(annotation) if get_origin(annotation) is UnionType)
    return next((value for value in found if value is not None), None)


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [name for argument in get_args(annotation) for name in _literals(argument)]


def shown(value: Any) -> str:
    """Format a value as a config has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
