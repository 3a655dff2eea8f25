"""Networks of torchvision by their names, for their features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, in [0, 1]
LAYERS: Mapping[str, Sequence[str]] = {
    "alexnet": ("features.1", "features.4", "features.7", "features.9", "features.11"),
    "mobilenet_v2": ("features.1", "features.3", "features.6", "features.13"),
    "resnet18": ("relu", "layer1", "layer2", "layer3"),
    "squeezenet1_1": ("features.1", "features.4", "features.7", "features.12"),
    "vgg16": ("features.3", "features.8", "features.15", "features.22", "features.29"),
}


class TorchvisionFeatures:
    """A network of torchvision.models with its weights, made where it is first used. No part of a model's weights.

    Args:
        name: such as vgg16.
        weights: a file with its weights; None for torchvision's own.
        layers: whose outputs are the features; None for those that are known to fit.

    Raises:
        ValueError: there is no such network, or no layers are known to fit.
    """

    def __init__(self, name: str, weights: Path | None = None, layers: Sequence[str] | None = None) -> None:
        from torchvision import models

        if name not in models.list_models():
            raise ValueError(f"network={name}: torchvision.models has no such network")
        if layers is None and name not in LAYERS:
            raise ValueError(
                f"layers: say which layers of {name}, such as [features.3]; those of {', '.join(LAYERS)} are known"
            )
        self.name, self.weights, self.layers = name, weights, layers or LAYERS[name]
        self._made: nn.Module | None = None

    def is_there(self) -> bool:
        """Whether the weights are at hand, on this machine."""
        return self.file.is_file()

    @property
    def file(self) -> Path:
        """Where the weights are, or come to be."""
        return self.weights or Path(torch.hub.get_dir(), "checkpoints", Path(self._entry.url).name)

    @property
    def _entry(self) -> Any:
        from torchvision import models

        return models.get_model_weights(self.name).DEFAULT

    def find(self, *, fetch: bool) -> None:
        """Download the weights, where they are torchvision's, not there and it may `fetch`; make the network.

        Raises:
            ValueError: they are not there, or of another network, or there are no such layers.
        """
        if not self.file.is_file() and not (fetch and self.weights is None):
            raise ValueError(f"there are no weights of {self.name} in {self.file}")
        self.on(torch.device("cpu"))

    def on(self, device: torch.device) -> nn.Module:
        """The network on a device: images (B, 3, H, W) in [0, 1] -> features (B, C, H, W) of its layers, by name.

        Raises:
            ValueError: as in `find`.
        """
        if device.type == "meta":
            return _Scaled(self._extractor(self._bare("meta"))).to(device)
        if self._made is None:
            network = self._bare("cpu")
            try:
                network.load_state_dict(self._state())
            except Exception as error:  # of urllib, of a damaged file, of another network
                said = " ".join(str(error).split())[:200]
                raise ValueError(f"the weights {self.file} cannot be those of {self.name}: {said}") from error
            self._made = _Scaled(self._extractor(network)).requires_grad_(False).eval()
        self._made = self._made.to(device)
        return self._made

    def _bare(self, device: str) -> nn.Module:
        from torchvision import models

        with torch.device(device), torch.random.fork_rng(devices=[]):
            network: nn.Module = models.get_model(self.name, weights=None)
        return network.eval()

    def _state(self) -> Any:
        if self.file.is_file():
            return torch.load(self.file, map_location="cpu", weights_only=True)
        return self._entry.get_state_dict(progress=False, check_hash=True)

    def _extractor(self, network: nn.Module) -> nn.Module:
        from torchvision.models.feature_extraction import create_feature_extractor

        try:
            extractor: nn.Module = create_feature_extractor(network, {layer: layer for layer in self.layers})
        except ValueError as error:
            raise ValueError(f"layers: {self.name} has not all of {', '.join(self.layers)}") from error
        return extractor


class _Scaled(nn.Module):
    """A network of pixels as ImageNet's were scaled."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def forward(self, x: Tensor) -> Any:
        """Features by the names of their layers."""
        return self.network((x - self.mean) / self.deviation)
