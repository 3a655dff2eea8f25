"""What the latent dimensions carry, in nats an image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

ACTIVE_VARIANCE = 0.01
PAIRS_AT_ONCE = 2**20  # numbers z_j of (sample, posterior, dimension)
MIXTURE_DRAWS = 2_000


def active_units(means: Tensor) -> int:
    """Latent dimensions whose posterior mean has a variance over the data above 0.01, of means (N, Z).

    Burda et al. 2015, section 5.2: Cov_x(E_q(z|x)[z]) > 0.01.
    """
    return int((means.double().var(0, correction=0) > ACTIVE_VARIANCE).sum())


class Information(NamedTuple):
    """I_q(x; z) and KL(q(z) || p(z)), with their standard errors: nats."""

    mutual_information: float
    mutual_information_error: float
    marginal_kl: float
    marginal_kl_error: float
    draws: int


@torch.no_grad()
def information(posteriors: Sequence[Distribution], prior: Distribution) -> Information:
    """How much z tells which of N images it is of, and how far all of them together are from the prior.

    With the aggregate posterior of these images, q(z) = 1/N sum_n q(z|x_n), and z ~ q(z|x):

        I_q(x; z) = E[log q(z|x) - log q(z)],   KL(q(z) || p(z)) = E[log q(z) - log p(z)]

    (Hoffman & Johnson 2016, equation 6); they add up to the mean KL(q(z|x) || p(z)). The expectations are means over
    up to 2,000 of the images, drawn at random, with one z each: unbiased for the N images, among which z cannot tell
    more than log N. As an estimate for all images there could be, I_q is too low by that, and the marginal KL too high.

    Args:
        posteriors: q(z|x) of all images, each a batch (B,).
        prior: p(z), batch ().
    """
    parts = [q.rsample() for q in posteriors]
    own = torch.cat([q.log_prob(part) for q, part in zip(posteriors, parts, strict=True)])
    z = torch.cat(parts)  # (N, Z)
    drawn = torch.randperm(len(z), device=z.device)[:MIXTURE_DRAWS]
    z, log_conditional = z[drawn], own[drawn].cpu().double()
    log_marginal = torch.cat([_log_mixture(posteriors, part) for part in torch.split(z, _draws_at_once(posteriors, z))])
    log_prior = prior.log_prob(z).cpu().double()
    return Information(
        *mean_and_error(log_conditional - log_marginal), *mean_and_error(log_marginal - log_prior), len(drawn)
    )


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of values (N,) and its standard error, which one value does not have: NaN."""
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return values.mean().item(), error


def _log_mixture(posteriors: Sequence[Distribution], z: Tensor) -> Tensor:
    """Log 1/N sum_n q(z|x_n) of z (M, Z): (M,), float64 on the CPU."""
    logs = [q.log_prob(z[:, None]).logsumexp(1).cpu().double() for q in posteriors]
    number = torch.tensor(sum(_sizes(posteriors)), dtype=torch.float64)
    return torch.stack(logs).logsumexp(0) - number.log()


def _sizes(posteriors: Sequence[Distribution]) -> list[int]:
    return [q.batch_shape[0] for q in posteriors]


def _draws_at_once(posteriors: Sequence[Distribution], z: Tensor) -> int:
    return max(1, PAIRS_AT_ONCE // (max(_sizes(posteriors)) * z[0].numel()))
