"""Compare generated and real images in a feature space."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from vaelab.errors import RunError
from vaelab.metrics.features import feature_space, why_no_features
from vaelab.metrics.frechet import Moments, extrapolated, frechet_distance
from vaelab.metrics.registry import Value, metric
from vaelab.metrics.subject import MOST, Subject
from vaelab.metrics.two_samples import Estimate, fidelity, kernel_distance

OF_EACH = ("frechet", "frechet_extrapolated", "kid", "precision", "recall", "density", "coverage")
Text = Annotated[str, Field(min_length=1)]
Amount = Annotated[int, Field(ge=2)]


class Seen:
    """Features of one set of images, added batch by batch: moments of its two halves, and up to 10,000 rows."""

    def __init__(self) -> None:
        self.halves = Moments(), Moments()
        self._rows: list[Tensor] = []
        self._kept = 0

    def add(self, features: Tensor) -> None:
        """Add features (B, D); rows alternate between the halves, and beyond 10,000 only their moments are kept."""
        self.halves[0].add(features[::2])
        if len(features) > 1:
            self.halves[1].add(features[1::2])
        kept = features[: MOST - self._kept]
        if len(kept):
            self._rows.append(kept)
            self._kept += len(kept)

    @property
    def rows(self) -> Tensor:
        """The rows that were kept, (N, D)."""
        return torch.cat(self._rows)


def why_not(
    subject: Subject,
    *,
    features: str = "classifier",
    weights: str | None = None,
    images: int = MOST,
    fit_gaussian: bool = False,
) -> str | None:
    """Return why a model's images cannot be compared, as far as it is known before training."""
    reason = why_no_features(features, subject, weights, min(images, len(subject.images)))
    return None if reason is None else f"features {features}: {reason}"


@metric(*OF_EACH, *(f"reconstruction_{name}" for name in OF_EACH), why_not=why_not)
@torch.no_grad()
def generation(
    subject: Subject,
    *,
    features: Text = "classifier",
    weights: Text | None = None,
    images: Amount = MOST,
    fit_gaussian: bool = False,
) -> Iterator[tuple[str, Value | str]]:
    """Frechet and kernel distance, precision and recall, density and coverage of samples and of reconstructions.

    They compare means of p(x|z), z ~ p(z), and reconstructions with the images of the split.

    Args:
        subject: the model.
        features: pixels, classifier, a network of torchvision.models such as inception_v3, or FILE.py:NAME of one's
            own.
        weights: a file with the weights of torchvision's network; None for torchvision's own.
        images: samples to draw, and reconstructions at most.
        fit_gaussian: draw z from a Gaussian fitted to training codes, as for a model without a prior.

    Raises:
        RunError: the features cannot be had, or there are no more images than features.
    """
    space = feature_space(features, subject, weights)
    real, again = Seen(), Seen()
    for batch in subject.batches(subject.some(subject.images, "generation", images), f"{space.name} of images"):
        real.add(space(batch.images))
        again.add(space(subject.reconstruct(batch)))
    common = {"features": space.name, "dimensions": real.rows.shape[1], **space.details}
    if subject.model.prior is None and not fit_gaussian:
        reason = "this model has no prior to sample from: --fit-gaussian draws from a Gaussian fitted to training codes"
        yield from ((name, reason) for name in OF_EACH)
    else:
        prior = {"prior": "a Gaussian fitted to training codes"} if fit_gaussian else {}
        drawn = Seen()
        for x in subject.samples(images, fit_gaussian=fit_gaussian):
            drawn.add(space(x))
        yield from _compared(real, drawn, common | prior, "", paired=False)
    yield from _compared(real, again, common, "reconstruction_", paired=True)


def _compared(
    real: Seen, other: Seen, details: dict[str, Any], prefix: str, *, paired: bool
) -> Iterator[tuple[str, Value | str]]:
    try:
        frechet = frechet_distance(real.halves[0] + real.halves[1], other.halves[0] + other.halves[1])
    except ValueError as error:
        raise RunError(f"features {details['features']}: {error}") from error
    counts = [sum(half.count for half in seen.halves) for seen in (real, other)]
    sizes = details | dict(zip(("images", "generated"), counts, strict=True))
    yield f"{prefix}frechet", Value(frechet, "squared distance", details=sizes)
    try:
        _, half, limit = extrapolated(real.halves, other.halves)
        value = Value(limit, "squared distance", details=sizes | {"of_halves": half})
        yield f"{prefix}frechet_extrapolated", value
    except ValueError as error:
        yield f"{prefix}frechet_extrapolated", f"of half the images: {error}"
    x, y = real.rows, other.rows
    at_most = details | {"images": len(x), "generated": len(y)}
    yield f"{prefix}kid", _value(kernel_distance(x, y, paired=paired), "squared discrepancy", at_most)
    size = min(len(x), len(y))
    equal = details | {"images": size, "generated": size}
    found = fidelity(x[:size], y[:size])
    for name, estimate in found._asdict().items():
        unit = "1 where alike" if name == "density" else "share of images"
        yield f"{prefix}{name}", _value(estimate, unit, equal)


def _value(estimate: Estimate, unit: str, details: Mapping[str, Any]) -> Value:
    return Value(estimate.value, unit, estimate.error, details)
