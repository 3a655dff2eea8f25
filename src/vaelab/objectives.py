"""Objectives: what is minimised.

An objective is called as `objective(model, x, step)` with images x (B, C, H, W) and returns a dict of scalar
tensors: "loss", which is minimised, and every term by its name, unweighted. One reduction everywhere: sum over
the dimensions of an event, mean over the batch, in nats.

`step` is the optimizer's step, which schedules read. Evaluation passes `math.inf`: weights at their final
values, and nothing that serves training alone, such as free bits.

`requires(model)` says with a ValueError, before training starts, that a model cannot have this objective.
"""

import copy
import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.autoencoder import Autoencoder
from vaelab.distributions import Codes
from vaelab.schedules import Schedule, Weight, at

KLEstimator = Literal["closed_form", "monte_carlo"]
Samples = Annotated[int, Field(gt=0)]
Terms = Mapping[str, Tensor]


@runtime_checkable
class Objective(Protocol):
    """A loss over a model and a batch of images."""

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """The loss and its terms, scalars in nats an image."""

    def requires(self, model: Autoencoder) -> None:
        """Raise ValueError where `model` lacks what this objective needs."""


class Reconstruction:
    """loss = E_q[-log p(x|z)]: the reconstruction term, and no regularizer."""

    def requires(self, model: Autoencoder) -> None:
        """Refuse a prior that would be drawn from though nothing was trained against it."""
        if model.prior is not None:
            raise ValueError(
                "objective=reconstruction trains nothing against a prior, yet the model has one: "
                "take objective=elbo, or drop it with ~prior"
            )

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss` and `reconstruction`, the same number."""
        reconstruction = -model.decode(model.encode(x).rsample()).log_prob(x).mean()
        return {"loss": reconstruction, "reconstruction": reconstruction}


class ELBO:
    """loss = E_q[-log p(x|z)] + kl_weight(step) * KL(q(z|x) || p(z)), with one sample of z an image.

    With kl_weight 1 it is the negative evidence lower bound (Kingma & Welling 2014, equation 3); another
    constant gives the beta-VAE (Higgins et al. 2017, equation 4).

    Args:
        kl_weight: a number, or a schedule of the optimizer's step.
        free_bits: nats that each latent dimension may carry without being pushed: the loss then takes
            sum_j max(free_bits, mean over the batch of KL_j) (Kingma et al. 2016, equation 15).
        kl: `closed_form`, or `monte_carlo`: log q(z|x) - log p(z) at the sampled z.
    """

    def __init__(
        self,
        *,
        kl_weight: Weight | Schedule = 1.0,
        free_bits: Weight = 0.0,
        kl: KLEstimator = "closed_form",
    ) -> None:
        if free_bits > 0 and kl != "closed_form":
            raise ValueError("free_bits needs the KL of each dimension: kl=closed_form")
        self.kl_weight = kl_weight
        self.free_bits = free_bits
        self.kl = kl

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model whose KL is infinite, has nothing to be taken against, or no closed form."""
        _require_density("elbo", model)
        if self.kl == "closed_form":
            _require_closed_form(model)

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        assert model.prior is not None  # `requires` saw to it
        q, p = model.encode(x), model.prior()
        z = q.rsample()  # (B, Z)
        reconstruction = -model.decode(z).log_prob(x).mean()
        penalised = None
        if self.kl == "monte_carlo":
            kl = (q.log_prob(z) - p.log_prob(z)).mean()
        elif self.free_bits > 0:
            kl_of_dimension = kl_per_dimension(q, p).mean(0)  # (Z,)
            kl = kl_of_dimension.sum()
            penalised = kl_of_dimension.clamp(min=self.free_bits).sum()
        else:
            kl = kl_divergence(q, p).mean()
        if penalised is None or step == math.inf:
            penalised = kl
        loss = reconstruction + at(self.kl_weight, step) * penalised
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


class VectorQuantization:
    """loss = -log p(x|z) + commitment_weight * |e - sg(z)|^2 + |sg(e) - z|^2 (van den Oord et al. 2017, equation 3).

    e is what the encoder says, z the codes, sg stops the gradient; squares are summed over all codes of an image. The
    last term trains a codebook by gradients, and is zero for one that moves by averages, the commitment for one that is
    not learned. With a prior, `kl` is L log K: the nats that the codes take.

    Args:
        commitment_weight: a number, or a schedule of the optimizer's step.
    """

    def __init__(self, *, commitment_weight: Weight | Schedule = 0.25) -> None:
        self.commitment_weight = commitment_weight

    def requires(self, model: Autoencoder) -> None:
        """Refuse a posterior that does not quantize."""
        q, _ = _kinds(model)
        if q is not None and not isinstance(q, Codes):
            raise ValueError(
                f"objective=vector_quantization does not go with posterior={_option(model.posterior)}, which has no "
                "codes: take posterior=vector_quantizer (model=vq_vae) or finite_scalar_quantizer (model=fsq)"
            )

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction`, `commitment`, `batch_perplexity` of this batch's codes and, with a prior, `kl`."""
        q = model.encode(x)
        assert isinstance(q, Codes)  # `requires` saw to it
        reconstruction = -model.decode(q.rsample()).log_prob(x).mean()
        commitment = q.commitment.mean()
        loss = reconstruction + at(self.commitment_weight, step) * commitment
        if q.codebook_error is not None:
            loss = loss + q.codebook_error.mean()
        terms = {"loss": loss, "reconstruction": reconstruction, "commitment": commitment}
        terms["batch_perplexity"] = _perplexity(q.indices, q.codebook_size)
        if model.prior is not None:
            terms["kl"] = kl_divergence(q, model.prior()).mean()
        return terms


class IWAE:
    """loss = -E[log 1/k sum_i w_i], w_i = p(x|z_i) p(z_i) / q(z_i|x) (Burda et al. 2015, equation 8).

    The terms `reconstruction` and `kl` are means over the k samples, so that their sum is the negative Monte
    Carlo ELBO, which the loss equals for k = 1 and is tighter than for more.

    Args:
        samples: k.
    """

    def __init__(self, *, samples: Samples) -> None:
        self.samples = samples

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without densities."""
        _require_density("iwae", model)

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction` and `kl`."""
        assert model.prior is not None  # `requires` saw to it
        q = model.encode(x)
        z = q.rsample(torch.Size([self.samples]))  # (k, B, Z)
        log_likelihood = model.decode(z).log_prob(x)  # (k, B)
        log_ratio = q.log_prob(z) - model.prior().log_prob(z)  # (k, B)
        bound = (log_likelihood - log_ratio).logsumexp(0) - math.log(self.samples)  # (B,)
        return {"loss": -bound.mean(), "reconstruction": -log_likelihood.mean(), "kl": log_ratio.mean()}


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor:
    """KL(q_j || p_j) of each latent dimension in nats, (B, Z), of posteriors with independent dimensions.

    Raises:
        ValueError: q or p is not a product over its dimensions.
    """
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        raise ValueError("the KL splits into dimensions only where posterior and prior are products over them")
    return kl_divergence(q.base_dist, p.base_dist)


def _require_density(objective: str, model: Autoencoder) -> None:
    posterior = _option(model.posterior)
    if not model.posterior.has_density:
        quantizes = isinstance(_kinds(model)[0], Codes)
        instead = "vector_quantization" if quantizes else "reconstruction for a plain autoencoder"
        raise ValueError(
            f"objective={objective} does not go with posterior={posterior}: its KL divergence to a prior is "
            f"infinite; take posterior=gaussian (model=vae), or objective={instead}"
        )
    if model.prior is None:
        raise ValueError(f"objective={objective} needs a prior to take the KL divergence to: +prior=standard_normal")
    spaces = [getattr(distribution, "space", "real vectors") for distribution in _kinds(model)]
    if len(set(spaces)) > 1:
        fitting = {"the unit sphere": "hyperspherical_uniform", "codes": "uniform_codes"}
        raise ValueError(
            f"posterior={posterior} is over {spaces[0]} and prior={_option(model.prior)} over {spaces[1]}: "
            f"prior={fitting.get(spaces[0], 'standard_normal')} goes with it"
        )


def _require_closed_form(model: Autoencoder) -> None:
    q, p = _kinds(model)
    if q is None or p is None:
        return
    try:
        kl_divergence(q, p)
    except NotImplementedError as error:
        raise ValueError(
            f"the KL divergence of posterior={_option(model.posterior)} to prior={_option(model.prior)} has no closed "
            "form: objective.kl=monte_carlo"
        ) from error


def _kinds(model: Autoencoder) -> tuple[Distribution | None, Distribution | None]:
    """q(z|x) of two images and p(z), without values; None for what there is not, or only with values."""
    try:
        model = copy.deepcopy(model).to("meta").eval()
        x = torch.zeros(2, *model.likelihood.shape, device="meta")  # type: ignore[attr-defined]
        q = model.given(torch.zeros(2, dtype=torch.int64, device="meta")).encode(x)
        return q, model.prior() if model.prior is not None else None
    except Exception:  # a part of somebody's own may look at values: if it is wrong, training says how
        return None, None


def _option(part: object) -> str:
    """The name that a config has for a part: its class's, in small letters."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(part).__name__).lower()


def _perplexity(indices: Tensor, codebook_size: int) -> Tensor:
    """exp(entropy) of how often each code occurs: K if all do alike."""
    share = F.one_hot(indices.flatten(), codebook_size).to(torch.get_default_dtype()).mean(0)
    perplexity: Tensor = torch.special.entr(share).sum().exp()
    return perplexity
