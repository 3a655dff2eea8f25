"""What a model has to know of its data, kept with its run: a run folder is used without them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, get_args

from vaelab.data.scaling import PIXELS, Scaling
from vaelab.errors import RunError

Values = Literal["levels", "counts", "real"]
MOST_NUMBERS = 2**31  # of a row
MOST_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Form:
    """What rows look like, and what their values and labels mean.

    Args:
        shape: of a row: (C, H, W) of an image, (C, T) of a signal, (D,) of a vector.
        names: of the labels 0, 1, ...; none where there are no labels.
        scaling: from the values that are stored to the model's; None until it has been found.
        factors: of variation, with how many values each has, where they are known.
        columns: names of a vector's numbers, where it has any; of a category, as "column=value".
        groups: how many numbers each column has: 1, or of a category one a value. () for 1 each.
        span: the least and the largest number of the training rows, in the model's units.
        values: `levels` are pixels, 0 to 255 under a scaling to [0, 1]; `counts` 0, 1, 2, ... as they are; else `real`.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    scaling: Scaling | None = PIXELS
    factors: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    values: Values = "levels"

    @property
    def noun(self) -> str:
        """What rows are called: images, or rows."""
        return "images" if self.is_image else "rows"

    @property
    def is_image(self) -> bool:
        """Whether a row is (C, H, W)."""
        return len(self.shape) == 3

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        assert self.scaling is not None
        return {
            "shape": list(self.shape),
            "names": list(self.names),
            "scaling": self.scaling.to_json(),
            "factors": dict(self.factors),
            "columns": list(self.columns),
            "groups": list(self.groups),
            "span": list(self.span),
            "values": self.values,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "Form":
        """What `to_json` made; `where` it was found is named in errors.

        Raises:
            RunError: it is something else.
        """
        try:
            shape = tuple(content["shape"])
            names, columns = tuple(content["names"]), tuple(content["columns"])
            factors, groups = dict(content["factors"]), tuple(content["groups"])
            low, high = content["span"]
            sizes = [*shape, *groups, *factors.values()]
            if not shape or not all(type(size) is int and 0 < size < MOST_NUMBERS for size in sizes):
                raise ValueError("sizes should be whole numbers above 0")
            if prod(shape) >= MOST_NUMBERS or len(names) > MOST_CLASSES:
                raise ValueError("there is too much of it")
            if not all(isinstance(name, str) for name in (*names, *columns, *factors)):
                raise ValueError("names should be strings")
            if content["values"] not in get_args(Values) or not (float(low) <= float(high)):
                raise ValueError("a span should be two numbers, values be levels, counts or real")
            scaling = Scaling.of(content["scaling"]["shift"], content["scaling"]["scale"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise RunError(f"{where} cannot be read: it does not describe data ({error})") from error
        return cls(
            shape=shape,
            names=names,
            scaling=scaling,
            factors=factors,
            columns=columns,
            groups=groups,
            span=(float(low), float(high)),
            values=content["values"],
        )
