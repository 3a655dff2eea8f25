"""Reconstruction and any regularizers, composed."""

import math
from collections.abc import Mapping

from torch import Tensor

from vaelab.losses.corruptions import Corruption
from vaelab.losses.objective import KnowsDataset, Terms
from vaelab.losses.regularizers import KL, Regularizer
from vaelab.losses.requirements import kinds, option
from vaelab.losses.schedules import at
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Codes

TAKEN = ("loss", "reconstruction", "elbo", "mse")  # names of other terms


class Regularized:
    """loss = E_q[-log p(x|z)] + sum_i w_i(step) R_i, q = q(z|c(x)), c a corruption of the images or nothing.

    Args:
        regularizers: name -> R_i, which knows its weight; null stands for none. That of the class KL has the name kl,
            since the ELBO is reported by it.
        corruption: what the encoder's images go through in training (Vincent et al. 2010).

    Raises:
        ValueError: there is neither, or a regularizer has a name that means something else.
    """

    def __init__(
        self, *, regularizers: Mapping[str, Regularizer | None] | None = None, corruption: Corruption | None = None
    ) -> None:
        self.regularizers = {name: part for name, part in (regularizers or {}).items() if part is not None}
        self.corruption = corruption
        if not self.regularizers and corruption is None:
            raise ValueError(
                "neither a regularizer nor a corruption: add one, such as +regularizer@objective.regularizers.mmd=mmd, "
                "or take objective=reconstruction"
            )
        for name, part in self.regularizers.items():
            if name in TAKEN or (name == "kl") != isinstance(part, KL):
                fitting = "kl" if isinstance(part, KL) else option(part)
                raise ValueError(f"regularizers.{name}: a {type(part).__name__} cannot have this name: {fitting}")

    def drawn_from(self, images: int) -> None:
        """Tell the regularizers that have to know how many images the dataset has."""
        for part in self.regularizers.values():
            if isinstance(part, KnowsDataset):
                part.drawn_from(images)

    @property
    def couples_images(self) -> bool:
        """Whether the loss is no mean over the images of a batch."""
        return any(part.couples_images for part in self.regularizers.values())

    def requires(self, model: Autoencoder) -> None:
        """Refuse a codebook, a prior that nothing is trained against, and what each regularizer refuses."""
        if isinstance(kinds(model)[0], Codes):
            raise ValueError(
                f"objective=regularized would not train the codes of posterior={option(model.posterior)}: "
                "objective=vector_quantization"
            )
        for part in self.regularizers.values():
            part.requires(model)
        if model.prior is not None and not any(part.uses_prior for part in self.regularizers.values()):
            raise ValueError(
                f"none of the regularizers ({', '.join(self.regularizers) or 'none'}) has anything to do with prior="
                f"{option(model.prior)}: add one that has, with +regularizer@objective.regularizers.kl=kl or mmd, or "
                "drop it with ~prior"
            )

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """`loss`, `reconstruction` and every regularizer by its name."""
        seen = x if self.corruption is None or step == math.inf else self.corruption(x)
        q = model.encode(seen)
        z = q.rsample()  # (B, Z)
        reconstruction = -model.decode(z).log_prob(x).mean()
        penalties = {name: part(model, seen, q, z, step) for name, part in self.regularizers.items()}
        loss = reconstruction
        for name, penalty in penalties.items():
            loss = loss + at(self.regularizers[name].weight, step) * penalty
        return {"loss": loss, "reconstruction": reconstruction, **penalties}
