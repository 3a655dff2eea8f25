"""The metrics of every evaluation: terms of the loss, pictures, latents, labels, log-likelihood."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal

from vaelab.losses import Step
from vaelab.metrics import images, labels, latents, likelihood
from vaelab.metrics.registry import Metric, Value, mean_of, metric
from vaelab.metrics.subject import MOST, Subject
from vaelab.models.distributions import OneHotCodes, VonMisesFisher
from vaelab.seeding import derive_seed, seed_noise

COSTLY = 1_000  # images, where the density of z under each posterior takes a network and not just a formula
FORMULAS = (Independent, MultivariateNormal, OneHotCodes, VonMisesFisher)
PREFIX = {"test": "test", "validation": "val", "train": "train"}  # of names, as training's loggers have them
NATS, ACCURACY = "nats per image", "accuracy"
UNITS = {
    "mse": "per pixel",
    "batch_perplexity": "codes",
    "nats_per_code": "nats per code",
    "uniform_nats_per_code": "nats per code",
}  # of terms that are not nats
SUPERVISED = ("linear_probe_accuracy", "knn_accuracy")
CLUSTERINGS = ("cluster_nmi", "cluster_ari", "cluster_accuracy")
INFORMATION = ("mutual_information", "marginal_kl", "marginal_total_correlation")

Some = Iterator[tuple[str, Value | str]]


@metric("loss", "elbo", "elbo_bits_per_dim", "mse")
@torch.no_grad()
def terms(subject: Subject) -> Some:
    """The terms of training's own test, from the same noise, so with the same bits."""
    of_batches, sizes = [], []
    for number, batch in enumerate(subject.batches(subject.images, "ELBO")):
        seed_noise(subject.device, derive_seed(subject.seed, PREFIX[subject.split], number))
        step = Step(subject.model, batch.images, batch.labels, training=False)
        of_batches.append(likelihood.evaluation_terms(subject.objective, step))
        sizes.append(len(batch.images))
    weights = torch.tensor(sizes, dtype=torch.float64)
    means = weights @ torch.stack([torch.stack(list(of_batch.values())) for of_batch in of_batches]).cpu().double()
    # In float32, which is what Lightning keeps of what is logged.
    found = dict(zip(of_batches[0], (means / weights.sum()).float().tolist(), strict=True))
    for name, value in found.items():
        yield name, Value(value, UNITS.get(name, NATS))
    if "elbo" not in found:
        reason = likelihood.why_no_densities(subject.model) or "the objective has no KL among its terms"
        yield from ((name, reason) for name in ("elbo", "elbo_bits_per_dim"))
    else:
        yield _bits(subject, "elbo_bits_per_dim", -found["elbo"])


@metric("psnr", "ssim", needs=["images"])
@torch.no_grad()
def pictures(subject: Subject) -> Some:
    """Similarity of reconstructions and their images."""
    decibels, similarities = [], []
    too_small = None
    for batch in subject.batches(subject.images, "reconstructions"):
        reconstructions = subject.reconstruct(batch)
        decibels.append(images.psnr(batch.images, reconstructions))
        try:
            similarities.append(images.ssim(batch.images, reconstructions))
        except ValueError as error:
            too_small = str(error)
    yield "psnr", mean_of(torch.cat(decibels), "dB")
    yield "ssim", too_small or mean_of(torch.cat(similarities), "1 = identical")


@metric("codes_in_use", "perplexity", "gaussian_total_correlation", "kl_per_dimension", "active_units")
@torch.no_grad()
def usage(subject: Subject) -> Some:
    """Usage of each dimension, or of each code."""
    prior = subject.model.prior() if subject.model.prior is not None else None
    found, drawn = latents.LatentsOfImages(prior), []
    seed_noise(subject.device, derive_seed(subject.seed, "latents"))
    for batch in subject.batches(subject.images, "latents"):
        q = subject.encode(batch)
        found.add(q)
        if subject.model.space != "codes":
            drawn.append(q.sample().flatten(1).cpu())
    if found.usage is not None:
        codes = f"of {found.usage.codes} codes"
        yield "codes_in_use", Value(float(found.usage.codes_in_use), codes)
        yield "perplexity", Value(found.usage.perplexity, codes)
        yield "gaussian_total_correlation", "z consists of codes, which have no covariance"
    else:
        try:
            correlation = latents.gaussian_total_correlation(torch.cat(drawn))
            yield "gaussian_total_correlation", Value(correlation, NATS)
        except ValueError as error:
            yield "gaussian_total_correlation", str(error)
    if reason := subject.why_not("densities"):
        yield from ((name, reason) for name in ("kl_per_dimension", "active_units"))
        return
    per_dimension = found.kl_per_dimension
    yield "kl_per_dimension", found.no_kl if per_dimension is None else Value(per_dimension.tolist(), NATS)
    if found.variances is None:
        yield "active_units", "z consists of codes: see codes_in_use"
    else:
        yield "active_units", _active(found.variances, subject.model.posterior.layers)


@metric(*INFORMATION, needs=["densities"])
@torch.no_grad()
def information(subject: Subject) -> Some:
    """Mutual information of z and the image; KL of q(z) to the prior and to independent dimensions."""
    assert subject.model.prior is not None
    (first, *_) = subject.batches(subject.images.first(1), "information")
    formula = isinstance(subject.encode(first), FORMULAS)
    chosen = subject.chosen("information", MOST if formula else COSTLY)
    posteriors = [subject.encode(batch) for batch in subject.batches(chosen, "information")]
    seed_noise(subject.device, derive_seed(subject.seed, "information"))
    found = latents.information(posteriors, subject.model.prior())
    details = {"images": len(chosen), "draws": found.draws}

    def nats(value: float, error: float, **more: float) -> Value:
        return Value(value, NATS, error, details | more)

    yield INFORMATION[0], nats(*found.mutual_information, at_most=math.log(len(chosen)))
    yield INFORMATION[1], nats(*found.marginal_kl)
    total = found.total_correlation
    yield INFORMATION[2], nats(*total) if total else "the posterior is not a product over its dimensions"


@metric(*SUPERVISED, *CLUSTERINGS, needs=["labels"])
@torch.no_grad()
def classes(subject: Subject) -> Some:
    """Information about labels in codes."""
    train = subject.some(subject.training_images, "probe", MOST)
    chosen = subject.chosen("codes")
    codes, of_codes = subject.codes(chosen, "codes"), chosen.labels.cpu()
    if subject.split == "train":
        yield from ((name, "its classifier is trained on the training split: take --split test") for name in SUPERVISED)
    else:
        known = subject.codes(train, "training codes"), train.labels.cpu()
        details = {"images": len(chosen), "trained_on": len(train)}
        for name, accuracy in zip(SUPERVISED, (labels.linear_probe, labels.nearest_neighbours), strict=True):
            yield name, Value(accuracy(*known, codes, of_codes), ACCURACY, details=details)
    if len(torch.unique(of_codes)) < 2:
        yield from ((name, "all images have the same label") for name in CLUSTERINGS)
        return
    found = labels.clustering(codes, of_codes, derive_seed(subject.seed, "clusters"))
    details = {"images": len(chosen), "clusters": len(torch.unique(of_codes))}
    yield CLUSTERINGS[0], Value(found.nmi, "1 = perfect", details=details)
    yield CLUSTERINGS[1], Value(found.ari, "1 = perfect, 0 = chance", details=details)
    yield CLUSTERINGS[2], Value(found.accuracy, ACCURACY, details=details)


@metric("nll")
def log_likelihood(subject: Subject) -> Some:
    """The importance-weighted log-likelihood of all images."""
    if subject.likelihood_samples is None:
        reason = likelihood.why_no_densities(subject.model)
        reason = reason or likelihood.why_no_likelihood(subject.model, subject.images.chunks())
        yield "nll", reason or "request it with --samples 5000"
        return
    samples = subject.likelihood_samples
    numbers = subject.track(range(len(subject.images)), "log-likelihood")
    pixels = chain.from_iterable(subject.images.chunks())
    each = (subject.images.scaling.apply(x.to(subject.device)) for x, _ in zip(pixels, numbers, strict=True))
    log_p = likelihood.log_likelihoods(subject.model, each, samples, subject.seed, labels=subject.images.labels)
    name, details = f"nll_{samples}", {"samples": samples}
    found = mean_of(-torch.stack(list(log_p)), NATS, details)
    assert isinstance(found.value, float)
    yield name, found
    yield _bits(subject, f"{name}_bits_per_dim", found.value, details)


STANDARD: Sequence[Metric] = (terms, pictures, usage, information, classes, log_likelihood)


def _active(variances: Tensor, layers: Sequence[int]) -> Value:
    """Count active dimensions; in a hierarchy also those of each layer."""
    details = {
        f"layer_{number}": latents.active_units(of_layer)
        for number, of_layer in enumerate(torch.split(variances, list(layers)) if layers else [], 1)
    }
    return Value(latents.active_units(variances), f"of {len(variances)} dimensions", details=details)


def _bits(
    subject: Subject, name: str, nats: float, details: Mapping[str, Any] | None = None
) -> tuple[str, Value | str]:
    if reason := likelihood.why_no_bits(subject.model, subject.images.chunks()):
        return name, reason
    bits = likelihood.bits_per_dimension(nats, math.prod(subject.images.shape))
    return name, Value(bits, "bits per dimension", details=details or {})
