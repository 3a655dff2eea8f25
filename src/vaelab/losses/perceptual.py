"""A distance of images in the features of a network that was trained to tell what they show."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from vaelab.losses.objective import Term
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.networks.torchvision import TorchvisionFeatures
from vaelab.models.parts import UnsuitableError
from vaelab.models.precision import in_full
from vaelab.models.schedules import Schedule, Weight

TINY = 1e-10


class Perceptual(Term):
    """D sum_l mean_places |f_l(x) - f_l(x')|^2, f_l features of layer l of length 1 at each place, D numbers an image.

    x' is the mean of p(x|z). It is the distance of Zhang et al. (2018, equation 1) with all channels alike; times D,
    so that beside a sum over pixels its weight is what papers have beside a mean (Esser et al. 2021). The network is
    not trained, and no checkpoint holds it.

    Args:
        weight: a number, or a schedule of the optimizer's step.
        network: of torchvision.models, such as vgg16.
        weights: a file of its weights; None for torchvision's own, trained on ImageNet, which are downloaded.
        layers: of the network, by their names; None for those that are known to fit.
    """

    def __init__(
        self,
        *,
        weight: Weight | Schedule = 1.0,
        network: Annotated[str, Field(min_length=1)] = "vgg16",
        weights: Annotated[str, Field(min_length=1)] | None = None,
        layers: Annotated[list[str], Field(min_length=1)] | None = None,
    ) -> None:
        super().__init__(weight=weight)
        self.named = TorchvisionFeatures(network, Path(weights) if weights else None, layers)

    def requires(self, model: Autoencoder) -> None:
        """Refuse images without three channels."""
        if len(model.likelihood.shape) != 3 or model.likelihood.shape[0] != 3:
            raise UnsuitableError(
                f"{self.named.name} sees images of three channels, and these are of shape {model.likelihood.shape}: "
                "data.colour=rgb where they are files, or leave the term out"
            )

    def ready(self, *, fetch: bool) -> None:
        """Look for the weights."""
        self.named.find(fetch=fetch)

    def forward(self, step: Step) -> Tensor:
        """The mean over the batch."""
        return self.distance(step.x, step.p_x.mean).mean()

    def evaluate(self, step: Step) -> Tensor | None:
        """The same; None where the weights are not at hand."""
        return self(step) if self.named.is_there() else None

    def distance(self, x: Tensor, other: Tensor) -> Tensor:
        """Of each image (B, 3, H, W) to the other, (B,)."""
        network = self.named.on(x.device)
        with torch.no_grad():
            wanted = network(x)
        found = network(other)
        distances = []
        for name, feature in wanted.items():
            one, two = (in_full(f) for f in (feature, found[name]))  # (B, C, H, W)
            one, two = (f / (f.square().sum(1, keepdim=True) + TINY).sqrt() for f in (one, two))
            distances.append((one - two).square().sum(1).flatten(1).mean(1))
        return x[0].numel() * torch.stack(distances).sum(0)
