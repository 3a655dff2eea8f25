"""Ways through a latent space: lines, arcs, planes; and a Gaussian where there is no prior."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal


def line(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """(1 - t) first + t last for t = 0, ..., 1: (steps, *batch, Z) from latents (*batch, Z), which are its ends.

    >>> line(torch.tensor([0.0]), torch.tensor([2.0]), 3).T
    tensor([[0., 1., 2.]])
    """
    t = _times(first, steps)
    return (1 - t) * first + t * last


def arc(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """The same with the direction on the great circle, turning evenly, and the norm from one to the other evenly.

    With w the angle between a and b, the direction is sin((1 - t) w)/sin w a/|a| + sin(t w)/sin w b/|b|
    (Shoemake 1985), and the norm (1 - t)|a| + t |b|. Samples of a Gaussian in many dimensions have nearly the same
    norm, and on a line between two of them it is smaller: no sample is like that (White 2016). The ends are exact.
    Where there is no single arc, since the angle is 0 or 180 degrees or a norm is 0, it is the line.
    """
    t = _times(first, steps)
    norms = first.norm(dim=-1, keepdim=True), last.norm(dim=-1, keepdim=True)  # (*batch, 1)
    a, b = first / norms[0], last / norms[1]
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))  # accurate near 0
    direction = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    path = ((1 - t) * norms[0] + t * norms[1]) * direction
    straight = line(first, last, steps)
    single = (angle.sin() > 1e-5) & (angle < torch.pi - 1e-5)
    return torch.where(single & (t > 0) & (t < 1), path, straight)


def grid_lines(n: int, *, prior: Distribution | None = None, codes: Tensor | None = None) -> Tensor:
    """Values (n, 2) of two latent dimensions at the probabilities 1/2n, 3/2n, ..., of the codes (N, 2) or the prior.

    Raises:
        ValueError: z has not two dimensions, or there are no codes and the prior has no inverse CDF a dimension.
    """
    size = codes.shape[-1] if codes is not None else prior.event_shape[-1] if prior is not None else None
    if size is not None and size != 2:
        raise ValueError(f"a plane has 2 latent dimensions, this model has {size}")
    probabilities = (torch.arange(n) + 0.5) / n
    if codes is not None:
        exact = codes.to(torch.promote_types(codes.dtype, torch.float32))  # quantiles are not there in less
        return exact.quantile(probabilities.to(exact), dim=0).to(codes)
    lines = inverse_cdf(prior, probabilities) if prior is not None else None
    if lines is None:
        raise ValueError("the prior has no inverse CDF of each dimension: give codes, for their quantiles")
    return lines


def inverse_cdf(prior: Distribution, probabilities: Tensor) -> Tensor | None:
    """The quantiles (n, Z) of each dimension of a prior that is a product over its dimensions; None of another."""
    if not isinstance(prior, Independent):
        return None
    try:
        quantiles: Tensor = prior.base_dist.icdf(probabilities.to(prior.base_dist.mean)[:, None])
    except NotImplementedError:
        return None
    return quantiles


def plane(lines: Tensor) -> Tensor:
    """The points (n, n, 2) of a grid with lines (n, 2): z_0 grows from left to right, z_1 from bottom to top."""
    across, up = torch.meshgrid(lines[:, 0], lines[:, 1].flip(0), indexing="xy")
    return torch.stack([across, up], -1)


def fitted_gaussian(codes: Tensor) -> Distribution:
    """N(mean, covariance) of codes (N, Z), with the full covariance: a stand-in for a prior, batch (), event (Z,).

    Dimensions that do not vary at all are given a standard deviation of a thousandth of the others'.
    """
    codes = codes.double()
    covariance = codes.T.cov(correction=0).reshape(codes.shape[1], codes.shape[1])
    floor = 1e-6 * covariance.diagonal().mean() + torch.finfo(torch.float32).tiny
    covariance = covariance + floor * torch.eye(len(covariance), dtype=codes.dtype, device=codes.device)
    return MultivariateNormal(
        codes.mean(0).float(), scale_tril=torch.linalg.cholesky(covariance).float(), validate_args=False
    )


def changing(rows: Tensor) -> Tensor:
    """Which rows of a traversal (R, K, C, H, W) change at all, (R,); all where none does.

    The decoder of a hierarchy sees z_1 alone: the layers above it change an image by way of it.
    """
    changes = (rows != rows[:, :1]).flatten(1).any(1)
    return changes if changes.any() else torch.ones_like(changes)


def _times(like: Tensor, steps: int) -> Tensor:
    """T = 0, ..., 1, shaped (steps, 1, ..., 1) to go before the dimensions of a tensor."""
    return torch.linspace(0, 1, steps, dtype=like.dtype, device=like.device).reshape(-1, *[1] * like.dim())
