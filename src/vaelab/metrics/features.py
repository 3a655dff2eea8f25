"""Feature spaces to compare images in: pixels, a classifier's, Inception's, or the user's own network."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vaelab.errors import RunError, did_you_mean
from vaelab.metrics.classifier import trained_classifier
from vaelab.metrics.subject import Subject

Network = Callable[[Tensor], Tensor]


class FeatureSpace(NamedTuple):
    """Images (B, *event) -> features (B, D), float32: the network, its name and details."""

    name: str
    network: Network
    details: Mapping[str, Any]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, D) of images."""
        return self.network(images)


def feature_space(name: str, subject: Subject) -> FeatureSpace:
    """The feature space of a name, on the subject's device.

    Args:
        name: pixels, classifier, inception, or FILE.py:NAME, a network of one's own, whose file has to be trusted.
        subject: for its images' shape, its training split and its trust.

    Raises:
        RunError: there is none of this name, or it cannot be had, or it does not take images of this shape.
    """
    shape = tuple(subject.images.shape)
    if ":" in name:
        network, short, details = _own(name, subject.trust), Path(name.partition(":")[0]).stem, {"network": name}
        network = network.to(subject.device).eval()
    elif name == "pixels":
        return FeatureSpace(name, lambda images: images.flatten(1), {})
    elif name == "classifier":
        if reason := subject.why_not("labels"):
            raise RunError(f"features classifier: {reason} to train one on; pixels needs none")
        trained = trained_classifier(subject)
        return FeatureSpace(name, trained.features, {"accuracy": trained.accuracy})
    elif name == "inception":
        if reason := subject.why_not("images"):
            raise RunError(f"features inception: {reason}")
        network, short, details = _inception().to(subject.device), name, {"weights": "torchvision IMAGENET1K_V1"}
    else:
        known = ("pixels", "classifier", "inception")
        raise RunError(f"features {name}: there is no such feature space{did_you_mean(name, known)}; or FILE.py:NAME")
    try:
        with torch.no_grad():
            found = network(torch.zeros(2, *shape, device=subject.device))
    except Exception as error:  # somebody's own network may fail in any way
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"features {name}: takes no images of shape {shape}: {first}") from error
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2 or not found.is_floating_point():
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise RunError(f"features {name}: returns {what} for 2 images; features should be floats of shape (2, D)")
    return FeatureSpace(short, network, details)


class Inception(nn.Module):
    """Inception v3 before its last layer: images (B, 1 or 3, H, W) in [0, 1] -> (B, 2048).

    Images are scaled to 299 x 299 (bilinear, antialiased) and to [-1, 1]; grey ones get three equal channels.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Features, a few images at a time, so that memory is bounded."""
        return torch.cat([self._some(part) for part in images.split(50)])

    def _some(self, images: Tensor) -> Tensor:
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        x = interpolate(x, (299, 299), mode="bilinear", antialias=True)
        features: Tensor = self.network(x * 2 - 1)
        return features


def _inception() -> nn.Module:
    """Torchvision's network with its weights, which are downloaded once.

    Raises:
        RunError: they are not there and cannot be downloaded.
    """
    from torchvision.models import Inception_V3_Weights, inception_v3

    weights = Inception_V3_Weights.IMAGENET1K_V1
    try:
        network = inception_v3(weights=weights, transform_input=False)
    except Exception as error:  # of urllib, http, ssl or the file system
        raise RunError(
            f"features inception: its weights are not in {torch.hub.get_dir()}/checkpoints and could not be downloaded "
            f"from {weights.url}: {' '.join(str(error).split())}; classifier and pixels need no network"
        ) from error
    network.fc = nn.Identity()
    return Inception(network).eval()


def _own(name: str, trust: Sequence[str]) -> nn.Module:
    """Load the module FILE.py:NAME: a torch.nn.Module, or a class or function without arguments that makes one.

    Raises:
        RunError: the file is not trusted, or it holds no such module.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not ({file, path.name, path.stem} & set(trust)):
        raise RunError(f"features {name}: its code would run: allow it with --trust {file}")
    if path.suffix != ".py" or not path.is_file():
        raise RunError(f"features {name}: there is no Python file {file}; write FILE.py:NAME")
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = getattr(module, attribute)
        made = found() if inspect.isclass(found) or inspect.isfunction(found) else found
    except Exception as error:  # somebody's own file may fail in any way
        raise RunError(f"features {name}: cannot be used ({type(error).__name__}: {error})") from error
    if not isinstance(made, nn.Module):
        raise RunError(
            f"features {name}: {attribute} is a {type(made).__name__}: name a torch.nn.Module, or a class or function "
            "without arguments that makes one"
        )
    return made
