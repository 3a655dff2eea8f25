"""The subject of metrics: a trained model and the images of a split."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.data import Batch, Batches, ImageData, Images, Splits, rows_at_once
from vaelab.errors import DataError, RunError, did_you_mean
from vaelab.losses import Objective
from vaelab.metrics import likelihood
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.latents import fitted_gaussian
from vaelab.seeding import derive_seed, seed_noise

Track = Callable[[Sequence[Any], str], Iterable[Any]]

MOST = 10_000  # images that are looked at where the cost grows faster than their number


def split_images(data: ImageData, split: str) -> Images:
    """Return the images of a split as training sees them, with dynamic binarization drawn once.

    Raises:
        DataError: there is no such split, or nothing in it.
    """
    if split not in Splits._fields:
        raise DataError(f"--split {split}: there is no such split{did_you_mean(split, Splits._fields)}")
    images: Images = getattr(data.splits, split)
    if not len(images):
        raise DataError(f"--split {split}: this run's data have no {split} images")
    if split == "train" and data.binarize == "dynamic":
        return images.binarized(derive_seed(data.seed, "binarize train"))
    return images


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model and the images that it is evaluated on.

    Args:
        model: on the device it is judged on, in evaluation mode.
        objective: that it was trained with.
        data: that it was trained on.
        split: test, validation or train.
        of_split: the images of a split as evaluations see them.
        seed: of all that is drawn: noise is f(seed, purpose, number).
        likelihood_samples: of z an image, for an importance-weighted log-likelihood; None leaves it out.
        trust: packages and files of one's own whose code may run.
        fetch: whether the weights of a network of torchvision may be downloaded.
        track: shows how far a loop is.
    """

    model: Autoencoder
    objective: Objective
    data: ImageData
    split: str
    of_split: Callable[[str], Images]
    seed: int
    likelihood_samples: int | None = None
    trust: Sequence[str] = ()
    fetch: bool = False
    track: Track = lambda steps, description: steps

    @classmethod
    def held_out(cls, model: Autoencoder, objective: Objective, data: ImageData, *, seed: int) -> "Subject":
        """A model and its validation images; where there are none, its test images, and else its training images."""
        split = next(name for name in ("validation", "test", "train") if len(getattr(data.splits, name)))
        of_split = partial(split_images, data)
        return cls(model=model, objective=objective, data=data, split=split, of_split=of_split, seed=seed)

    @cached_property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @cached_property
    def images(self) -> Images:
        """All images of the split."""
        return self.of_split(self.split).to(self.device)

    @cached_property
    def training_images(self) -> Images:
        """All images of the training split."""
        return self.of_split("train").to(self.device)

    def why_not(self, need: str) -> str | None:
        """Return why the subject lacks what a metric needs; None where it does not.

        "images" are events (C, H, W); "labels" and "factors" are known of the data; "densities" q(z|x) and p(z) exist;
        "vectors" are codes of real numbers.
        """
        if need == "images":
            return None if len(self.data.shape) == 3 else f"the data are no images, but {tuple(self.data.shape)}"
        if need == "labels":
            labels = self.some(self.data.splits.train, "probe", MOST).labels
            return None if len(torch.unique(labels)) > 1 else "the data have no labels"
        if need == "factors":
            return None if len(self.data.factors) > 1 else "the data know no factors of variation"
        if need == "densities":
            return likelihood.why_no_densities(self.model)
        if need == "vectors":
            return "z is codes, not numbers" if self.model.space == "codes" else None
        raise ValueError(f"unknown need of a metric: {need!r}")

    def some(self, images: Images, purpose: str, most: int) -> Images:
        """The images, or `most` of them drawn at random where there are more."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, purpose))
        chosen = torch.randperm(len(images), generator=generator)[:most].sort().values
        return images.take(chosen.to(images.store.device))

    def chosen(self, purpose: str, most: int | None = None) -> Images:
        """`some` of the split, by default 10,000."""
        return self.some(self.images, purpose, MOST if most is None else most)

    def batches(self, images: Images, description: str) -> Iterable[Batch]:
        """Images in batches, in their order."""
        batches = Batches(images, batch_size=rows_at_once(images.shape), device=self.device)
        progress = iter(self.track(range(len(batches)), description))
        return (batch for batch, _ in zip(batches, progress, strict=True))

    def encode(self, batch: Batch) -> Distribution:
        """q(z|x), or of a conditional model q(z|x, y), (B,)."""
        return self.model.encode(batch.images, batch.labels)

    def reconstruct(self, batch: Batch) -> Tensor:
        """The mean of p(x|z) at the mean of q(z|x), (B, *event)."""
        return self.model.reconstruct(batch.images, batch.labels)

    @torch.no_grad()
    def codes(self, images: Images, description: str) -> Tensor:
        """Means of q(z|x), (N, Z), on the CPU."""
        batches = self.batches(images, description)
        return torch.cat([self.encode(batch).mean.flatten(1).cpu() for batch in batches])

    @torch.no_grad()
    def samples(self, number: int, *, fit_gaussian: bool = False) -> Iterator[Tensor]:
        """New images, (B, *event) at a time: the means of p(x|z) at z ~ p(z).

        Args:
            number: of images.
            fit_gaussian: draw z from a Gaussian fitted to codes z ~ q(z|x) of up to 10,000 training images.

        Raises:
            RunError: there is no prior and none is fitted.
        """
        prior = None
        if fit_gaussian:
            train = self.some(self.training_images, "gaussian", MOST)
            seed_noise(self.device, derive_seed(self.seed, "gaussian"))
            drawn = [self.encode(batch).sample() for batch in self.batches(train, "training codes")]
            prior = fitted_gaussian(torch.cat(drawn))
        elif self.model.prior is None:
            raise RunError(
                "this model has no prior to sample from: --fit-gaussian draws z from a Gaussian that is fitted to the "
                "codes of training images"
            )
        most = rows_at_once(tuple(self.data.shape))
        sizes = [min(most, number - start) for start in range(0, number, most)]
        for batch, size in enumerate(self.track(sizes, "samples")):
            seed_noise(self.device, derive_seed(self.seed, "samples", batch))
            yield self.model.sample(size, prior=prior)
