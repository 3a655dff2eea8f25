"""The objectives of the family, as sums of terms.

Each takes `terms`, name -> term, to be added to its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vaelab.losses.adversaries import DensityRatioTotalCorrelation, LatentAdversary
from vaelab.losses.corruptions import Corruption
from vaelab.losses.divergences import KL, KLEstimator
from vaelab.losses.objective import SumOfTerms, Term
from vaelab.losses.penalties import CodeLength, CodeUse, Commitment
from vaelab.models.schedules import Schedule, Weight

More = Mapping[str, Term | None]
Part = Callable[..., Any]


def reconstruction(*, terms: More | None = None, corruption: Corruption | None = None) -> SumOfTerms:
    """loss = E_q[-log p(x|z)]: the reconstruction alone, and the terms that are added."""
    return SumOfTerms({}, terms, corruption=corruption)


def elbo(
    *,
    kl_weight: Weight | Schedule = 1.0,
    free_bits: Weight = 0.0,
    kl: KLEstimator = "closed_form",
    terms: More | None = None,
    corruption: Corruption | None = None,
    reconstruction_weight: Weight = 1.0,
) -> SumOfTerms:
    """loss = E_q[-log p(x|z)] + kl_weight(step) * KL(q(z|x) || p(z)), with one sample of z an image.

    With kl_weight 1 it is the negative evidence lower bound (Kingma & Welling 2014, equation 3); another constant gives
    the beta-VAE (Higgins et al. 2017, equation 4). For `free_bits` and `kl` see `KL`.
    """
    own = {"kl": KL(weight=kl_weight, free_bits=free_bits, kl=kl)}
    return SumOfTerms(own, terms, corruption=corruption, reconstruction_weight=reconstruction_weight)


def capacity(
    *,
    kl_weight: Weight = 100.0,
    capacity: Weight | Schedule = 25.0,
    kl: KLEstimator = "closed_form",
    terms: More | None = None,
) -> SumOfTerms:
    """loss = E_q[-log p(x|z)] + kl_weight * |KL(q(z|x) || p(z)) - capacity(step)| (Burgess et al. 2018, equation 8)."""
    return SumOfTerms({"kl": KL(weight=kl_weight, capacity=capacity, kl=kl)}, terms)


def factor_vae(
    *,
    tc_weight: Weight | Schedule = 10.0,
    discriminator: Part,
    discriminator_optimizer: Part,
    kl: KLEstimator = "closed_form",
    terms: More | None = None,
) -> SumOfTerms:
    """loss = E_q[-log p(x|z)] + KL(q(z|x) || p(z)) + tc_weight * TC(z) (Kim & Mnih 2018, equation 2)."""
    correlation = DensityRatioTotalCorrelation(
        weight=tc_weight, discriminator=discriminator, optimizer=discriminator_optimizer
    )
    return SumOfTerms({"kl": KL(kl=kl), "total_correlation": correlation}, terms)


def adversarial(
    *,
    adversarial_weight: Weight | Schedule = 10.0,
    discriminator: Part,
    discriminator_optimizer: Part,
    terms: More | None = None,
) -> SumOfTerms:
    """loss = E_q[-log p(x|z)] + adversarial_weight * E_q[-log D(z)] (Makhzani et al. 2015, section 2)."""
    adversary = LatentAdversary(
        weight=adversarial_weight, discriminator=discriminator, optimizer=discriminator_optimizer
    )
    return SumOfTerms({"adversarial": adversary}, terms)


def vector_quantization(*, commitment_weight: Weight | Schedule = 0.25, terms: More | None = None) -> SumOfTerms:
    """loss = -log p(x|z) + commitment_weight * |e - sg(z)|^2 + |sg(e) - z|^2 (van den Oord et al. 2017, equation 3).

    Reported besides: `batch_perplexity` of a batch's codes and, with a prior, `kl`: the nats that the codes take.
    """
    own = {"commitment": Commitment(weight=commitment_weight), "batch_perplexity": CodeUse(), "kl": CodeLength()}
    return SumOfTerms(own, terms)
