"""Which likelihood is of which values."""

from typing import Any

from vaelab.data.images import ImageData

REAL = "loss=gaussian_shared_scale, laplace or student_t"
PIXELS = "loss=bce, mse or discretized_logistic"


def why_not_of(likelihood: Any, data: ImageData) -> str | None:
    """Return why p(x|z) does not fit the values of the data; None if it fits, or does not declare its values.

    Args:
        likelihood: says in `normalized_over` over what its probabilities or densities sum to one.
        data: whose rows have been read.
    """
    over, form = getattr(likelihood, "normalized_over", None), data.form
    low, high = form.span
    scaled = hasattr(data, "scale")  # the user may say how
    values = f"values from {low:.4g} to {high:.4g}"
    if over != "columns" and any(size > 1 for size in form.groups):
        return (
            "the table has categories, which are one-hot, and the loss is of numbers alone: loss=columns, or name the "
            "numeric columns only, data.columns=[a,b]"
        )
    match over:
        case "binary" | "interval" if not (low >= 0 and high <= 1):
            named = "binary cross-entropy (loss=bce)" if over == "binary" else "loss=continuous_bernoulli"
            rescaled = ", or data.scale=[low,high], which takes that range to [0, 1]" if scaled else ""
            return f"{named} is of values in [0, 1], and the data have {values}: {REAL}{rescaled}"
        case "levels" if form.values != "levels":
            return f"the loss is of the 256 levels of uint8 pixels, and the data have {values}: {REAL}"
        case "counts" if form.values != "counts":
            pixels = form.values == "levels"
            instead = ("data.scale=none takes them as counts" if scaled else PIXELS) if pixels else REAL
            what = "pixels, scaled to [0, 1]" if pixels else values
            return f"the loss is of counts 0, 1, 2, ..., and the data have {what}: {instead}"
    return None
