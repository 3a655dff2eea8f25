"""What every objective is."""

from collections.abc import Mapping
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor

from vaelab.models.autoencoder import Autoencoder

Samples = Annotated[int, Field(gt=0)]
Terms = Mapping[str, Tensor]


@runtime_checkable
class Objective(Protocol):
    """A loss over a model and a batch of images."""

    def __call__(self, model: Autoencoder, x: Tensor, step: float) -> Terms:
        """The loss and its terms, scalars in nats an image."""

    def requires(self, model: Autoencoder) -> None:
        """Raise ValueError where `model` lacks what this objective needs."""


@runtime_checkable
class KnowsDataset(Protocol):
    """An objective that has to know how many images its batches are drawn from."""

    def drawn_from(self, images: int) -> None:
        """Take note of the dataset's size; training says it before its first step."""
