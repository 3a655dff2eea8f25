"""Disentanglement: information in codes about factors of variation."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field

from vaelab.errors import RunError
from vaelab.metrics.disentanglement import (
    PRUNED,
    VOTES,
    beta_vae_score,
    dci_boosted_trees,
    dci_lasso,
    explicitness,
    factor_vae_score,
    halves,
    sap,
    trained_on,
)
from vaelab.metrics.information import BINS, entropies, modularity, mutual_information, mutual_information_gap
from vaelab.metrics.registry import Value, metric
from vaelab.metrics.subject import MOST, Subject
from vaelab.seeding import derive_seed

SCORES = ("mig", "sap", "factor_vae_score", "beta_vae_score", "modularity", "explicitness")
DCI = tuple(
    f"{kind}_{part}" for kind in ("dci", "dci_lasso") for part in ("disentanglement", "completeness", "informativeness")
)
UNIT = "1 is perfect"


@metric(*SCORES, *DCI, needs=["factors", "vectors"])
@torch.no_grad()
def factors(subject: Subject, *, images: Annotated[int, Field(ge=100)] = MOST) -> Iterator[tuple[str, Value | str]]:
    """MIG, DCI, SAP, FactorVAE and beta-VAE scores, modularity and explicitness of the means of q(z|x).

    Args:
        subject: a model on data with factors.
        images: of the split that are looked at, at most.

    Raises:
        RunError: a factor has one value among the images.
    """
    codes, values = codes_and_factors(subject, images)
    names = list(subject.data.factors)
    dimensions = codes.shape[1]
    information = mutual_information(codes, values)
    of_all = {"images": len(codes), "factors": ", ".join(names)}
    sets = halves(codes, values)
    of_sets = of_all | {"trained_on": len(sets.codes), "tested_on": len(sets.test_codes)}
    votes = of_all | {"trained_on": VOTES[0], "tested_on": VOTES[1], "chance": 1 / len(names)}
    one = "there is one dimension, and a gap takes two or more" if dimensions < 2 else None
    binning = of_all | {"bins": BINS}
    yield "mig", one or Value(mutual_information_gap(information, entropies(values)), UNIT, details=binning)
    yield "modularity", Value(modularity(information), UNIT, details=binning)
    yield "sap", one or Value(sap(sets), UNIT, details=of_sets)
    yield "explicitness", Value(explicitness(sets), f"{UNIT}, 0 chance", details=of_sets)
    voted = factor_vae_score(codes, values, derive_seed(subject.seed, "FactorVAE score"))
    yield "factor_vae_score", Value(voted, UNIT, details=votes | {"pruned_below_variance": PRUNED})
    told = beta_vae_score(codes, values, derive_seed(subject.seed, "beta-VAE score"))
    yield "beta_vae_score", Value(told, UNIT, details=votes)
    dci = dci_boosted_trees(sets, derive_seed(subject.seed, "trees")), dci_lasso(sets)
    for name, value in zip(DCI, [*dci[0], *dci[1]], strict=True):
        yield name, Value(value, UNIT, details=of_sets)


def codes_and_factors(subject: Subject, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of q(z|x), (N, Z), and factors, (N, F), of up to so many images of the split, in random order, on the CPU.

    Raises:
        RunError: a factor has one value among those that `halves` trains on.
    """
    chosen = subject.chosen("factors", most)
    # Rows of a store may be sorted by a factor, and are looked at in two parts.
    generator = torch.Generator().manual_seed(derive_seed(subject.seed, "order of factors"))
    chosen = chosen.take(torch.randperm(len(chosen), generator=generator).to(chosen.store.device))
    numbers = torch.arange(len(chosen), device=chosen.store.device)
    values = chosen.factors(numbers).cpu()
    known = values[: trained_on(len(values))]
    for name, of_factor in zip(subject.data.factors, known.T, strict=True):
        if len(torch.unique(of_factor)) < 2:
            raise RunError(
                f"the factor {name} has one value, {of_factor[0].item()}, in {len(known)} images, so it has no "
                "information; give it two values or more, or data where it varies"
            )
    return subject.codes(chosen, "codes"), values
