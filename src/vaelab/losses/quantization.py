"""Vector quantization."""

import math

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vaelab.losses.objective import Terms
from vaelab.losses.requirements import kinds, option
from vaelab.losses.schedules import Schedule, Weight, at
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Codes


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
        q, _ = kinds(model)
        if q is not None and not isinstance(q, Codes):
            raise ValueError(
                f"objective=vector_quantization does not go with posterior={option(model.posterior)}, which has no "
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
        terms["batch_perplexity"] = _perplexity(q.indices)
        if model.prior is not None:
            terms["kl"] = kl_divergence(q, model.prior()).mean()
        return terms


def _perplexity(indices: Tensor) -> Tensor:
    """exp(entropy) of how often each code occurs: K if all do alike. Takes no memory for codes that do not occur."""
    ordered = indices.flatten().sort().values
    counts = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)  # of each one's
    return (math.log(len(ordered)) - counts.to(torch.get_default_dtype()).log().mean()).exp()
