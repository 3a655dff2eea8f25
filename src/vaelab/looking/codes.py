"""Codes of images, and the range and importance of each latent dimension."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.data import Batches, Images, rows_at_once
from vaelab.errors import RunError
from vaelab.metrics.latents import LatentsOfImages
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Codes, OneHotCodes
from vaelab.models.parts import CodePosterior


@torch.no_grad()
def codes_of(model: Autoencoder, images: Images, labels: Tensor, *, stochastic: bool = False) -> Tensor:
    """Return means or samples of q(z|x), (N, Z)."""
    return torch.cat([q.sample() if stochastic else q.mean for q in posteriors_of(model, images, labels)])


@torch.no_grad()
def numbers_of_codes(model: Autoencoder, images: Images, labels: Tensor) -> list[np.ndarray]:
    """The numbers of the codes of images on each grid, (N, *grid); none of a model without codes."""
    if not isinstance(model.posterior, CodePosterior):
        return []
    indices = [q.indices for q in posteriors_of(model, images, labels) if isinstance(q, Codes | OneHotCodes)]
    return [grid.numpy() for grid in model.posterior.on_grids(torch.cat(indices))]


def posteriors_of(model: Autoencoder, images: Images, labels: Tensor) -> Iterator[Distribution]:
    """Yield q(z|x) of images with their labels, batch by batch."""
    size = rows_at_once(images.shape)
    batches = Batches(images, batch_size=size, device=torch.device("cpu"))
    for batch, y in zip(batches, torch.split(labels, size), strict=True):
        yield model.encode(batch.images, y)


@torch.no_grad()
def information(model: Autoencoder, images: Images, labels: Tensor, codes: Tensor) -> tuple[Tensor, str, str]:
    """Return the importance of each dimension, (Z,), its name and unit: mean KL in nats, or variance of the codes."""
    found = LatentsOfImages(model.prior() if model.prior is not None else None)
    for q in posteriors_of(model, images, labels):
        found.add(q)
        if found.no_kl:  # the KL is not a sum over dimensions, or not in closed form
            return codes.var(0, correction=0), "variance", ""
    assert found.kl_per_dimension is not None
    return found.kl_per_dimension, "KL", " nats"


def require_real_vectors(model: Autoencoder) -> None:
    """Raise RunError if z cannot be an arbitrary vector."""
    try:
        model.require_real_vectors()
    except ValueError as error:
        raise RunError(str(error)) from error


def scale_of(model: Autoencoder, codes: Tensor) -> tuple[Tensor, Tensor, str]:
    """Return mean and standard deviation of each dimension, (Z,), of the prior or else of codes, and the unit."""
    try:
        if model.prior is None:
            raise NotImplementedError
        prior = model.prior()
        centre, spread = prior.mean, prior.stddev
    except NotImplementedError:
        centre, spread = codes.mean(0), codes.std(0, correction=0)
    standard = bool((centre == 0).all() and (spread == 1).all())
    return centre, spread, "z" if standard else "(z - mean) / std"
