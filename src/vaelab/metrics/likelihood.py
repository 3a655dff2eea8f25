"""ELBO and log-likelihood of images, in nats per image."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.losses import Objective, Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions.elementary import rows_per_chunk
from vaelab.models.parts import CodePosterior
from vaelab.seeding import derive_seed, seed_noise

DRAWN_AT_ONCE = 10_000  # samples of z of an image


def evaluation_terms(objective: Objective, step: Step) -> dict[str, Tensor]:
    """Return the terms that training's evaluations report for a batch of images: scalars, means over the batch.

    The objective's `loss` and terms at their final weights, with z sampled; `elbo`, -(reconstruction + kl), of a model
    that has one; and `mse`, the squared error a pixel of the mean of p(x|z) at the mean of q(z|x).
    """
    terms = dict(objective(step))
    if "kl" not in terms and not why_no_densities(step.model):
        try:
            terms["kl"] = step.kl()
        except NotImplementedError:  # torch knows no closed form
            terms["kl"] = step.kl("monte_carlo")
    if "kl" in terms:
        terms["elbo"] = -(terms["reconstruction"] + terms["kl"])
    terms["mse"] = nn.functional.mse_loss(step.model.decode(step.q.mean, step.y).mean, step.x)
    return terms


def why_no_densities(model: Autoencoder) -> str | None:
    """Return why q(z|x) or p(z) has no density, which importance weights need; None where both have one."""
    if model.posterior.has_density and model.prior is not None:
        return None
    if isinstance(model.posterior, CodePosterior):
        return "z is codes that are sure given x: there is one z to weigh, and `elbo` is all that it says"
    return "there is no density q(z|x) or p(z): a plain autoencoder has none"


def why_no_likelihood(model: Autoencoder, pixels: Iterable[Tensor]) -> str | None:
    """Return why p(x|z) is not a probability or density of such uint8 images; None where it is one."""
    over = model.likelihood.normalized_over
    if over is None:
        return f"{type(model.likelihood).__name__} does not say what it is normalized over (`normalized_over`)"
    if over == "binary" and not is_binary(pixels):
        return (
            "the Bernoulli is no likelihood of grey pixels: binary cross-entropy leaves out its normalizer; "
            "train on binarized data (data.binarize=dynamic) or with a density (loss=mse)"
        )
    return None


def why_no_bits(model: Autoencoder, pixels: Iterable[Tensor]) -> str | None:
    """Return why nats cannot be converted to bits per dimension; None where they can.

    Bits encode values of a countable set: p(x|z) has to be a probability of the pixels' levels.
    """
    if model.likelihood.normalized_over in ("interval", "line"):
        return "p(x|z) is a density over continuous pixels, and no number of bits encodes one of those"
    return why_no_likelihood(model, pixels)


def is_binary(pixels: Iterable[Tensor]) -> bool:
    """Whether every uint8 pixel of some images, or of tensors of several, is black or white."""
    return all(bool(((part == 0) | (part == 255)).all()) for part in pixels)


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Nats an image -> bits a pixel and channel.

    >>> bits_per_dimension(784 * math.log(2), 784)
    1.0
    """
    return nats / (dimensions * math.log(2))


@torch.no_grad()
def log_likelihoods(
    model: Autoencoder, images: Iterable[Tensor], samples: int, seed: int, *, labels: Tensor | None = None
) -> Iterator[Tensor]:
    """The importance-weighted log p(x) of each image (C, H, W), scalars, float64 on the CPU.

    Of a conditional model it is log p(x|y), y the `labels` (N,). The noise of an image is f(seed, its number). See
    `importance_weighted_log_likelihood`.
    """
    assert model.prior is not None
    prior = model.prior()
    for number, x in enumerate(images):
        seed_noise(x.device, derive_seed(seed, "importance weights", number))
        y = None if labels is None else labels[number : number + 1]
        yield importance_weighted_log_likelihood(model, prior, x[None], samples, y)[0]


@torch.no_grad()
def importance_weighted_log_likelihood(
    model: Autoencoder, prior: Distribution, x: Tensor, samples: int, y: Tensor | None = None
) -> Tensor:
    """Return log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x), z_i ~ q(z|x), of images (B, C, H, W): (B,), float64 on the CPU.

    With k samples it is in expectation a lower bound of log p(x), not below the ELBO, which it is for k = 1, and rises
    to log p(x) with k (Burda et al. 2015, theorem 1). z and p(x|z) are made in chunks; the weights of an image are
    added up by their logarithms, in float64, and never those of different images.
    """
    q = model.encode(x, y)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for start in range(0, samples, DRAWN_AT_ONCE):
        z = q.rsample(torch.Size([min(DRAWN_AT_ONCE, samples - start)]))  # (k, B, Z)
        log_ratio = prior.log_prob(z) - q.log_prob(z)  # (k, B)
        parts = z.split(rows_per_chunk(x, x.numel()))
        log_p = torch.cat([model.decode(part, y).log_prob(x) for part in parts])
        total = total.logaddexp((log_p + log_ratio).cpu().double().logsumexp(0))
    return total - math.log(samples)
