"""The numbers of a trained model, kept in its run folder: torch is all it takes, not Lightning."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal

from vaelab.data import Batch, Batches, ImageData, Images
from vaelab.data.batches import EVALUATION_BATCH
from vaelab.errors import RunError, unwritten
from vaelab.looking.chosen import split_images
from vaelab.looking.load import opened
from vaelab.losses import Objective, Step
from vaelab.metrics import images, labels, latents, likelihood
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import OneHotCodes, VonMisesFisher
from vaelab.runs.folder import RunFolder
from vaelab.runs.surroundings import threads
from vaelab.seeding import derive_seed, seed_noise

if TYPE_CHECKING:
    from vaelab.runs.run import Run

Split = Literal["test", "validation", "train"]
Value = float | list[float]
Track = Callable[[Sequence[Any], str], Iterable[Any]]

PREFIX = {"test": "test", "validation": "val", "train": "train"}  # of names, as training's loggers have them
CODES = 10_000  # images at most that the probe is trained on, that clusters are made of, that z is told apart among
COSTLY = 1_000  # the same for z whose density under each of the posteriors takes a network, and not just a formula
FORMULAS = (Independent, MultivariateNormal, OneHotCodes, VonMisesFisher)
NATS, SHARE = "nats per image", "share of labels"
UNITS = {"mse": "per pixel", "batch_perplexity": "codes"}  # of terms that are not nats


@dataclass(frozen=True)
class Metric:
    """A number, or one for each latent dimension; `details` say what else it depends on."""

    value: Value
    unit: str
    standard_error: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one split by their names, why others are not among them, and the file that keeps them."""

    folder: RunFolder
    header: Mapping[str, Any]
    metrics: dict[str, Metric] = field(default_factory=dict)
    omitted: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the file, without its suffix."""
        return f"evaluation/{self.header['split']}_step{self.header['step']}_seed{self.header['seed']}"

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder.path / f"{self.name}.json"

    def keep(self) -> None:
        """Write the metrics, over those that the file has of the same names and beside all others.

        Raises:
            RunError: the run folder takes no files; a StorageError where the disk is full.
        """
        known: dict[str, Any] = self.folder.read_json(self.name).get("metrics", {})
        metrics = known | {name: _described(metric) for name, metric in self.metrics.items()}
        try:
            self.path.parent.mkdir(exist_ok=True)
            self.folder.write_json(self.name, {**self.header, "metrics": metrics})
        except OSError as error:
            raise unwritten(self.path, error) from error


def evaluate(
    run: "Run | str | Path",
    *,
    split: Split = "test",
    samples: int | None = None,
    seed: int | None = None,
    trust: Sequence[str] = (),
) -> dict[str, Value]:
    """The metrics of a run's model, by name; docs/metrics.md says what they are.

    They are kept in the run's evaluation/<split>_step<step>_seed<seed>.json, with their units; what earlier calls
    found of the same weights, split and seed, and this one does not compute, stays in it.

    Args:
        run: the run or its folder, for its best weights, or its last where none were best; or one of the files in
            its checkpoints/.
        split: the images.
        samples: of z an image, for the importance-weighted log-likelihood; None leaves it out.
        seed: of all that is drawn; by default the run's, with which `test/elbo` is that of metrics.json.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, no checkpoint yet, or no likelihood of which to take `samples`.
        DataError: the data are missing or damaged, or the split is empty.
        ConfigError: the run's config has mistakes.
    """
    evaluation = evaluation_of(run, split=split, samples=samples, seed=seed, trust=trust)
    return {name: metric.value for name, metric in evaluation.metrics.items()}


def evaluation_of(
    run: "Run | str | Path",
    *,
    split: str,
    samples: int | None,
    seed: int | None,
    trust: Sequence[str],
    track: Track = lambda steps, description: steps,
) -> Evaluation:
    """The same, with units and reasons; `track` may show how far each of its loops is."""
    if samples is not None and samples < 1:
        raise RunError(f"samples={samples}: an importance-weighted log-likelihood takes one sample of z or more")
    trained = opened(run, trust=trust)
    data = trained.experiment.data
    if samples is not None and (reason := likelihood.why_no_densities(trained.model)):
        raise RunError(f"samples={samples}: no importance-weighted log-likelihood of images, since {reason}")
    chosen = split_images(data, split)
    if samples is not None and (reason := likelihood.why_no_likelihood(trained.model, chosen.chunks())):
        raise RunError(f"samples={samples}: {reason}")
    device = _device(trained.folder.config.trainer.get("accelerator"))
    subject = _Subject(
        model=trained.model.to(device),
        objective=trained.experiment.objective,
        data=data,
        split=split,
        images=chosen.to(device),
        samples=samples,
        seed=trained.experiment.seed if seed is None else seed,
        track=track,
    )
    header = {
        "split": split,
        "images": len(chosen),
        "binarize": data.binarize,
        "normalized_over": trained.model.likelihood.normalized_over,
        "given": "nothing" if trained.model.classes is None else "labels",
        "step": trained.step,
        "seed": subject.seed,
    }
    evaluation = Evaluation(trained.folder, header)
    with threads(trained.experiment.threads):
        _evaluate(subject, evaluation)
    return evaluation


def _evaluate(subject: "_Subject", evaluation: Evaluation) -> None:
    try:
        for part in (_terms, _pictures, _latents, _labels, _log_likelihood):
            for name, found in part(subject):
                of_split = f"{PREFIX[subject.split]}/{name}"
                if isinstance(found, Metric):
                    evaluation.metrics[of_split] = found
                else:
                    evaluation.omitted[of_split] = found
            evaluation.keep()  # after each part: nothing that is finished is lost
    except KeyboardInterrupt as stopped:
        stopped.args = (str(evaluation.path),)
        raise


@dataclass(frozen=True, kw_only=True)
class _Subject:
    model: Autoencoder
    objective: Objective
    data: ImageData
    split: str
    images: Images
    samples: int | None
    seed: int
    track: Track

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def batches(self, images: Images, description: str) -> Iterable[Batch]:
        """The images in batches, in their order."""
        batches = Batches(images, batch_size=EVALUATION_BATCH, device=self.device)
        progress = iter(self.track(range(len(batches)), description))
        return (batch for batch, _ in zip(batches, progress, strict=True))

    def some(self, images: Images, purpose: str, most: int) -> Images:
        """The images, or `most` of them drawn at random where there are more."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, purpose))
        chosen = torch.randperm(len(images), generator=generator)[:most].sort().values
        return images.take(chosen.to(images.store.device))

    def codes(self, images: Images, description: str) -> Tensor:
        """The means of q(z|x), (N, Z), on the CPU."""
        batches = self.batches(images, description)
        return torch.cat([self.encode(batch).mean.flatten(1).cpu() for batch in batches])

    def encode(self, batch: Batch) -> Distribution:
        """q(z|x), or of a conditional model q(z|x, y), (B,)."""
        return self.model.encode(batch.images, batch.labels)


Found = Iterator[tuple[str, Metric | str]]


@torch.no_grad()
def _terms(subject: _Subject) -> Found:
    """What training's own test reports, from the same noise: the same bits."""
    terms, sizes = [], []
    for number, batch in enumerate(subject.batches(subject.images, "ELBO")):
        seed_noise(subject.device, derive_seed(subject.seed, PREFIX[subject.split], number))
        step = Step(subject.model, batch.images, batch.labels, training=False)
        terms.append(likelihood.evaluation_terms(subject.objective, step))
        sizes.append(len(batch.images))
    weights = torch.tensor(sizes, dtype=torch.float64)
    means = weights @ torch.stack([torch.stack(list(of_batch.values())) for of_batch in terms]).cpu().double()
    # In float32, which is what Lightning keeps of what is logged.
    found = dict(zip(terms[0], (means / weights.sum()).float().tolist(), strict=True))
    for name, value in found.items():
        yield name, Metric(value, UNITS.get(name, NATS))
    if "elbo" not in found:
        reason = likelihood.why_no_densities(subject.model) or "the objective has no KL among its terms"
        yield from ((name, reason) for name in ("elbo", "elbo_bits_per_dim"))
    else:
        yield _bits(subject, "elbo_bits_per_dim", -found["elbo"])


@torch.no_grad()
def _pictures(subject: _Subject) -> Found:
    decibels, similarities = [], []
    too_small = None
    for batch in subject.batches(subject.images, "reconstructions"):
        reconstructions = subject.model.reconstruct(batch.images, batch.labels)
        decibels.append(images.psnr(batch.images, reconstructions))
        try:
            similarities.append(images.ssim(batch.images, reconstructions))
        except ValueError as error:
            too_small = str(error)
    yield "psnr", _mean(torch.cat(decibels), "dB")
    yield "ssim", too_small or _mean(torch.cat(similarities), "1 where equal")


@torch.no_grad()
def _latents(subject: _Subject) -> Found:
    names = ["kl_per_dimension", "active_units", "mutual_information", "marginal_kl", "marginal_total_correlation"]
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
        yield "codes_in_use", Metric(float(found.usage.codes_in_use), codes)
        yield "perplexity", Metric(found.usage.perplexity, codes)
        yield "gaussian_total_correlation", "z is codes, not numbers that have a covariance"
    else:
        try:
            correlation = latents.gaussian_total_correlation(torch.cat(drawn))
            yield "gaussian_total_correlation", Metric(correlation, NATS)
        except ValueError as error:
            yield "gaussian_total_correlation", str(error)
    if reason := likelihood.why_no_densities(subject.model):
        yield from ((name, reason) for name in names)
        return
    assert prior is not None
    per_dimension = found.kl_per_dimension
    yield names[0], found.no_kl if per_dimension is None else Metric(per_dimension.tolist(), NATS)
    if found.variances is None:
        yield names[1], "z is codes: codes_in_use says how many"
    else:
        yield names[1], _active(found.variances, subject.model.posterior.layers)
    formula = isinstance(q, FORMULAS)
    chosen = subject.some(subject.images, "information", CODES if formula else COSTLY)
    posteriors = [subject.encode(batch) for batch in subject.batches(chosen, "information")]
    seed_noise(subject.device, derive_seed(subject.seed, "information"))
    information = latents.information(posteriors, prior)
    details = {"images": len(chosen), "draws": information.draws}

    def nats(value: float, error: float, **more: float) -> Metric:
        return Metric(value, NATS, error, details | more)

    yield names[2], nats(*information.mutual_information, at_most=math.log(len(chosen)))
    yield names[3], nats(*information.marginal_kl)
    total = information.total_correlation
    yield names[4], nats(*total) if total else "the posterior is no product over its dimensions"


def _active(variances: Tensor, layers: Sequence[int]) -> Metric:
    """How many dimensions are active; of a hierarchy also those of each layer."""
    details = {
        f"layer_{number}": latents.active_units(of_layer)
        for number, of_layer in enumerate(torch.split(variances, list(layers)) if layers else [], 1)
    }
    return Metric(latents.active_units(variances), f"of {len(variances)} dimensions", details=details)


@torch.no_grad()
def _labels(subject: _Subject) -> Found:
    supervised = ["linear_probe_accuracy", "knn_accuracy"]
    clusterings = ["cluster_nmi", "cluster_ari", "cluster_accuracy"]
    train = subject.some(split_images(subject.data, "train").to(subject.device), "probe", CODES)
    if len(torch.unique(train.labels)) < 2:
        yield from ((name, "the data have no labels") for name in [*supervised, *clusterings])
        return
    chosen = subject.some(subject.images, "codes", CODES)
    codes, of_codes = subject.codes(chosen, "codes"), chosen.labels.cpu()
    if subject.split == "train":
        yield from ((name, "its classifier is trained on the training split: --split test") for name in supervised)
    else:
        known = subject.codes(train, "training codes"), train.labels.cpu()
        details = {"images": len(chosen), "trained_on": len(train)}
        for name, accuracy in zip(supervised, (labels.linear_probe, labels.nearest_neighbours), strict=True):
            yield name, Metric(accuracy(*known, codes, of_codes), SHARE, details=details)
    if len(torch.unique(of_codes)) < 2:
        yield from ((name, "all images have the same label") for name in clusterings)
        return
    found = labels.clustering(codes, of_codes, derive_seed(subject.seed, "clusters"))
    details = {"images": len(chosen), "clusters": len(torch.unique(of_codes))}
    yield clusterings[0], Metric(found.nmi, "1 where equal", details=details)
    yield clusterings[1], Metric(found.ari, "1 where equal, 0 by chance", details=details)
    yield clusterings[2], Metric(found.accuracy, SHARE, details=details)


def _log_likelihood(subject: _Subject) -> Found:
    if subject.samples is None:
        reason = likelihood.why_no_densities(subject.model)
        reason = reason or likelihood.why_no_likelihood(subject.model, subject.images.chunks())
        yield "nll", reason or "ask for it: --samples 5000"
        return
    numbers = subject.track(range(len(subject.images)), "log-likelihood")
    pixels = chain.from_iterable(subject.images.chunks())
    each = (x.to(subject.device).float().div(255) for x, _ in zip(pixels, numbers, strict=True))
    log_p = likelihood.log_likelihoods(subject.model, each, subject.samples, subject.seed, labels=subject.images.labels)
    found = torch.stack(list(log_p))
    name, details = f"nll_{subject.samples}", {"samples": subject.samples}
    metric = _mean(-found, NATS, details)
    assert isinstance(metric.value, float)
    yield name, metric
    yield _bits(subject, f"{name}_bits_per_dim", metric.value, details)


def _bits(
    subject: _Subject, name: str, nats: float, details: Mapping[str, Any] | None = None
) -> tuple[str, Metric | str]:
    if reason := likelihood.why_no_bits(subject.model, subject.images.chunks()):
        return name, reason
    bits = likelihood.bits_per_dimension(nats, math.prod(subject.images.shape))
    return name, Metric(bits, "bits per dimension", details=details or {})


def _mean(of_images: Tensor, unit: str, details: Mapping[str, Any] | None = None) -> Metric:
    """The mean of numbers of images, (N,), and its standard error, which one image does not have."""
    value, error = latents.mean_and_error(of_images.double().cpu())
    return Metric(value, unit, error, details or {})


def _device(accelerator: str | None) -> torch.device:
    """The machine's accelerator where the run may have used it and there is one, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True) if accelerator != "cpu" else None
    return found or torch.device("cpu")


def _described(metric: Metric) -> dict[str, Any]:
    error = {} if metric.standard_error is None else {"standard_error": metric.standard_error}
    return {"value": metric.value, **error, "unit": metric.unit, **metric.details}
