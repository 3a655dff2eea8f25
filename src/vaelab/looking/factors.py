"""Figures of latent dimensions and factors of variation."""

from pathlib import Path

import torch

from vaelab import figures
from vaelab.errors import unwritten
from vaelab.figures.charts import heat_map
from vaelab.metrics.factors import codes_and_factors
from vaelab.metrics.information import entropies, mutual_information
from vaelab.metrics.subject import MOST, Subject

REACH, STEPS = 2.5, 11  # standard deviations of the codes on both sides of their mean; images per row


@torch.no_grad()
def draw(subject: Subject, beside: Path, name: str) -> list[Path]:
    """Draw the mutual information of dimensions and factors, and traverse the best dimension of each factor.

    Args:
        subject: a model on data with factors.
        beside: the evaluation's file; the figures' names begin with its name.
        name: the run's.

    Returns:
        A heat map of the mutual information of dimensions and factors, as a share of the factor's entropy; and, of
        images in [0, 1] and codes of real numbers, a row of images for each factor.

    Raises:
        RunError: they cannot be written.
    """
    codes, values = codes_and_factors(subject, MOST)
    factors = list(subject.data.factors)
    share = mutual_information(codes, values) / entropies(values)  # (Z, F)
    order = share.max(1).values.argsort(descending=True, stable=True)
    paths = [beside.with_name(f"{beside.stem}_factors.png")]
    try:
        heat_map(
            share[order].numpy(),
            paths[0],
            title=f"{name}: information of dimensions about factors",
            rows=[f"z{j}" for j in order.tolist()],
            columns=factors,
            unit="mutual information / entropy of the factor",
        )
        if subject.model.space == "real vectors" and not subject.why_not("images"):
            best = share.argmax(0)  # (F,)
            offsets = torch.linspace(-REACH, REACH, STEPS)
            centre, spread = codes.mean(0), codes.std(0)
            z = centre.repeat(len(factors), STEPS, 1)  # (F, steps, Z)
            for row, j in enumerate(best.tolist()):
                z[row, :, j] += spread[j] * offsets
            flat = z.flatten(0, 1).to(subject.device)
            of_first_class = torch.zeros(len(flat), dtype=torch.int64, device=subject.device)
            images = subject.model.decode(flat, of_first_class).mean.unflatten(0, (len(factors), STEPS))
            paths.append(beside.with_name(f"{beside.stem}_factor_traversals.png"))
            figures.save(
                figures.traversals(images.cpu()),
                paths[1],
                title=f"{name}: the most informative dimension of each factor, the others at their mean",
                rows=[
                    f"{factor}: z{j} ({share[j, k]:.2f})"
                    for k, (factor, j) in enumerate(zip(factors, best.tolist(), strict=True))
                ],
                columns=[f"{offset:+.1f}" for offset in offsets.tolist()],
                corner="(z - mean) / std",
            )
    except OSError as error:
        raise unwritten(paths[-1], error) from error
    return paths
