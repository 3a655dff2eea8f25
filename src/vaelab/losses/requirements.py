"""What a model must have for an objective or a regularizer: said before training starts, as a ValueError.

Each names both parts that do not go together, and what would.
"""

import copy
import re
from functools import cache

import torch
from torch import nn
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.models.autoencoder import Autoencoder, Conditional
from vaelab.models.distributions import Codes, Flowed
from vaelab.models.networks.convolutional import Grid


def require_density(objective: str, model: Autoencoder) -> None:
    """Refuse a posterior or prior without a density, or densities over different spaces."""
    posterior = option(model.posterior)
    if not model.posterior.has_density:
        quantizes = isinstance(kinds(model)[0], Codes)
        instead = "vector_quantization" if quantizes else "reconstruction for a plain autoencoder"
        raise ValueError(
            f"objective={objective} does not go with posterior={posterior}: its KL divergence to a prior is "
            f"infinite; take posterior=gaussian (model=vae), or objective={instead}"
        )
    if model.prior is None:
        raise ValueError(f"objective={objective} needs a prior to take the KL divergence to: prior=standard_normal")
    require_one_space(model)


def require_one_space(model: Autoencoder) -> None:
    """Refuse a posterior and a prior over different kinds of z."""
    spaces = [getattr(distribution, "space", "real vectors") for distribution in kinds(model)]
    if len(set(spaces)) > 1:
        fitting = {"the unit sphere": "hyperspherical_uniform", "codes": "uniform_codes"}
        raise ValueError(
            f"posterior={option(model.posterior)} is over {spaces[0]} and prior={option(model.prior)} over "
            f"{spaces[1]}: prior={fitting.get(spaces[0], 'standard_normal')} goes with it"
        )


def require_closed_form(model: Autoencoder, instead: str) -> None:
    """Refuse a pair of posterior and prior whose KL divergence has no closed form, and say what to take `instead`."""
    q, p = kinds(model)
    if q is None or p is None:
        return
    try:
        kl_divergence(q, p)
    except NotImplementedError as error:
        raise ValueError(
            f"the KL divergence of posterior={option(model.posterior)} to prior={option(model.prior)} has no closed "
            f"form: {instead}"
        ) from error


def require_independent_dimensions(wanted_by: str, model: Autoencoder) -> None:
    """Refuse a posterior that is no product of densities over the dimensions of z."""
    q, _ = kinds(model)
    if not model.posterior.has_density or (q is not None and not isinstance(q, Independent)):
        raise ValueError(
            f"{wanted_by} needs the density of each latent dimension, and posterior={option(model.posterior)} has "
            "none: take posterior=gaussian or laplace, or another regularizer, such as mmd or dip"
        )


def require_density_of_samples(wanted_by: str, model: Autoencoder) -> None:
    """Refuse a posterior whose samples are not of the distribution whose `log_prob` they would be weighed by."""
    if getattr(model.posterior, "relaxes_samples", False):
        raise ValueError(
            f"{wanted_by} weighs samples by their probability, and posterior={option(model.posterior)} relaxes them in "
            "training to what has none: take objective=elbo with objective.kl=closed_form (model=gumbel_vae)"
        )


def require_differentiable_density(wanted_by: str, model: Autoencoder) -> None:
    """Refuse a posterior whose samples are no smooth map of noise, or whose density is not known at any z."""
    if getattr(model.likelihood, "couples_images", False):
        raise ValueError(
            f"{wanted_by} weighs each sample's gradient by itself, and in loss={option(model.likelihood)} one scale "
            "hangs on all of them: loss=gaussian_shared_scale, or objective=iwae with "
            "objective.gradient=reparameterized"
        )
    q, _ = kinds(model)
    if q is None:
        return
    if not q.has_rsample or isinstance(q, Flowed) or hasattr(q, "space"):
        raise ValueError(
            f"{wanted_by} needs z to be a smooth map of noise and its density at any z, which "
            f"posterior={option(model.posterior)} does not give: take posterior=gaussian, full_covariance_gaussian or "
            "laplace, or objective=iwae with objective.gradient=reparameterized"
        )


def require_shapes(model: Autoencoder) -> None:
    """Refuse parts whose outputs the next part cannot take, of a model on the meta device, in evaluation mode."""
    codes = getattr(model.posterior, "codes", None)
    modules = model.decoder.modules() if isinstance(model.decoder, nn.Module) else ()
    for grid in (module for module in modules if isinstance(module, Grid)):
        if codes is not None and codes != grid.height * grid.width:
            raise ValueError(
                f"decoder.features=null has a grid of {grid.height} x {grid.width} places, and the posterior has "
                f"{codes} codes: as many decoder.channels as encoder.channels make the grids the same"
            )
    size, wanted = model.posterior.latent_dim, tuple(model.likelihood.parameter_shape)  # type: ignore[attr-defined]
    try:
        given = model.given(torch.zeros(2, dtype=torch.int64, device="meta"))
        q = given.encode(torch.zeros(2, *model.likelihood.shape, device="meta"))  # type: ignore[attr-defined]
        parameters = given.decoder(torch.zeros(2, size, device="meta"))
    except Exception:  # as in `kinds`
        return
    if (q.batch_shape, q.event_shape) != ((2,), (size,)):
        raise ValueError(
            f"posterior={option(model.posterior)} gives a distribution of batch shape {tuple(q.batch_shape)} and event "
            f"shape {tuple(q.event_shape)} of 2 images: with its latent_dim they should be (2,) and ({size},)"
        )
    if tuple(parameters.shape) != (2, *wanted):
        raise ValueError(
            f"decoder={option(model.decoder)} gives {tuple(parameters.shape[1:])} of a latent, and "
            f"loss={option(model.likelihood)} takes {wanted}"
        )


def kinds(model: Autoencoder) -> tuple[Distribution | None, Distribution | None]:
    """q(z|x) of two images and p(z), without values; None for what there is not, or only with values."""
    try:
        model = copy.deepcopy(model).to("meta").eval()
        x = torch.zeros(2, *model.likelihood.shape, device="meta")  # type: ignore[attr-defined]
        q = model.given(torch.zeros(2, dtype=torch.int64, device="meta")).encode(x)
        return q, model.prior() if model.prior is not None else None
    except Exception:  # a part of somebody's own may look at values: if it is wrong, training says how
        return None, None


def option(part: object) -> str:
    """The name that a config has for a part: the first option of conf/ that makes one, or its class's."""
    if isinstance(part, Conditional):  # around the one that was chosen
        part = getattr(part, "network", part)
    kind = type(part)
    for target, name in _options():
        module, _, made = target.rpartition(".")
        if kind.__name__ == made and f"{kind.__module__}.".startswith(f"{module}."):
            return name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


@cache
def _options() -> list[tuple[str, str]]:
    """What each option of conf/ makes, and its name."""
    from vaelab.config.conf import contents  # which has nothing to do with models

    return [(option.content["_target_"], option.name) for option in contents() if "_target_" in option.content]
