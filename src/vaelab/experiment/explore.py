"""Looking at what a run has learned: the pictures and files of the commands `reconstruct`, `sample`, and so on.

Each function takes a run, its folder or a checkpoint, writes files, and returns where they are, with notes on what a
reader should know of them. `output` are files to write, whose suffix says what they hold; without it they go to the
run's figures/ under the name of the function. What is drawn at random is f(seed), by default the run's.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from vaelab import figures
from vaelab.autoencoder import Autoencoder
from vaelab.data import ImageData, Images, Splits
from vaelab.errors import DataError, RunError, did_you_mean
from vaelab.experiment.load import Trained, folder_of, opened
from vaelab.experiment.own_images import read_images
from vaelab.files import replacing
from vaelab.latents import fitted_gaussian, inverse_cdf
from vaelab.objectives import kl_per_dimension
from vaelab.seeding import derive_seed

if TYPE_CHECKING:
    from vaelab.experiment.run import Run

CHUNK = 1000  # images that are encoded at once

Writers = Mapping[str, Callable[[Path], object]]


class Result(NamedTuple):
    """The files written, and what is to be said of them."""

    paths: list[Path]
    notes: list[str]


class Chosen(NamedTuple):
    """Images (N, C, H, W) in [0, 1], a name each, labels (N,) if known, what they are, and what was done to them."""

    images: Tensor
    names: list[str]
    labels: Tensor | None
    what: str
    notes: list[str]


def reconstruct(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    images: str | None = None,
    invert: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Images over their reconstructions.

    Args:
        run: the run, its folder or a checkpoint.
        own: files or folders of images of one's own, instead of those of a split.
        split: train, validation or test.
        images: numbers of images, such as 0,5,7, or how many; by default 10 of the split, or all one's own.
        invert: own images are dark on light, the model's light on dark, or the other way round.
        stochastic: decode a sample of q(z|x), not its mean.
        seed: of that sample.
        output: files to write: .png.
        force: replace files.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: the run cannot be used in this way, or a file is in the way.
        DataError: the images cannot be had.
    """
    targets = _targets("reconstruct", run, [".png"], output, force)
    trained = opened(run, trust=trust)
    chosen = _choose(trained.experiment.data, own, split, images, invert, "10")
    with _seeded(trained, seed), torch.no_grad():
        reconstructed = trained.model.reconstruct(chosen.images, stochastic=stochastic)
    error = mse_loss(reconstructed, chosen.images).item()
    notes = [*chosen.notes, f"mean squared error {error:.5f} a pixel"]
    if own and not invert and _better_inverted(trained.model, chosen.images):
        notes.append("they would be reconstructed better with light and dark exchanged: --invert does so")
    picture = figures.reconstructions(chosen.images, reconstructed)
    rows = ["original", "reconstructed"] * -(-len(chosen.images) // 10)
    title = f"{trained.experiment.name}: {chosen.what} and their reconstructions" + ", z sampled" * stochastic
    return _write(targets, {".png": lambda path: figures.save(picture, path, title=title, rows=rows)}, notes)


def sample(
    run: "Run | str | Path",
    *,
    count: int = 64,
    fit_gaussian: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """A grid of `count` new images: z from the prior, the means of p(x|z) or, `stochastic`, samples of it.

    With `fit_gaussian` z is drawn from a Gaussian with full covariance that is fitted to the codes of the training
    images: what a plain autoencoder, which has no prior, can be sampled from.
    """
    targets = _targets("sample", run, [".png"], output, force)
    trained = opened(run, trust=trust)
    model, name = trained.model, trained.experiment.name
    if model.prior is None and not fit_gaussian:
        raise RunError(
            f"{trained.folder.path} is a model without a prior: training asked nothing of where in the latent space "
            "its codes lie, so most points there are the code of no image, and a random one decodes to no image "
            "either. model=vae trains codes to be like a prior; --fit-gaussian samples from a Gaussian that is fitted "
            "to the codes of the training images"
        )
    source, prior = "samples from the prior", None
    with _seeded(trained, seed):
        if fit_gaussian:
            train = _split(trained.experiment.data, "train")
            prior = fitted_gaussian(_codes(model, _pixels(train), stochastic=True))
            source = f"samples from a Gaussian fitted to the codes of {len(train)} training images"
        images = model.sample(count, prior=prior, stochastic=stochastic)
    title = f"{name}: {source}" + ", pixels drawn" * stochastic
    return _write(targets, {".png": lambda path: figures.save(figures.samples(images), path, title=title)}, [])


def interpolate(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    images: str | None = None,
    steps: int = 11,
    spherical: bool = False,
    invert: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """From each of the chosen images to the next, in `steps` on the line or the arc between their codes.

    Further arguments as in `reconstruct`; `output` may be a .gif as well.
    """
    targets = _targets("interpolate", run, [".png", ".gif"], output, force, default=[".png"])
    trained = opened(run, trust=trust)
    chosen = _choose(trained.experiment.data, own, split, images, invert, "6")
    if len(chosen.images) < 2:
        raise RunError("an interpolation needs at least 2 images, such as --images 0,5")
    first, last = chosen.images[:-1], chosen.images[1:]
    with _seeded(trained, seed):
        path = trained.model.interpolate(first, last, steps, spherical=spherical, stochastic=stochastic)
    kind = "spherical" if spherical else "linear"
    title = f"{trained.experiment.name}: {kind} interpolation of codes, {chosen.what}"
    times = [f"{t:.2g}" for t in torch.linspace(0, 1, steps).tolist()]
    labels = {
        "title": title,
        "rows": [f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in zip(chosen.names, chosen.names[1:], strict=False)],
        "columns": ["image", *times, "image"],
        "corner": "t",
    }
    there_and_back = [*range(steps), *range(steps - 2, 0, -1)]
    writers: Writers = {
        ".png": lambda file: figures.save(figures.interpolations(first, path, last), file, **labels),
        ".gif": lambda file: figures.animate(
            [figures.samples(path[t]) for t in there_and_back],
            file,
            titles=[f"{trained.experiment.name}: {kind}, t = {float(times[t]):.2f}" for t in there_and_back],
        ),
    }
    return _write(targets, writers, chosen.notes)


def traverse(
    run: "Run | str | Path",
    *,
    split: str = "test",
    image: int | None = None,
    dimensions: int = 16,
    reach: float = 3.0,
    steps: int = 11,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """Each latent dimension over its range, the others held; first those that say most about an image.

    The dimensions come in the order of their KL, or of the variance of their codes, over the images of `split`. The
    range is `reach` standard deviations on both sides of the mean, of the prior or, where there is none, of the codes.

    What is held is the mean or, if given, the code of image number `image` of the split. The picture has a column for
    each of the `steps` and a row for each of at most so many `dimensions`; the .gif goes there and back.

    Further arguments as in `reconstruct`.
    """
    targets = _targets("traverse", run, [".png", ".gif"], output, force)
    trained = opened(run, trust=trust)
    model, name = trained.model, trained.experiment.name
    pixels = _pixels(_split(trained.experiment.data, split))
    with _seeded(trained, seed):
        codes = _codes(model, pixels, stochastic=stochastic)
        centre, spread, scale = _scale(model, codes)
        weights, unit = _information(model, pixels, codes)
        held = centre if image is None else codes[_numbers(f"{image},", f"{split} images", len(codes), "--image")[0]]
    order = weights.argsort(descending=True, stable=True)[:dimensions]
    offsets = torch.linspace(-reach, reach, steps)

    def images(at: Tensor) -> Tensor:
        return model.traverse(held, centre[:, None] + spread[:, None] * at)[order]

    around = "the mean" if image is None else f"{split} image {image}"
    shown = f"{len(order)} of {len(weights)} dimensions" if len(order) < len(weights) else "each dimension"
    labels = {
        "title": f"{name}: {shown} of z varied around {around}",
        "rows": [f"z{j}   {weights[j]:.2f} {unit}" for j in order.tolist()],
        "columns": [f"{offset:+.1f}" for offset in offsets.tolist()],
        "corner": scale,
    }
    frames = torch.linspace(-reach, reach, 2 * steps - 1)
    frames = torch.cat([frames, frames.flip(0)[1:-1]])
    moving = images(frames)
    writers: Writers = {
        ".png": lambda path: figures.save(figures.traversals(images(offsets)), path, **labels),
        ".gif": lambda path: figures.animate(
            [figures.samples(frame) for frame in moving.unbind(1)],
            path,
            titles=[f"{name}: {scale} = {offset:+.2f}" for offset in frames.tolist()],
        ),
    }
    notes = [] if unit == "nats" else ["this model has no KL of each dimension: sorted by the variance of the codes"]
    return _write(targets, writers, notes)


def manifold(
    run: "Run | str | Path",
    *,
    steps: int = 20,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """The plane of a model with two latent dimensions: `steps` x `steps` images.

    They are at equal steps of the prior's cumulative probability in each dimension or, where the prior has none, of
    the codes of the training images. `output`, `force`, `trust` as in `reconstruct`.

    Raises:
        RunError: the model has another number of latent dimensions.
    """
    targets = _targets("manifold", run, [".png"], output, force)
    trained = opened(run, trust=trust)
    model, name, size = trained.model, trained.experiment.name, trained.experiment.latent_dim
    if size != 2:
        raise RunError(
            f"manifold draws a plane, and {trained.folder.path} has latent_dim={size}, not 2: "
            "`vaelab traverse` varies each dimension by itself, and `vaelab embed` brings the codes down to 2"
        )
    probabilities = (torch.arange(steps) + 0.5) / steps
    lines = inverse_cdf(model.prior(), probabilities) if model.prior is not None else None
    codes = None
    spaced = "equal steps of the prior's cumulative probability"
    if lines is None:
        codes = _codes(model, _pixels(_split(trained.experiment.data, "train")))
        lines = codes.quantile(probabilities, dim=0)
        spaced = "quantiles of the training images' codes"
    labels = {
        "title": f"{name}: the latent plane, in {spaced}",
        "rows": [f"{value:.2f}" for value in lines[:, 1].flip(0).tolist()],
        "columns": [f"{value:.2f}" for value in lines[:, 0].tolist()],
        "corner": "z1 \\ z0",
    }
    picture = figures.manifold(model.manifold(steps, codes=codes))
    return _write(targets, {".png": lambda path: figures.save(picture, path, **labels)}, [])


def embed(
    run: "Run | str | Path",
    own: Sequence[Path] = (),
    *,
    split: str = "test",
    images: str | None = None,
    umap: bool = False,
    invert: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    output: Sequence[Path] = (),
    force: bool = False,
    trust: Sequence[str] = (),
) -> Result:
    """The codes of images: a table (.npz, .csv) and a picture of them in two dimensions (.png).

    The .npz holds `z` (N, Z), float32, the means of q(z|x) or, `stochastic`, samples; `names` (N,), which are numbers
    in the split or file names; and `labels` (N,) where there are any. The .csv holds the same in columns. The picture
    shows the first two principal components or, `umap`, a UMAP (McInnes et al. 2018).

    Further arguments as in `reconstruct`; without `images` they are all of the split.
    """
    targets = _targets("embed", run, [".npz", ".csv", ".png"], output, force)
    trained = opened(run, trust=trust)
    chosen = _choose(trained.experiment.data, own, split, images, invert, None)
    with _seeded(trained, seed):
        z = _codes(trained.model, chosen.images, stochastic=stochastic).numpy()
    labels = chosen.labels.numpy() if chosen.labels is not None else None
    picture_seed = trained.experiment.seed if seed is None else seed

    def draw(path: Path) -> None:
        points, axes = _umap(z, picture_seed) if umap else _principal_components(z)
        title = f"{trained.experiment.name}: codes of {len(z)} {chosen.what}"
        figures.scatter(points, labels, path, title=title, axes=axes)

    writers: Writers = {
        ".npz": lambda path: _save_npz(path, z, chosen.names, labels),
        ".csv": lambda path: _save_csv(path, z, chosen.names, labels),
        ".png": draw,
    }
    return _write(targets, writers, chosen.notes)


def _choose(
    data: ImageData, own: Sequence[Path], split: str, images: str | None, invert: bool, default: str | None
) -> Chosen:
    """Some of one's own images, by default all, or of those of a split."""
    if own:
        read = read_images(own, data.shape, invert=invert, binary=data.binarize != "none")
        chosen = Chosen(read.images, read.names, read.labels, "own images", read.notes)
    elif invert:
        raise RunError("--invert is for images of one's own: name their files after the run")
    else:
        found = _split(data, split)
        chosen = Chosen(_pixels(found), [*map(str, range(len(found)))], found.labels, f"{split} images", [])
        images = images or default
    if images is None:
        return chosen
    numbers = _numbers(images, chosen.what, len(chosen.images), "--images")
    labels = chosen.labels[numbers] if chosen.labels is not None else None
    return chosen._replace(images=chosen.images[numbers], names=[chosen.names[n] for n in numbers], labels=labels)


def _split(data: ImageData, split: str) -> Images:
    """The images of a split as training sees them; those that are binarized anew at every use, drawn once."""
    if split not in Splits._fields:
        raise DataError(f"--split {split}: there is no such split{did_you_mean(split, Splits._fields)}")
    images: Images = getattr(data.splits, split)
    if not len(images):
        raise DataError(f"--split {split}: this run's data have no {split} images")
    if split == "train" and data.binarize == "dynamic":
        return images.binarized(derive_seed(data.seed, "binarize train"))
    return images


def _numbers(text: str, what: str, size: int, option: str) -> list[int]:
    """The numbers that "0,5,7" says, or "3" as the first so many."""
    try:
        numbers = [int(word) for word in text.rstrip(",").split(",")]
    except ValueError:
        raise DataError(f"{option} {text}: give numbers such as 0,5,7, or how many, such as 8") from None
    if "," not in text:
        if not 0 < numbers[0] <= size:
            raise DataError(f"{option} {text}: there are {size} {what}")
        return list(range(numbers[0]))
    wrong = [number for number in numbers if not 0 <= number < size]
    if wrong:
        raise DataError(f"{option} {text}: there is no {wrong[0]}; the {what} are numbered 0 to {size - 1}")
    return numbers


def _pixels(images: Images) -> Tensor:
    return images.pixels.float().div(255)


@torch.no_grad()
def _codes(model: Autoencoder, images: Tensor, *, stochastic: bool = False) -> Tensor:
    """Means or samples of q(z|x), (N, Z)."""
    posteriors = map(model.encode, images.split(CHUNK))  # type: ignore[no-untyped-call]
    return torch.cat([q.sample() if stochastic else q.mean for q in posteriors])


@torch.no_grad()
def _information(model: Autoencoder, images: Tensor, codes: Tensor) -> tuple[Tensor, str]:
    """What says how much each dimension tells of an image, (Z,), and its unit: mean KL, or variance of the codes."""
    if model.prior is not None:
        try:
            parts = [kl_per_dimension(model.encode(x), model.prior()).sum(0) for x in images.split(CHUNK)]  # type: ignore[no-untyped-call]
            return torch.stack(parts).sum(0) / len(images), "nats"
        except (ValueError, NotImplementedError):  # not a sum over dimensions, or not in closed form
            pass
    return codes.var(0, correction=0), "variance"


def _scale(model: Autoencoder, codes: Tensor) -> tuple[Tensor, Tensor, str]:
    """Mean and standard deviation of each dimension, (Z,), of the prior or else of codes; what offsets of them are."""
    try:
        if model.prior is None:
            raise NotImplementedError
        prior = model.prior()
        centre, spread = prior.mean, prior.stddev
    except NotImplementedError:
        centre, spread = codes.mean(0), codes.std(0, correction=0)
    standard = bool((centre == 0).all() and (spread == 1).all())
    return centre, spread, "z" if standard else "(z - mean) / std"


def _better_inverted(model: Autoencoder, images: Tensor) -> bool:
    """Whether 1 - x would be reconstructed with less than half the error."""
    with torch.no_grad():
        errors = [mse_loss(model.reconstruct(x), x).item() for x in (images, 1 - images)]
    return errors[1] < errors[0] / 2


def _principal_components(z: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Codes (N, Z) in two dimensions, and what these are: themselves, or the two in which they vary most."""
    if z.shape[1] == 1:
        return np.column_stack([z[:, 0], z[:, 0].argsort().argsort() / len(z)]), ("z0", "share of images below")
    if z.shape[1] == 2:
        return z, ("z0", "z1")
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, svd_solver="full")
    with np.errstate(invalid="ignore"):  # codes that do not vary at all
        points = pca.fit_transform(z)
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    first, second = (f"principal component {n} ({share:.0%} of the variance)" for n, share in enumerate(shares, 1))
    return points, (first, second)


def _umap(z: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    try:
        from umap import UMAP
    except ImportError as error:
        raise RunError('--umap needs the package umap-learn: pip install "vaelab[umap]"') from error
    points = UMAP(n_neighbors=min(15, len(z) - 1), random_state=seed % 2**32, n_jobs=1).fit_transform(z)
    return points, ("UMAP 1", "UMAP 2")


def _save_npz(path: Path, z: np.ndarray, names: Sequence[str], labels: np.ndarray | None) -> None:
    own_labels = {} if labels is None else {"labels": labels}
    with replacing(path) as temporary, temporary.open("wb") as file:  # given a name, numpy would add a suffix to it
        np.savez(file, allow_pickle=False, z=z, names=np.array(names), **own_labels)


def _save_csv(path: Path, z: np.ndarray, names: Sequence[str], labels: np.ndarray | None) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        label = [] if labels is None else ["label"]
        table.writerow(["image", *label, *(f"z{j}" for j in range(z.shape[1]))])
        for number, (name, code) in enumerate(zip(names, z, strict=True)):
            own_label = [] if labels is None else [labels[number]]
            table.writerow([name, *own_label, *(str(value) for value in code)])  # the shortest that reads as the same


@contextmanager
def _seeded(trained: Trained, seed: int | None) -> Iterator[None]:
    """Draw from the seed that the figures of training are drawn from; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(trained.experiment.seed if seed is None else seed, "figures"))
        yield


def _targets(
    verb: str,
    run: "Run | str | Path",
    suffixes: Sequence[str],
    output: Sequence[Path],
    force: bool,
    default: Sequence[str] | None = None,
) -> list[Path]:
    """The files to write, looked at before anything is computed.

    Raises:
        RunError: one has a suffix that says nothing, or is there already.
    """
    folder = folder_of(run)
    targets = [Path(path) for path in output]
    targets = targets or [folder.figures / f"{verb}{suffix}" for suffix in default or suffixes]
    mistakes = []
    for path in targets:
        if path.suffix.lower() not in suffixes:
            mistakes.append(f"--output {path}: {verb} writes {', '.join(suffixes)}, by the name's ending")
        elif path.is_dir():
            mistakes.append(f"--output {path} is a folder: name a file in it")
        elif path.exists() and not force:
            mistakes.append(f"{path} is there already: --force replaces it, --output writes elsewhere")
    if mistakes:
        raise RunError("\n".join(mistakes))
    return targets


def _write(targets: Sequence[Path], writers: Writers, notes: Sequence[str]) -> Result:
    """Write each target by what its suffix asks for, whole or not at all."""
    for path in targets:
        try:
            writers[path.suffix.lower()](path)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    return Result(list(targets), list(notes))
