"""Which likelihood is of which values."""

from typing import Any

from vaelab.data.images import ImageData

REAL = "loss=gaussian_shared_scale, laplace or student_t"


def why_not_of(likelihood: Any, data: ImageData) -> str | None:
    """Return why p(x|z) does not fit the values of the data; None if it fits, or does not declare its values.

    Args:
        likelihood: says in `normalized_over` over what its probabilities or densities sum to one.
        data: whose rows have been read.
    """
    over, form = getattr(likelihood, "normalized_over", None), data.form
    low, high = form.span
    values = f"values from {low:.4g} to {high:.4g}"
    if over != "columns" and any(size > 1 for size in form.groups):
        return (
            "the table has categories, which are one-hot, and the loss is of numbers alone: loss=columns, or name the "
            "numeric columns only, data.columns=[a,b]"
        )
    match over:
        case "binary" | "interval" if not (low >= 0 and high <= 1):
            named = "binary cross-entropy (loss=bce)" if over == "binary" else "loss=continuous_bernoulli"
            return (
                f"{named} is of values in [0, 1], and the data have {values}: {REAL}, or "
                f"data.scale=[low,high], which takes that range to [0, 1]"
            )
        case "levels" if form.values != "levels":
            return f"the loss is of the 256 levels of uint8 pixels, and the data have {values}: {REAL}"
        case "counts" if form.values != "counts":
            return (
                "the loss is of counts 0, 1, 2, ..., and the data have "
                f"{values if form.values == 'real' else 'pixels, scaled to [0, 1]'}: "
                f"{REAL if form.values == 'real' else 'data.scale=none takes them as counts'}"
            )
    return None
