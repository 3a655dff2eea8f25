"""Networks of torchvision by their names, for their features."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, in [0, 1]
AT_ONCE, AT_ONCE_OF_GPU = 8, 64  # images: what a layer returns stays in a CPU's cache, and memory is bounded
LAYERS: Mapping[str, Sequence[str]] = {
    "alexnet": ("features.1", "features.4", "features.7", "features.9", "features.11"),
    "mobilenet_v2": ("features.1", "features.3", "features.6", "features.13"),
    "resnet18": ("relu", "layer1", "layer2", "layer3"),
    "squeezenet1_1": ("features.1", "features.4", "features.7", "features.12"),
    "vgg16": ("features.3", "features.8", "features.15", "features.22", "features.29"),
}


def known_networks() -> list[str]:
    """List the networks of torchvision.models that classify images."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


class TorchvisionNetwork(ABC):
    """A network of torchvision.models with its weights, made where it is first used. No part of a model's weights.

    Args:
        name: such as vgg16.
        weights: a file with its weights; None for torchvision's own.

    Raises:
        ValueError: there is no such network.
    """

    def __init__(self, name: str, weights: Path | None = None) -> None:
        if name not in known_networks():
            raise ValueError(f"network={name}: torchvision.models has no such network")
        self.name, self.weights = name, weights
        self._made: nn.Module | None = None

    @abstractmethod
    def used(self, network: nn.Module) -> nn.Module:
        """What is used of torchvision's network.

        Raises:
            ValueError: it has no such part.
        """

    def is_there(self) -> bool:
        """Whether the weights are at hand, on this machine."""
        return self.file.is_file()

    @property
    def file(self) -> Path:
        """Where the weights are, or come to be."""
        return self.weights or Path(torch.hub.get_dir(), "checkpoints", Path(self.entry.url).name)

    @property
    def entry(self) -> Any:
        """What torchvision says of its own weights: their address, and which images the network was trained on."""
        from torchvision import models

        return models.get_model_weights(self.name).DEFAULT

    def find(self, *, fetch: bool) -> None:
        """Download the weights, where they are torchvision's, not there and it may `fetch`; make the network.

        Raises:
            ValueError: they are not there, or of another network, or a part is missing.
        """
        if not self.file.is_file() and not (fetch and self.weights is None):
            raise ValueError(f"there are no weights of {self.name} in {self.file}")
        self.on(torch.device("cpu"))

    def on(self, device: torch.device) -> nn.Module:
        """What is used of the network, on a device; images are (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: as in `find`.
        """
        if device.type == "meta":
            return _Scaled(self.used(self._bare("meta"))).to(device)
        if self._made is None:
            network = self._bare("cpu")
            try:
                network.load_state_dict(self._state())
            except Exception as error:  # of urllib, of a damaged file, of another network
                said = " ".join(str(error).split())[:200]
                if not self.file.is_file():
                    raise ValueError(
                        f"the weights of {self.name} are not in {self.file} and could not be downloaded from "
                        f"{self.entry.url}: {said}"
                    ) from error
                raise ValueError(f"the weights {self.file} cannot be those of {self.name}: {said}") from error
            self._made = _Scaled(self.used(network)).requires_grad_(False).eval()
        self._made = self._made.to(device)
        return self._made

    def _bare(self, device: str) -> nn.Module:
        """Torchvision's network without its weights."""
        from torchvision import models

        if device == "meta" and self.name.startswith("regnet"):  # whose sizes are computed with tensors
            return self._bare("cpu").to(device)
        with torch.device(device), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # how Inception's and GoogLeNet's weights are drawn
            network: nn.Module = models.get_model(self.name, weights=None)
        if hasattr(network, "transform_input"):
            network.transform_input = True  # type: ignore[assignment]  # as torchvision does with its weights
        return network.eval()

    def _state(self) -> Any:
        if self.file.is_file():
            return torch.load(self.file, map_location="cpu", weights_only=True)
        return self.entry.get_state_dict(progress=False, check_hash=True)


class TorchvisionFeatures(TorchvisionNetwork):
    """Images (B, 3, H, W) in [0, 1] -> features (B, C, H, W) of some layers, by the layers' names.

    Args:
        name: such as vgg16.
        weights: a file with its weights; None for torchvision's own.
        layers: whose outputs are the features; None for those that are known to fit.

    Raises:
        ValueError: there is no such network, or no layers are known to fit.
    """

    def __init__(self, name: str, weights: Path | None = None, layers: Sequence[str] | None = None) -> None:
        super().__init__(name, weights)
        if layers is None and name not in LAYERS:
            raise ValueError(
                f"layers: say which layers of {name}, such as [features.3]; those of {', '.join(LAYERS)} are known"
            )
        self.layers = layers or LAYERS[name]

    def used(self, network: nn.Module) -> nn.Module:
        """The network up to the last of the layers."""
        from torchvision.models.feature_extraction import create_feature_extractor

        try:
            extractor: nn.Module = create_feature_extractor(network, {layer: layer for layer in self.layers})
        except ValueError as error:
            raise ValueError(f"layers: {self.name} has not all of {', '.join(self.layers)}") from error
        return extractor


class TorchvisionEmbedding(TorchvisionNetwork):
    """Images (B, 1 or 3, H, W) in [0, 1] -> what the network's last linear layer sees, (B, D).

    Images are scaled to the size that the network was trained on (bilinear, antialiased); grey ones get three equal
    channels.
    """

    @cached_property
    def dimensions(self) -> int:
        """D.

        Raises:
            ValueError: the network has no linear layer.
        """
        return self._last(self._bare("meta"))[1].in_features

    def used(self, network: nn.Module) -> nn.Module:
        """The network without its last linear layer."""
        name, _ = self._last(network)
        network.set_submodule(name, nn.Identity())
        crop = self.entry.transforms().crop_size
        return _Resized(network, crop if isinstance(crop, int) else crop[0])

    def _last(self, network: nn.Module) -> tuple[str, nn.Linear]:
        linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(f"{self.name} has no linear layer, whose input would be the features")
        return linear[-1]


class _Resized(nn.Module):
    """A network of square images, a few at a time."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> Tensor:
        at_once = AT_ONCE if x.device.type == "cpu" else AT_ONCE_OF_GPU
        return torch.cat([self._some(part) for part in x.split(at_once)])

    def _some(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(interpolate(x, (self.size, self.size), mode="bilinear", antialias=True))
        return features


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
