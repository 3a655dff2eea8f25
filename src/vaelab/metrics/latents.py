"""Information in latent dimensions, in nats per image."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.data import in_turn
from vaelab.losses import kl_per_dimension
from vaelab.models.distributions import Codes, Flowed, GaussianChain, OneHotCodes, VonMisesFisher

ACTIVE_VARIANCE = 0.01
PAIRS_AT_ONCE = 2**20  # numbers z_j of (sample, posterior, dimension)
MIXTURE_DRAWS = 2_000
MEAN_DRAWS = 16  # samples of each of the two means that stand in for an expectation without a closed form

BY_BATCH = ("_expectations", "_kl", "_indices", "_probabilities")  # lists of `LatentsOfImages`


def active_units(variances: Tensor) -> int:
    """Count the dimensions with Var_x(E_q(z|x)[z_j]) > 0.01, of these variances over the data (Z,).

    Burda et al. (2015), section 5.2.
    """
    return int((variances > ACTIVE_VARIANCE).sum())


def expectations(q: Distribution) -> tuple[Tensor, Tensor]:
    """Two estimates of E_q[z], (B, Z) each, with errors independent of each other.

    Both are the exact mean where it has a closed form. Of flows and chains, whose `mean` is not E[z], each is a mean of
    16 samples: the covariance of the two over images is an unbiased estimate of Var_x(E_q[z]), where the variance of
    either would also have a part of the spread of q itself.
    """
    if isinstance(q, Flowed | GaussianChain):
        one, other = (q.sample(torch.Size([MEAN_DRAWS])).mean(0) for _ in range(2))
        return one, other
    mean = q.mean_cosine[..., None] * q.mean if isinstance(q, VonMisesFisher) else q.mean.flatten(1)
    return mean, mean


class Usage(NamedTuple):
    """Codes in use, codes in total, and perplexity: exp(entropy) of their frequencies."""

    codes_in_use: int
    codes: int
    perplexity: float


class LatentsOfImages:
    """Statistics of the latents of a set of images, accumulated batch by batch.

    Args:
        prior: p(z); None where there is none.
    """

    def __init__(self, prior: Distribution | None) -> None:
        self.prior = prior
        self.no_kl = "" if prior is not None else "there is no prior to take a KL to"  # why there is none
        self._images = 0
        self._expectations: list[tuple[Tensor, Tensor]] = []
        self._kl: list[Tensor] = []
        self._indices: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._codebook_size = 0

    def add(self, q: Distribution) -> None:
        """Add q(z|x) of a batch of images, (B,)."""
        if isinstance(q, Codes | OneHotCodes):
            self.no_kl = "z is codes, not numbers that have a KL each"
            self._codebook_size = q.codebook_size
            if isinstance(q, Codes):
                self._indices.append(q.numbers)
                self._codebook_size *= 1 if q.codebooks is None else int(q.codebooks.max()) + 1
            else:
                self._probabilities.append(q.log_probability.exp())
            return
        one, other = expectations(q)
        self._images += len(one)
        self._expectations.append((one.float(), other.float()))
        if not self.no_kl:
            assert self.prior is not None
            try:
                self._kl.append(kl_per_dimension(q, self.prior).float().sum(0))
            except (ValueError, NotImplementedError) as error:
                self.no_kl = str(error)

    def state(self) -> dict[str, Any]:
        """What was taken in, on the CPU, for another process."""
        lists = {name: [_on_cpu(found) for found in getattr(self, name)] for name in BY_BATCH}
        return lists | {"_images": self._images, "_codebook_size": self._codebook_size, "no_kl": self.no_kl}

    @classmethod
    def of(cls, prior: Distribution | None, states: Sequence[dict[str, Any]]) -> "LatentsOfImages":
        """Those that several processes have taken in, of batches that they share."""
        joined = cls(prior)
        for name in BY_BATCH:
            setattr(joined, name, in_turn([state[name] for state in states]))
        joined._images = sum(state["_images"] for state in states)
        joined._codebook_size = max(state["_codebook_size"] for state in states)
        joined.no_kl = max(state["no_kl"] for state in states)
        return joined

    @property
    def variances(self) -> Tensor | None:
        """Var_x(E_q[z_j]) over the images, (Z,), see `expectations`; None of codes."""
        if not self._expectations:
            return None
        one, other = (torch.cat(means).double() for means in zip(*self._expectations, strict=True))
        return ((one - one.mean(0)) * (other - other.mean(0))).mean(0)

    @property
    def kl_per_dimension(self) -> Tensor | None:
        """KL(q(z_j|x) || p(z_j)) of each dimension, the mean over the images, (Z,); None where `no_kl` says why."""
        return None if self.no_kl or not self._kl else torch.stack(self._kl).cpu().double().sum(0) / self._images

    @property
    def usage(self) -> Usage | None:
        """Of the codes at all places of all images; None where z is not codes.

        L categorical variables of K values each (`OneHotCodes`) have L K codes, of which those are in use that are the
        most probable ones of their variable for some image; the perplexity is that of E_x[q(z_l|x)], the mean over the
        variables.
        """
        if self._indices:
            every = torch.cat([indices.flatten() for indices in self._indices])
            _, counts = torch.unique(every, return_counts=True)
            return Usage(len(counts), self._codebook_size, _perplexity(counts.cpu().double() / len(every)).item())
        if self._probabilities:
            probability = torch.cat(self._probabilities).cpu()  # (N, L, K)
            _, places, size = probability.shape
            chosen = probability.argmax(-1) + size * torch.arange(places)  # (N, L)
            perplexity = _perplexity(probability.double().mean(0)).mean().item()
            return Usage(len(set(chosen.flatten().tolist())), places * size, perplexity)
        return None


def _on_cpu(found: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return found.cpu() if isinstance(found, Tensor) else tuple(tensor.cpu() for tensor in found)


def _perplexity(share: Tensor) -> Tensor:
    perplexity: Tensor = torch.special.entr(share).sum(-1).exp()
    return perplexity


def gaussian_total_correlation(z: Tensor) -> float:
    """Total correlation in nats of a Gaussian that has the covariance C of the codes z (N, Z).

        1/2 (sum_j log C_jj - log det C) = -1/2 log det R,   R the correlations

    KL(q(z) || prod_j q(z_j)) where q(z) is Gaussian, and what it is compared by where q(z) has no density to know
    (Locatello et al. 2019). Dimensions that do not vary are left out.

    Raises:
        ValueError: it is infinite: a dimension is a linear function of the others, as of N <= Z codes.
    """
    z = z.double()
    z = z[:, z.var(0, correction=0) > 0]
    if z.shape[1] < 2:
        return 0.0
    spread = torch.linalg.eigvalsh(torch.corrcoef(z.T))
    if spread.min() <= 1e-12:
        raise ValueError("infinite, since one dimension of the codes is a linear function of the others")
    correlation: float = -0.5 * spread.log().sum().item()
    return correlation


class Information(NamedTuple):
    """I_q(x; z), KL(q(z) || p(z)) and KL(q(z) || prod_j q(z_j)), each with its standard error: nats.

    The last is None where the posteriors are no products over their dimensions.
    """

    mutual_information: tuple[float, float]
    marginal_kl: tuple[float, float]
    total_correlation: tuple[float, float] | None
    draws: int


@torch.no_grad()
def information(posteriors: Sequence[Distribution], prior: Distribution) -> Information:
    """Estimate the mutual information, the marginal KL and the total correlation of N images.

    With the aggregate posterior of these images, q(z) = 1/N sum_n q(z|x_n), and z ~ q(z|x):

        I_q(x; z) = E[log q(z|x) - log q(z)],   KL(q(z) || p(z)) = E[log q(z) - log p(z)],
        KL(q(z) || prod_j q(z_j)) = E[log q(z) - sum_j log q(z_j)]

    (Hoffman & Johnson 2016; the last is the total correlation of Chen et al. 2018). The first two add up to the mean
    KL(q(z|x) || p(z)), and the third is a part of the second. The expectations are means over up to 2,000 images,
    drawn at random, with one z each: unbiased for the N images, among which z cannot tell more than log N. As an
    estimate for all images there could be, I_q is too low by that, and the others too high.

    Args:
        posteriors: q(z|x) of all images, each a batch (B,).
        prior: p(z), batch ().
    """
    parts = [q.rsample() for q in posteriors]
    own = torch.cat([q.log_prob(part) for q, part in zip(posteriors, parts, strict=True)])
    z = torch.cat(parts)  # (N, Z)
    drawn = torch.randperm(len(z), device=z.device)[:MIXTURE_DRAWS]
    z, log_conditional = z[drawn], own[drawn].cpu().double()
    marginals = [_log_marginals(posteriors, part) for part in torch.split(z, _draws_at_once(posteriors, z))]
    log_marginal, log_product = (torch.cat(values) for values in zip(*marginals, strict=True))
    log_prior = prior.log_prob(z).cpu().double()
    return Information(
        mean_and_error(log_conditional - log_marginal),
        mean_and_error(log_marginal - log_prior),
        mean_and_error(log_marginal - log_product) if _are_products(posteriors) else None,
        len(drawn),
    )


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of values (N,) and its standard error, which one value does not have: NaN."""
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return values.mean().item(), error


def _log_marginals(posteriors: Sequence[Distribution], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q(z) and sum_j log q(z_j) of z (M, Z), (M,) in float64 on the CPU; the same where q is no product."""
    whole, each = [], []
    for q in posteriors:
        factors = q.base_dist.log_prob(z[:, None]) if isinstance(q, Independent) else q.log_prob(z[:, None])[..., None]
        whole.append(factors.sum(-1).logsumexp(1).cpu().double())  # of (M, B, Z) or (M, B, 1)
        each.append(factors.logsumexp(1).cpu().double())
    log_number = math.log(sum(_sizes(posteriors)))
    return torch.stack(whole).logsumexp(0) - log_number, (torch.stack(each).logsumexp(0) - log_number).sum(-1)


def _are_products(posteriors: Sequence[Distribution]) -> bool:
    return all(isinstance(q, Independent) for q in posteriors)


def _sizes(posteriors: Sequence[Distribution]) -> list[int]:
    return [q.batch_shape[0] for q in posteriors]


def _draws_at_once(posteriors: Sequence[Distribution], z: Tensor) -> int:
    return max(1, PAIRS_AT_ONCE // (max(_sizes(posteriors)) * z[0].numel()))
