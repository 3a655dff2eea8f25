"""Draw what a run has learned: the commands `reconstruct`, `sample`, `interpolate`, `traverse` and `manifold`.

Each function takes a run, its folder or a checkpoint, writes files, and returns their paths with notes for the user.
`output` lists files to write, whose suffixes select the format; by default they go to the run's figures/ under the
name of the function. Random numbers are f(seed), by default the run's.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from vaelab import figures
from vaelab.errors import DataError, RunError
from vaelab.looking.chosen import choose, label_number, labels_for, numbered, require_labels
from vaelab.looking.codes import codes_of, information, require_real_vectors, scale_of
from vaelab.looking.load import Trained, opened
from vaelab.looking.outputs import Result, Writers, save_pairs, seeded, targets_of, write
from vaelab.metrics.subject import split_images
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.latents import changing, fitted_gaussian, inverse_cdf
from vaelab.models.priors import CodeTransformer
from vaelab.runs.locate import prior_of

if TYPE_CHECKING:
    from vaelab.runs.run import Run


def reconstruct(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    images: str | None = None,
    label: int | str | None = None,
    invert: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Draw images over their reconstructions (.png); rows of a table also as one, in its own units (.csv).

    Args:
        run: the run, its folder or a checkpoint.
        own: files or folders of images of one's own, instead of those of a split.
        split: train, validation or test.
        images: numbers of images, such as 0,5,7, or how many; by default 10 of the split, or all one's own.
        label: given to a conditional model with every image; by default the image's own.
        invert: exchange light and dark of the user's own images.
        stochastic: decode a sample of q(z|x), not its mean.
        seed: of that sample.
        output: files to write: .png.
        force: replace files.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: the run cannot be used in this way, or a file exists already.
        DataError: the images cannot be read.
    """
    trained = opened(run, trust=trust)
    form = trained.experiment.data.form
    targets = targets_of("reconstruct", run, [".png", ".csv"] if form.columns else [".png"], output, force)
    chosen = choose(trained.experiment.data, own, split, images, invert, 10)
    model, names = trained.model, trained.experiment.data.names
    told = labels_for(model, len(chosen.rows), chosen.labels, label, names)
    with seeded(trained, seed), torch.no_grad():
        reconstructed = model.reconstruct(chosen.images, told, stochastic=stochastic)
    view = figures.View.of(form)
    error = mse_loss(reconstructed, chosen.images).item()
    count = f"this {form.noun[:-1]}" if len(chosen.rows) == 1 else f"these {len(chosen.rows)} {form.noun}"
    of = "pixel" if form.is_image else "value"
    notes = [*chosen.notes, f"mean squared error of {count}: {error:.5f} per {of}"]
    if (
        own
        and not invert
        and trained.experiment.data.form.values == "levels"
        and _better_inverted(model, chosen.images, told)
    ):
        notes.append("they would be reconstructed better with light and dark exchanged: --invert")
    picture = figures.reconstructions(view(chosen.images), view(reconstructed))
    rows = ["original", "reconstructed"] * -(-len(chosen.images) // 10)
    drawn = ", z sampled" if stochastic else ""
    title = f"{trained.experiment.name}: {chosen.what} and their reconstructions{drawn}"
    assert form.scaling is not None
    values = form.scaling.undo(torch.stack([chosen.images, reconstructed], 1).double()).tolist()  # (N, 2, D) of a table
    writers: Writers = {
        ".png": lambda path: figures.save(picture, path, title=title, rows=rows),
        ".csv": lambda path: save_pairs(path, form.columns, chosen.names, values),
    }
    return write(targets, writers, notes)


def sample(
    run: "Run | str | Path",
    *,
    count: int = 64,
    labels: Sequence[int | str] | None = None,
    fit_gaussian: bool = False,
    prior: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Draw a grid of `count` new images: means of p(x|z) or, `stochastic`, samples, at z from the prior.

    A conditional model is given `labels` in turn, by default all of them, with a column for each. With `fit_gaussian` z
    is drawn from a Gaussian with full covariance fitted to the codes of the training images, which also works for a
    plain autoencoder, which has no prior. With `prior` z is drawn from a prior of that name that
    `vaelab fit` has fitted; a transformer over codes samples at `temperature` from the `top_k` most likely codes.
    """
    if prior is not None:
        run = prior_of(run, prior)
    targets = targets_of("sample", run, [".png"], output, force)
    trained = opened(run, trust=trust)
    _choose_codes_by(trained.model, temperature, top_k)
    model, name = trained.model, trained.experiment.name
    if model.prior is None and not fit_gaussian:
        raise RunError(
            f"{trained.folder.path} is a model without a prior: training does not constrain where in the latent space "
            "codes lie, so a random point there decodes to no image. model=vae has a prior; --fit-gaussian samples "
            "from a Gaussian fitted to the codes of training images, and `vaelab fit` fits better priors, for --prior"
        )
    names = trained.experiment.data.names
    numbers = list(range(model.sampled_classes or 0))
    if labels is not None:
        numbers = [label_number(label, names) for label in labels] if numbers else [0]
        require_labels(model.sampled_classes, numbers)
    told = torch.tensor(numbers)[torch.arange(count) % len(numbers)] if numbers else None
    if fit_gaussian:
        require_real_vectors(model)
    source, fitted = "samples from the prior", None
    with seeded(trained, seed):
        if fit_gaussian:
            train = split_images(trained.experiment.data, "train")
            fitted = fitted_gaussian(codes_of(model, train, train.labels, stochastic=True))
            source = f"samples from a Gaussian fitted to the codes of {len(train)} training images"
        try:
            images = model.sample(count, labels=told, prior=fitted, stochastic=stochastic)
        except NotImplementedError:
            raise RunError("this model's likelihood p(x|z) cannot be sampled: leave out --stochastic") from None
    title = f"{name}: {source}" + (", pixels sampled" if stochastic else "")
    columns = min(count, len(numbers)) if len(numbers) > 1 else None
    if columns is None and numbers:
        title += f", label {names[numbers[0]]}"
    picture = figures.samples(figures.View.of(trained.experiment.data.form)(images), columns)
    of_columns = {"columns": [names[label] for label in numbers[:columns]], "corner": "label"} if columns else {}
    return write(targets, {".png": lambda path: figures.save(picture, path, title=title, **of_columns)}, [])


def interpolate(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    images: str | None = None,
    steps: int = 11,
    spherical: bool = False,
    label: int | str | None = None,
    invert: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Draw the way from each chosen image to the next, in `steps` on the line or the arc between their codes.

    For a conditional model they need to have the same label, or `label` sets one; by default they are images of the
    split with the label of its first.

    Further arguments as in `reconstruct`; `output` may be a .gif as well.
    """
    targets = targets_of("interpolate", run, [".png", ".gif"], output, force, default=[".png"])
    trained = opened(run, trust=trust)
    model = trained.model
    default = 6 if own or label is not None or model.classes is None else _of_one_label(trained, split, 6)
    chosen = choose(trained.experiment.data, own, split, images, invert, default)
    if len(chosen.rows) < 2:
        raise RunError(
            f"an interpolation needs at least 2 {trained.experiment.data.form.noun}, such as --images 0,5; there is 1"
        )
    first, last = chosen.images[:-1], chosen.images[1:]
    told = labels_for(model, len(chosen.images), chosen.labels, label, trained.experiment.data.names)
    if (told != told[0]).any():
        raise RunError(
            "the images have different labels, and there is nothing between two labels: choose images of one label, "
            "or set one for all with --label 3"
        )
    if model.space != "the unit sphere":
        require_real_vectors(model)
    with seeded(trained, seed):
        path = model.interpolate(first, last, steps, told[:-1], spherical=spherical, stochastic=stochastic)
    view = figures.View.of(trained.experiment.data.form)
    spherical = spherical or model.space == "the unit sphere"
    kind = "spherical" if spherical else "linear"
    title = f"{trained.experiment.name}: {kind} interpolation between the codes of {chosen.what}"
    times = [f"{t:.2g}" for t in torch.linspace(0, 1, steps).tolist()]
    labels = {
        "title": title,
        "rows": [f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in zip(chosen.names, chosen.names[1:], strict=False)],
        "columns": ["image", *times, "image"],
        "corner": "t",
    }
    there_and_back = [*range(steps), *range(steps - 2, 0, -1)]
    writers: Writers = {
        ".png": lambda file: figures.save(figures.interpolations(view(first), view(path), view(last)), file, **labels),
        ".gif": lambda file: figures.animate(
            [figures.samples(view(path[t])) for t in there_and_back],
            file,
            titles=[f"{trained.experiment.name}: {kind}, t = {float(times[t]):.2f}" for t in there_and_back],
        ),
    }
    return write(targets, writers, chosen.notes)


def traverse(
    run: "Run | str | Path",
    *,
    split: str = "test",
    image: int | None = None,
    label: int | str | None = None,
    dimensions: int = 16,
    reach: float = 3.0,
    steps: int = 11,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Vary each latent dimension over its range while the others are fixed.

    Dimensions are sorted by their KL, or by the variance of their codes, over the images of `split`, if these can be
    read. The range is
    `reach` standard deviations on both sides of the mean, of the prior or, without one, of the codes.

    The others are fixed at the mean or, if given, at the code of image number `image` of the split. The picture has a
    column for each of the `steps` and a row for each of at most `dimensions`; the .gif goes there and back. Dimensions
    that the decoder ignores, the upper layers of a hierarchy, are left out. A conditional model is given `label`, or
    else that of the image, or 0.

    Further arguments as in `reconstruct`.
    """
    if not (0 < reach < math.inf):
        raise RunError(f"--reach {reach:g}: give a number of standard deviations above 0, such as 3")
    targets = targets_of("traverse", run, [".png", ".gif"], output, force)
    trained = opened(run, trust=trust)
    model, name = trained.model, trained.experiment.name
    require_real_vectors(model)
    try:
        found = split_images(trained.experiment.data, split)
    except DataError:
        if image is not None or model.prior is None:
            raise
        found = None
    number, own = None, torch.zeros(1, dtype=torch.int64)
    if image is not None and found is not None:
        (number,) = numbered(f"{image},", f"{split} images", len(found), option="--image")
        own = found.labels[[number]]
    told = labels_for(model, 1, own, label, trained.experiment.data.names)
    with seeded(trained, seed):
        if found is not None:
            codes = codes_of(model, found, found.labels, stochastic=stochastic)
            weights, sorted_by, unit = information(model, found, found.labels, codes)
        else:
            assert model.prior is not None
            codes = model.prior().sample(torch.Size([1000]))
            weights, sorted_by, unit = torch.zeros(model.posterior.latent_dim), "", ""
        centre, spread, scale = scale_of(model, codes)
        offsets = torch.linspace(-reach, reach, steps)
        held = centre if number is None else codes[number]
        rows = model.traverse(held, centre[:, None] + spread[:, None] * offsets, told)  # (Z, steps, C, H, W)
    order = weights.argsort(descending=True, stable=True)
    order = order[changing(rows)[order]]
    notes = []
    if len(order) < len(weights):
        hidden = len(weights) - len(order)
        notes.append(
            f"{hidden} dimensions are left out, since the decoder ignores them (the upper layers of a hierarchy)"
        )
    order = order[:dimensions]
    pictures = figures.View.of(trained.experiment.data.form)(rows[order])
    shown = f"{len(order)} of {len(weights)} dimensions" if len(order) < len(weights) else "each dimension"
    others = "at the mean" if image is None else f"as in {split} image {image}"
    labels = {
        "title": f"{name}: {shown} of z varied, the others {others}" + _label_of(trained, told),
        "rows": [f"z{j}   {sorted_by} {weights[j]:.2f}{unit}" if found else f"z{j}" for j in order.tolist()],
        "columns": [f"{offset:+z.1f}" for offset in offsets.tolist()],
        "corner": scale,
    }
    there_and_back = [*range(steps), *range(steps - 2, 0, -1)]
    writers: Writers = {
        ".png": lambda path: figures.save(figures.traversals(pictures), path, **labels),
        ".gif": lambda path: figures.animate(
            [figures.samples(pictures[:, k]) for k in there_and_back],
            path,
            titles=[f"{name}: {scale} = {offsets[k]:+z.2f}" for k in there_and_back],
        ),
    }
    if found is None:
        notes.append("the data cannot be read: dimensions are in the order of their numbers")
    elif sorted_by != "KL":
        notes.append("this model has no per-dimension KL: dimensions are sorted by the variance of their codes")
    return write(targets, writers, notes)


def manifold(
    run: "Run | str | Path",
    *,
    label: int | str | None = None,
    steps: int = 20,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Draw the latent plane of a model with two dimensions: `steps` x `steps` images.

    They are at equal steps of the prior's cumulative probability in each dimension or, without one, at quantiles of the
    codes of the training images. A conditional model is given `label`, or else 0. `output`, `force`, `trust` as in
    `reconstruct`.

    Raises:
        RunError: the model has another number of latent dimensions.
    """
    targets = targets_of("manifold", run, [".png"], output, force)
    trained = opened(run, trust=trust)
    model, name, size = trained.model, trained.experiment.name, trained.model.posterior.latent_dim
    require_real_vectors(model)
    if size != 2:
        size_of = f"latent_dim={size}, not 2" if size == trained.experiment.latent_dim else f"{size} latent dimensions"
        raise RunError(
            f"manifold draws a plane, and {trained.folder.path} has {size_of}: "
            "`vaelab traverse` varies each dimension by itself, and `vaelab embed` projects the codes to 2"
        )
    told = labels_for(model, 1, torch.zeros(1, dtype=torch.int64), label, trained.experiment.data.names)
    probabilities = (torch.arange(steps) + 0.5) / steps
    lines = inverse_cdf(model.prior(), probabilities) if model.prior is not None else None
    codes = None
    spaced = "equal steps of the prior's cumulative probability"
    if lines is None:
        train = split_images(trained.experiment.data, "train")
        codes = codes_of(model, train, train.labels)
        lines = codes.quantile(probabilities, dim=0)
        spaced = "quantiles of the training images' codes"
    labels = {
        "title": f"{name}: the latent plane, in {spaced}" + _label_of(trained, told),
        "rows": [f"{value:.2f}" for value in lines[:, 1].flip(0).tolist()],
        "columns": [f"{value:.2f}" for value in lines[:, 0].tolist()],
        "corner": "z1 \\ z0",
    }
    view = figures.View.of(trained.experiment.data.form)
    picture = figures.manifold(view(model.manifold(steps, told, codes=codes)))
    return write(targets, {".png": lambda path: figures.save(picture, path, **labels)}, [])


def _choose_codes_by(model: Autoencoder, temperature: float | None, top_k: int | None) -> None:
    """Have a transformer over codes draw them so."""
    if temperature is None and top_k is None:
        return
    if not isinstance(model.prior, CodeTransformer):
        raise RunError("--temperature and --top-k are of a transformer over codes: `vaelab fit RUN prior=transformer`")
    if temperature is not None and not 0 < temperature < math.inf:
        raise RunError(f"--temperature {temperature:g}: give a number above 0, such as 0.8")
    model.prior.temperature = model.prior.temperature if temperature is None else temperature
    model.prior.top_k = model.prior.top_k if top_k is None else top_k


def _of_one_label(trained: Trained, split: str, most: int) -> str:
    """Return numbers of images of a split with the label of its first, as `numbered` parses them."""
    labels = split_images(trained.experiment.data, split).labels
    alike = (labels == labels[0]).nonzero().flatten()[:most]
    return ",".join(map(str, alike.tolist())) + ","


def _label_of(trained: Trained, told: Tensor) -> str:
    """Return the label of a conditional model for a title."""
    return "" if trained.model.classes is None else f", label {trained.experiment.data.names[int(told)]}"


def _better_inverted(model: Autoencoder, images: Tensor, labels: Tensor) -> bool:
    """Whether 1 - x would be reconstructed with less than half the error."""
    with torch.no_grad():
        errors = [mse_loss(model.reconstruct(x, labels), x).item() for x in (images, 1 - images)]
    return errors[1] < errors[0] / 2
