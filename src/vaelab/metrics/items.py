"""Scores of single items: their cost under a model, in nats, and how unusual they are."""

import zlib

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vaelab.losses import Step
from vaelab.metrics.likelihood import why_no_densities

NATS_PER_BYTE = 8 * float(np.log(2))


@torch.no_grad()
def item_terms(step: Step) -> dict[str, Tensor]:
    """Terms of each item of a batch (B, *event), (B,): what `evaluation_terms` has the means of, from the same noise.

    `reconstruction`, -log p(x|z) at one z ~ q(z|x); where q(z|x) and p(z) have densities, `kl` and `negative_elbo`;
    `squared_error`, that of the mean of p(x|z) at the mean of q(z|x), the mean over the event's numbers.
    """
    terms = {"reconstruction": -step.p_x.log_prob(step.x)}
    if not why_no_densities(step.model):
        try:
            terms["kl"] = kl_divergence(step.q, step.p_z)
        except NotImplementedError:  # torch knows no closed form
            terms["kl"] = step.q.log_prob(step.z) - step.p_z.log_prob(step.z)
        terms["negative_elbo"] = terms["reconstruction"] + terms["kl"]
    again = step.model.decode(step.q.mean, step.y).mean
    terms["squared_error"] = (again - step.x).square().flatten(1).mean(1)
    return terms


def typicality(scores: Tensor, training: Tensor) -> Tensor:
    """Distance of each score (N,) from the mean of those of training items (M,).

    |s(x) - mean s|: an item is unusual where its -log p(x) is unusually high or unusually low, the test of Nalisnick et
    al. (2019b) for single items.
    """
    return (scores.double() - training.double().mean()).abs()


def complexity(images: Tensor) -> Tensor:
    """Nats that a general compressor needs for images (N, C, H, W) in [0, 1], as 8-bit pixels: (N,), float64.

    Each row of pixels is kept as its difference from the row above, as PNG does, and deflated (zlib, level 9).
    -log p(x) less this is the likelihood ratio of Serra et al. (2020) to the compressor: what the model knows about an
    image beyond that it is simple.
    """
    pixels = images.detach().cpu().mul(255).round().to(torch.uint8).numpy()
    rows = np.concatenate([pixels[..., :1, :], np.diff(pixels, axis=-2)], axis=-2)  # wraps around, as bytes do
    sizes = [len(zlib.compress(np.ascontiguousarray(image).tobytes(), 9)) for image in rows]
    return torch.tensor(sizes, dtype=torch.float64) * NATS_PER_BYTE
