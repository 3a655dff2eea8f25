"""Score single items: their cost under the model, and how unusual they are."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab import figures
from vaelab.data import rows_at_once
from vaelab.errors import DataError, RunError, unwritten
from vaelab.figures.charts import histograms
from vaelab.files import replacing
from vaelab.looking.chosen import Chosen, choose, labels_for
from vaelab.looking.evaluate import subject_of
from vaelab.looking.load import Trained, opened
from vaelab.losses import Step
from vaelab.metrics import likelihood
from vaelab.metrics.items import complexity, item_terms, typicality
from vaelab.metrics.outliers import Detection, detection
from vaelab.metrics.standard import PREFIX
from vaelab.metrics.subject import MOST, Subject, Track
from vaelab.runs.locate import folder_of
from vaelab.runs.surroundings import threads
from vaelab.seeding import derive_seed, seed_noise

if TYPE_CHECKING:
    from vaelab.runs.run import Run

SHOWN = 10  # of the best, and of the worst


class Items(NamedTuple):
    """Scores of items by name, (N,), float64, with the items' names and labels (N,) if any."""

    scores: Mapping[str, Tensor]
    names: Sequence[str]
    labels: Tensor | None
    items: Tensor
    reconstructions: Tensor

    @property
    def first(self) -> str:
        """The score that items are sorted by: -ELBO, or the reconstruction of a model without one."""
        return "negative_elbo" if "negative_elbo" in self.scores else "reconstruction"


class Scored(NamedTuple):
    """Files, notes, and how well each score separates the others from the items."""

    paths: list[Path]
    notes: list[str]
    detection: dict[str, Detection]
    items: Items


def score(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    samples: int | None = None,
    against: Path | None = None,
    label: int | str | None = None,
    invert: bool = False,
    seed: int | None = None,
    output: Path | None = None,
    force: bool = False,
    trust: Sequence[str] = (),
    track: Track = lambda steps, description: steps,
) -> Scored:
    """Score each item of a split, or of the user's own, into score.csv and score.npz; draw the best and the worst.

    Args:
        run: the run, its folder or a checkpoint.
        own: files or folders of items of one's own, instead of those of the split.
        split: train, validation or test.
        samples: of z per item, for its importance-weighted log-likelihood; None leaves it out.
        against: items to be separated from these by the scores: the same split of another run's data, or files.
        label: given to a conditional model with every item; by default the item's own.
        invert: exchange light and dark of one's own images.
        seed: of all random numbers; by default the run's, with which the means over a split equal `evaluate`'s.
        output: the folder to write to; by default the run's evaluation/.
        force: replace files.
        trust: packages of one's own whose classes the config may name.
        track: may show the progress of each loop.

    Raises:
        RunError: the run cannot be used in this way, or a file exists already.
        DataError: the items cannot be read, or do not fit the model.
    """
    folder = output or folder_of(run).path / "evaluation"
    names = ["score.csv", "score.npz", "score.png"]
    names += ["against.csv", "against.npz", "detection.csv", "histogram.png"] if against else []
    _require_free([folder / name for name in names], force)
    trained = opened(run, trust=trust)
    data = trained.experiment.data
    if samples is not None and (reason := likelihood.why_no_densities(trained.model)):
        raise RunError(f"--samples {samples}: there is no importance-weighted log-likelihood: {reason}")
    chosen = choose(data, own, split, None, invert, None)
    others = None if against is None else _others(against, trained, split, invert, trust)
    notes = list(dict.fromkeys([*chosen.notes, *(others.notes if others else [])]))
    subject = subject_of(trained, split=split, seed=seed, trust=trust, samples=samples, track=track)
    with threads(trained.experiment.suitable_threads()):
        usual = None if trained.model.prior is None else _training_mean(subject)
        prefix = "own" if own else PREFIX[split]
        items = _scored(subject, chosen, prefix, label, usual)
        other = None if others is None else _scored(subject, others, "against", label, usual)
    found = {}
    if other is not None:
        found = {
            name: detection(items.scores[name].numpy(), other.scores[name].numpy())
            for name in items.scores
            if name in other.scores
        }
    try:
        paths = _write(folder, trained, items, other, found, chosen.what)
    except OSError as error:
        raise unwritten(folder, error) from error
    return Scored(paths, notes, found, items)


def _others(against: Path, trained: Trained, split: str, invert: bool, trust: Sequence[str]) -> Chosen:
    """Choose the items of another run's data, or of files.

    Raises:
        DataError: they have another shape than the model's.
    """
    data = trained.experiment.data
    if not (against / "config.yaml").is_file():
        return choose(data, [against], split, None, invert, None)
    other = opened(against, trust=trust).experiment.data
    if tuple(other.shape) != tuple(data.shape):
        raise DataError(
            f"--against {against}: its items have the shape {tuple(other.shape)}, this model's {tuple(data.shape)}"
        )
    return choose(other, [], split, None, False, None)


@torch.no_grad()
def _training_mean(subject: Subject) -> Tensor:
    """Return -ELBO of up to 10,000 training items, (M,)."""
    train = subject.some(subject.training_images, "typicality", MOST)
    found = []
    for number, batch in enumerate(subject.batches(train, "training items")):
        seed_noise(subject.device, derive_seed(subject.seed, "typicality", number))
        terms = item_terms(Step(subject.model, batch.images, batch.labels, training=False))
        found.append(terms.get("negative_elbo", terms["reconstruction"]).cpu())
    return torch.cat(found)


@torch.no_grad()
def _scored(subject: Subject, chosen: Chosen, purpose: str, label: int | str | None, training: Tensor | None) -> Items:
    model = subject.model
    told = labels_for(model, len(chosen.images), chosen.labels, label, subject.data.names).cpu()
    parts, again = [], []
    size = rows_at_once(tuple(chosen.images.shape[1:]))
    batches = list(zip(chosen.images.split(size), told.split(size), strict=True))
    for number, (images, labels) in enumerate(subject.track(batches, "items")):
        step = Step(model, images.to(subject.device), labels.to(subject.device), training=False)
        seed_noise(subject.device, derive_seed(subject.seed, purpose, number))
        parts.append({name: term.cpu() for name, term in item_terms(step).items()})
        again.append(model.reconstruct(step.x, step.y).cpu())
    scores = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}
    if subject.likelihood_samples is not None:
        each = (x.to(subject.device) for x in subject.track(list(chosen.images), "log-likelihood"))
        log_p = likelihood.log_likelihoods(
            model, each, subject.likelihood_samples, subject.seed, labels=told.to(subject.device)
        )
        scores[f"nll_{subject.likelihood_samples}"] = -torch.stack(list(log_p))
    first = scores.get("negative_elbo", scores["reconstruction"])
    if training is not None:
        scores["typicality"] = typicality(first, training)
    if subject.data.form.is_image and subject.data.form.values == "levels":
        scores["likelihood_ratio"] = first - complexity(chosen.images)
    return Items(scores, chosen.names, chosen.labels, chosen.images, torch.cat(again))


def _write(
    folder: Path,
    trained: Trained,
    items: Items,
    other: Items | None,
    found: Mapping[str, Detection],
    what: str,
) -> list[Path]:
    name, view = trained.experiment.name, figures.View.of(trained.experiment.data.form)
    paths = [*_tables(folder, "score", items)]
    paths.append(_picture(items, view, folder / "score.png", f"{name}: {what} by {_said(items.first)}"))
    if other is None:
        return paths
    paths += _tables(folder, "against", other)
    paths.append(folder / "detection.csv")
    rows = [(score, *map(repr, values)) for score, values in found.items()]
    _csv(paths[-1], ["score", "auroc", "average_precision", "chance"], rows)
    area = found[items.first].auroc
    values = {what: items.scores[items.first].numpy(), "against": other.scores[items.first].numpy()}
    title, axis = f"{name}: {_said(items.first)} of items, AUROC {area:.3f}", f"{_said(items.first)} in nats"
    paths.append(histograms(values, folder / "histogram.png", title=title, axis=axis))
    return paths


def _tables(folder: Path, name: str, items: Items) -> list[Path]:
    """Write a row per item, as text and as arrays."""
    labels = {} if items.labels is None else {"labels": items.labels.cpu().numpy()}
    arrays = {score: values.numpy() for score, values in items.scores.items()}
    table, archive = folder / f"{name}.csv", folder / f"{name}.npz"
    columns = [*(values.tolist() for values in labels.values()), *(values.tolist() for values in arrays.values())]
    header = ["name", *(["label"] if labels else []), *arrays]
    _csv(table, header, zip(items.names, *columns, strict=True))
    with replacing(archive) as temporary, temporary.open("wb") as file:  # given a name, numpy would add a suffix to it
        np.savez(file, allow_pickle=False, names=np.array(items.names), **labels, **arrays)
    return [table, archive]


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def _picture(items: Items, view: figures.View, path: Path, title: str) -> Path:
    """Draw the best items over their reconstructions, then the worst."""
    order = items.scores[items.first].argsort(stable=True)
    columns = min(SHOWN, len(order))
    chosen = torch.cat([order[:columns], order.flip(0)[:columns]])
    picture = figures.reconstructions(view(items.items[chosen]), view(items.reconstructions[chosen]), columns=columns)
    return figures.save(picture, path, title=title, rows=["best", "reconstructed", "worst", "reconstructed"])


def _said(score: str) -> str:
    return "-ELBO" if score == "negative_elbo" else score.replace("_", " ")


def _require_free(paths: Sequence[Path], force: bool) -> None:
    """Refuse to replace files, before anything is computed.

    Raises:
        RunError: one is there.
    """
    taken = [path for path in paths if path.exists()]
    if taken and not force:
        raise RunError(f"{taken[0]} exists: --force replaces it, --output writes elsewhere")
