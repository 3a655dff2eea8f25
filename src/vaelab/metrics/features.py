"""Feature spaces to compare images in: pixels, a classifier's, a torchvision network's, or the user's own network's."""

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaelab.errors import RunError, did_you_mean
from vaelab.metrics.classifier import FEATURES, trained_classifier
from vaelab.metrics.frechet import too_few
from vaelab.metrics.subject import Subject
from vaelab.models.networks.torchvision import TorchvisionEmbedding, known_networks

Network = Callable[[Tensor], Tensor]
OURS = ("pixels", "classifier")


class FeatureSpace(NamedTuple):
    """Images (B, *event) -> features (B, D), float32: the network, its name and details."""

    name: str
    network: Network
    details: Mapping[str, Any]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, D) of images."""
        return self.network(images)


def feature_space(name: str, subject: Subject, weights: str | None = None) -> FeatureSpace:
    """The feature space of a name, on the subject's device.

    Args:
        name: pixels, classifier, a network of torchvision.models such as inception_v3, or FILE.py:NAME, a network of
            one's own, whose file has to be trusted.
        subject: for its images' shape, its training split, its trust, and whether weights may be downloaded.
        weights: a file with the weights of torchvision's network; None for torchvision's own.

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
    else:
        try:
            named = embedding(name, weights)
            named.find(fetch=subject.fetch)
        except ValueError as error:
            raise RunError(f"features {name}: {error}") from error
        network, short = named.on(subject.device), name
        details = {"weights": f"torchvision {named.entry.name}" if named.weights is None else named.weights.name}
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


@lru_cache(maxsize=1)
def embedding(name: str, weights: str | None) -> TorchvisionEmbedding:
    """A network of torchvision by its name; the last one is kept, so that its weights are read once.

    Raises:
        ValueError: there is no such feature space.
    """
    networks = known_networks()
    if name not in networks:
        guess = did_you_mean(name, (*OURS, *networks))
        raise ValueError(
            f"there is no such feature space{guess}; take {', '.join(OURS)}, a network of torchvision.models, or "
            "FILE.py:NAME"
        )
    return TorchvisionEmbedding(name, None if weights is None else Path(weights))


def why_no_features(name: str, subject: Subject, weights: str | None, images: int) -> str | None:
    """Return why there can be no features of a name, or no covariance of so many, as far as it is known beforehand."""
    dimensions = {"classifier": FEATURES, "pixels": math.prod(subject.images.shape)}.get(name)
    if weights is not None and (name in OURS or ":" in name):
        return f"weights={weights} are for features that are a network of torchvision.models"
    if name == "classifier" and (reason := subject.why_not("labels")):
        return f"{reason} to train one on; features pixels takes none"
    if ":" in name:
        return _not_trusted(name, subject.trust)
    if dimensions is None:
        if reason := subject.why_not("images"):
            return reason
        if subject.images.shape[0] not in {1, 3}:
            return f"takes images of one or three channels, not of shape {tuple(subject.images.shape)}"
        try:
            named = embedding(name, weights)
            dimensions = named.dimensions
            if images > dimensions:
                named.find(fetch=subject.fetch)
        except ValueError as error:
            return str(error)
    return too_few(images, dimensions) if images <= dimensions else None


def _not_trusted(name: str, trust: Sequence[str]) -> str | None:
    file = name.rpartition(":")[0]
    if {file, Path(file).name, Path(file).stem} & set(trust):
        return None
    return f"its code would run: allow it with --trust {file}, in vaelab evaluate"


def _own(name: str, trust: Sequence[str]) -> nn.Module:
    """Load the module FILE.py:NAME: a torch.nn.Module, or a class or function without arguments that makes one.

    Raises:
        RunError: the file is not trusted, or it holds no such module.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if reason := _not_trusted(name, trust):
        raise RunError(f"features {name}: {reason}")
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
