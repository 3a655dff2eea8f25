"""Evaluate a trained model and keep the metrics in its run folder, without importing Lightning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from vaelab.config.parts import check_part
from vaelab.errors import ConfigError, RunError
from vaelab.looking.load import Trained, opened
from vaelab.metrics import likelihood
from vaelab.metrics.factors import factors as factors_metric
from vaelab.metrics.generation import generation as generation_metric
from vaelab.metrics.registry import Metric, Number, Value, declaration, measured, reason_against
from vaelab.metrics.standard import PREFIX, STANDARD
from vaelab.metrics.subject import Subject, Track, split_images
from vaelab.runs.evaluations import Evaluation
from vaelab.runs.folder import RunFolder
from vaelab.runs.surroundings import threads

if TYPE_CHECKING:
    from vaelab.runs.run import Run

Split = Literal["test", "validation", "train"]
Naming = Callable[[str], str]


@dataclass(frozen=True)
class Wanted:
    """Metrics to compute besides the standard ones and those of the run's config, as in `evaluate`."""

    samples: int | None = None
    generation: int | None = None
    features: str = "classifier"
    weights: str | None = None
    fit_gaussian: bool = False
    factors: bool = False
    metrics: Sequence[str] = ()

    @property
    def comparison(self) -> Metric | None:
        """The metric of `generation`."""
        if self.generation is None:
            return None
        return partial(
            generation_metric,
            features=self.features,
            weights=self.weights,
            images=self.generation,
            fit_gaussian=self.fit_gaussian,
        )


@dataclass
class Evaluated:
    """The result of an evaluation.

    Args:
        found: the metrics that were computed.
        path: the file that they were written to.
        omitted: names of metrics that could not be computed -> why.
        figures: drawn beside the file.
    """

    found: Evaluation
    path: Path
    omitted: dict[str, str] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)


def evaluate(
    run: "Run | str | Path",
    *,
    split: Split = "test",
    samples: int | None = None,
    generation: int | None = None,
    features: str = "classifier",
    weights: str | None = None,
    fit_gaussian: bool = False,
    factors: bool = False,
    metrics: Sequence[str] = (),
    seed: int | None = None,
    trust: Sequence[str] = (),
) -> dict[str, Number]:
    """Compute the metrics of a run's model, by name; docs/metrics.md defines them.

    They are written to the run's evaluation/<split>_step<step>_seed<seed>.json, with their units, beside metrics that
    earlier calls have computed for the same weights, split and seed.

    Args:
        run: the run or its folder, for its best weights, or its last where none were best; or one of the files in
            its checkpoints/.
        split: train, validation or test.
        samples: of z per image, for the importance-weighted log-likelihood; None leaves it out.
        generation: images to sample and compare with those of the split; None leaves it out.
        features: in which space: pixels, classifier, a network of torchvision.models such as inception_v3, or
            FILE.py:NAME of one's own.
        weights: a file with the weights of torchvision's network; None for torchvision's own, which are downloaded.
        fit_gaussian: sample from a Gaussian fitted to training codes.
        factors: disentanglement scores, for data with known factors, with figures beside the file.
        metrics: of one's own, package.module.function, registered with `vaelab.metrics.metric`.
        seed: of all random numbers; by default the run's, which reproduces `test/elbo` of metrics.json.
        trust: packages of one's own whose classes the config may name, files of one's own that may be run.

    Raises:
        RunError: there is no run or no checkpoint yet, or a metric cannot be computed.
        DataError: the data are missing or damaged, or the split is empty.
        ConfigError: the run's config has mistakes.
    """
    wanted = Wanted(samples, generation, features, weights, fit_gaussian, factors, metrics)
    evaluation = evaluation_of(run, wanted, split=split, seed=seed, trust=trust)
    return {name: value.value for name, value in evaluation.found.metrics.items()}


def evaluation_of(
    run: "Run | str | Path",
    wanted: Wanted,
    *,
    split: str,
    seed: int | None,
    trust: Sequence[str],
    track: Track = lambda steps, description: steps,
) -> Evaluated:
    """`evaluate`, with units and reasons; `track` may show the progress of each loop."""
    _require_counts(wanted)
    own = [_own(name, trust) for name in wanted.metrics]
    trained = opened(run, trust=trust)
    data = trained.experiment.data
    if wanted.samples is not None and (reason := likelihood.why_no_densities(trained.model)):
        raise RunError(f"samples={wanted.samples}: there is no importance-weighted log-likelihood: {reason}")
    chosen = split_images(data, split)
    if wanted.samples is not None and (reason := likelihood.why_no_likelihood(trained.model, chosen.chunks())):
        raise RunError(f"samples={wanted.samples}: {reason}")
    subject = subject_of(trained, split=split, seed=seed, trust=trust, samples=wanted.samples, track=track)
    if wanted.factors and (reason := subject.why_not("factors")):
        raise RunError(f"--factors: {reason}; data=sprites has factors")
    compared = wanted.comparison
    if compared is not None and (reason := reason_against(compared, replace(subject, fetch=True))):
        raise RunError(f"--generation {wanted.generation}: {reason}")
    found = Evaluation(
        split=split,
        images=len(chosen),
        binarize=data.binarize,
        normalized_over=trained.model.likelihood.normalized_over,
        conditional=trained.model.classes is not None,
        step=trained.step,
        seed=subject.seed,
        metrics={},
    )
    evaluation = Evaluated(found, trained.folder.path / "evaluation" / found.file)
    with threads(trained.experiment.suitable_threads()):
        _evaluate(subject, _asked(wanted, trained, own), evaluation, trained.folder)
        if wanted.factors and not subject.why_not("vectors"):
            from vaelab.looking.factors import draw

            evaluation.figures.extend(draw(subject, evaluation.path, trained.experiment.name))
    return evaluation


def subject_of(
    trained: Trained,
    *,
    split: str,
    seed: int | None,
    trust: Sequence[str] = (),
    samples: int | None = None,
    track: Track = lambda steps, description: steps,
) -> Subject:
    """Return a run's model, on the accelerator of its config, and its data, for metrics."""
    device = _device(trained.folder.config.trainer.get("accelerator"))
    return Subject(
        model=trained.model.to(device),
        objective=trained.experiment.objective,
        data=trained.experiment.data,
        split=split,
        of_split=partial(split_images, trained.experiment.data),
        seed=trained.experiment.seed if seed is None else seed,
        likelihood_samples=samples,
        trust=trust,
        track=track,
    )


def generation_name(name: str, features: str) -> str:
    """Return the name of a metric of samples in a feature space.

    >>> generation_name("reconstruction_kid", "classifier")
    'reconstruction_kernel_distance_classifier'
    """
    space = Path(features.partition(":")[0]).stem
    return f"{name.replace('kid', 'kernel_distance')}_{space}"


def _asked(wanted: Wanted, trained: Trained, own: Sequence[Metric]) -> list[tuple[Metric, Naming]]:
    """List the metrics to compute, each with a function that names its numbers."""
    found: list[tuple[Metric, Naming]] = []
    for key, metric in (trained.experiment.metrics or {}).items():
        if metric is not None:
            found.append((metric, f"{key}/{{}}".format))
    if wanted.factors:
        found.append((factors_metric, str))
    if wanted.comparison is not None:
        found.append((wanted.comparison, partial(generation_name, features=wanted.features)))
    # Metrics that may be refused come first, before minutes are spent on the others.
    return [*((metric, str) for metric in own), *found[::-1], *((metric, str) for metric in STANDARD)]


def _evaluate(
    subject: Subject, metrics: Sequence[tuple[Metric, Naming]], evaluation: Evaluated, folder: RunFolder
) -> None:
    computed: dict[str, Value] = {}
    try:
        for metric, named in metrics:
            for name, found in measured(metric, subject):
                of_split = f"{PREFIX[subject.split]}/{named(name)}"
                if isinstance(found, Value):
                    computed[of_split] = found
                else:
                    evaluation.omitted[of_split] = found
            evaluation.found = replace(evaluation.found, metrics=computed)
            folder.keep_evaluation(evaluation.found)  # after each metric, so that an interrupt loses nothing
    except KeyboardInterrupt as stopped:
        stopped.args = (str(evaluation.path),)
        raise


def _require_counts(wanted: Wanted) -> None:
    """Refuse numbers of samples that are too small, before anything is read."""
    if wanted.samples is not None and wanted.samples < 1:
        raise RunError(f"samples={wanted.samples}: the importance-weighted log-likelihood needs one sample or more")
    if wanted.generation is not None and wanted.generation < 2:
        raise RunError(f"--generation {wanted.generation}: give a number of images to sample, such as 10000")


def _own(name: str, trust: Sequence[str]) -> Metric:
    """Import a metric of the user's own by its name, package.module.function.

    Raises:
        ConfigError: its package is not trusted, or it is not a metric.
    """
    try:
        found: Metric = check_part("--metric", {"_target_": name}, trust=trust)
        declaration(found)
    except ConfigError as error:
        raise ConfigError([text.replace("--metric._target_=", "--metric ") for text in error.mistakes]) from error
    except TypeError as error:
        raise RunError(f"--metric {name}: {error}") from error
    return found


def _device(accelerator: str | None) -> torch.device:
    """Return the machine's accelerator, if there is one and the run's config allows it, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True) if accelerator != "cpu" else None
    return found or torch.device("cpu")
