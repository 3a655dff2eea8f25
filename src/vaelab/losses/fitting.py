"""What fits a prior to the codes of a model that is done."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from vaelab.losses.needs import concerning, need_prior
from vaelab.losses.objective import Objective, Terms
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Codes, CodeSequence
from vaelab.models.parts import UnsuitableError
from vaelab.models.priors import CodeTransformer


class PriorLikelihood(Objective):
    """loss = E_q[-log p(z)] in nats an image, z the codes of images: it trains the prior, and passes nothing to q.

    The prior begins at the codes of all training images (`Prior.start`). An evaluation reports the reconstruction as
    well and, of codes that are sure given x, `kl`, which is the same as the loss, `nats_per_code`, the loss over the
    number of codes, and `uniform_nats_per_code`, log K.

    Args:
        codes: `samples` of q(z|x), or its `means`.
    """

    def __init__(self, *, codes: Literal["samples", "means"] = "samples") -> None:
        super().__init__()
        self.codes = codes

    def requires(self, model: Autoencoder) -> None:
        """Refuse a model without a prior over the space of its codes that can be trained."""
        super().requires(model)
        with concerning(self):
            if model.space == "codes" and model.prior is not None and model.prior.space != "codes":
                raise UnsuitableError(
                    "{} is over vectors, and those of {} are out of a finite set",
                    model.prior,
                    model.posterior,
                    fits=[CodeTransformer],
                )
            need_prior(model)
            assert model.prior is not None
            if not any(weight.requires_grad for weight in model.prior.parameters()):
                raise UnsuitableError("{} has nothing that could be fitted", model.prior)

    def z(self, q: Distribution) -> Tensor:
        """The codes, (B, Z), without a gradient."""
        return (q.mean if self.codes == "means" else q.sample()).detach()

    def forward(self, step: Step) -> Terms:
        """`loss`, and in an evaluation `reconstruction` and what is said of codes."""
        sure = isinstance(step.q, Codes)
        loss = kl_divergence(step.q, step.p_z).mean() if sure else -step.p_z.log_prob(self.z(step.q)).mean()
        if step.training:
            return {"loss": loss}
        terms = {"loss": loss, "reconstruction": step.reconstruction}
        if sure and isinstance(step.p_z, CodeSequence):
            per_code = loss / step.p_z.length
            terms |= {"kl": loss, "nats_per_code": per_code}
            terms["uniform_nats_per_code"] = torch.full_like(per_code, math.log(step.p_z.size))
        return terms
