"""Requirements of terms and bounds on a model, checked before training starts."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributions import Distribution, Independent, kl_divergence

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Flowed
from vaelab.models.parts import CodePosterior, Space, UnsuitableError, coupling_module
from vaelab.models.posteriors import FullCovarianceGaussian, Gaussian, Laplace
from vaelab.models.priors import HypersphericalUniform, StandardNormal, UniformCodes

PRIORS: dict[Space, type] = {
    "real vectors": StandardNormal,
    "the unit sphere": HypersphericalUniform,
    "codes": UniformCodes,
}


@contextmanager
def concerning(what: object) -> Iterator[None]:
    """Name the objective or term that refuses a model in the error."""
    try:
        yield
    except UnsuitableError as error:
        raise UnsuitableError(f"{{}}: {error.message}", what, *error.parts, fits=error.fits) from error


def need_density(model: Autoencoder) -> None:
    """Refuse a posterior or prior without a density, or densities over different spaces."""
    if not model.posterior.has_density:
        codes = isinstance(model.posterior, CodePosterior)
        other = "codes are trained by vector_quantization" if codes else "a plain autoencoder by reconstruction alone"
        message = f"{{}} has no density q(z|x), so its KL divergence to a prior is infinite ({other})"
        raise UnsuitableError(message, model.posterior, fits=[Gaussian])
    need_prior(model)


def need_prior(model: Autoencoder) -> None:
    """Refuse a model without a prior, or with one over another space than the posterior's."""
    if model.prior is None:
        raise UnsuitableError("it needs a prior p(z), and the model has none", fits=[PRIORS[model.space]])
    if model.space != model.prior.space:
        message = f"{{}} is over {model.space} and {{}} over {model.prior.space}"
        raise UnsuitableError(message, model.posterior, model.prior, fits=[PRIORS[model.space]])


def need_closed_form(model: Autoencoder, instead: str) -> None:
    """Refuse a pair of posterior and prior whose KL divergence has no closed form, and say what to take `instead`."""
    q, p = kinds(model)
    if q is None or p is None:
        return
    try:
        kl_divergence(q, p)
    except NotImplementedError as error:
        message = f"the KL divergence of {{}} to {{}} has no closed form: {instead}"
        raise UnsuitableError(message, model.posterior, model.prior) from error


def need_independent_dimensions(model: Autoencoder) -> None:
    """Refuse a posterior that is not a product of densities over the dimensions of z."""
    q, _ = kinds(model)
    if not model.posterior.has_density or (q is not None and not isinstance(q, Independent)):
        message = "it needs the density of each latent dimension, and {} has none"
        raise UnsuitableError(message, model.posterior, fits=[Gaussian, Laplace])


def need_density_of_samples(model: Autoencoder) -> None:
    """Refuse a posterior whose samples are not distributed as its `log_prob` says."""
    if model.posterior.relaxes_samples:
        raise UnsuitableError(
            "it weighs samples by their probability, and {} relaxes them in training to what has none: take the "
            "objective elbo with kl=closed_form",
            model.posterior,
        )


def need_uncoupled(gradient: str, *networks: nn.Module | None, instead: str) -> None:
    """Refuse `networks` that couple the images or samples of a batch, where each has a `gradient` of its own."""
    for network in networks:
        if network is not None and (coupling := coupling_module(network)) is not None:
            message = f"{gradient} by itself, and {{}} makes it depend on the others of its batch: {instead}"
            raise UnsuitableError(message, coupling)


def need_differentiable_density(model: Autoencoder) -> None:
    """Refuse a posterior whose samples are no smooth map of noise, and densities of z that couple samples.

    Batch normalization in the encoder is allowed: it makes the posterior of an image depend on its batch, alike for all
    of its samples.
    """
    instead = "take the objective iwae with gradient=reparameterized"
    parts = model.decoder, model.likelihood, model.posterior, model.prior
    need_uncoupled("it weighs the gradient of each sample", *parts, instead=instead)
    q, _ = kinds(model)
    if q is not None and (not q.has_rsample or isinstance(q, Flowed) or model.space != "real vectors"):
        raise UnsuitableError(
            f"it needs z as a smooth map of noise, and its density at any z, which {{}} does not give ({instead})",
            model.posterior,
            fits=[Gaussian, FullCovarianceGaussian, Laplace],
        )


def kinds(model: Autoencoder) -> tuple[Distribution | None, Distribution | None]:
    """q(z|x) of two images and p(z) on the meta device; None where there is none, or where a part needs values."""
    try:
        model = copy.deepcopy(model).to("meta").eval()
        x = torch.zeros(2, *model.likelihood.shape, device="meta")
        q = model.encode(x, torch.zeros(2, dtype=torch.int64, device="meta"))
        return q, model.prior() if model.prior is not None else None
    except Exception:  # a part of somebody's own may look at values: if it is wrong, training says how
        return None, None
