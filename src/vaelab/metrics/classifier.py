"""A small classifier of the training labels, whose last hidden layer is a feature space for the data."""

import hashlib
import math
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vaelab.data import Batches, Images, rows_at_once
from vaelab.files import replacing
from vaelab.metrics.subject import Subject
from vaelab.seeding import derive_seed, noise_of_its_own

FEATURES = 64
STEPS, BATCH, RATE = 1500, 128, 2e-3
HASHED = 4096  # images of a training split whose pixels tell it from another
VERSION = 1  # of what is trained: a file of another one is not read


class Classifier(nn.Module):
    """Events (B, *event) -> logits (B, classes), by way of 64 features.

    Images of 8 x 8 pixels or more go through two convolutions of stride 2, others and vectors through a layer of 256.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(shape) == 3 and min(shape[1:]) >= 8:
            size = math.prod(-(-side // 4) for side in shape[1:])
            body: list[nn.Module] = [
                nn.Conv2d(shape[0], 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(32 * size, FEATURES),
            ]
        else:
            body = [nn.Flatten(), nn.Linear(math.prod(shape), 256), nn.ReLU(), nn.Linear(256, FEATURES)]
        self.body = nn.Sequential(*body, nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (B, 64), over `scale`."""
        features: Tensor = self.body(x) / self.scale
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.body(x))
        return logits


class Trained(NamedTuple):
    """A classifier and its accuracy on test images, or else on validation or training images."""

    network: Classifier
    accuracy: float

    def features(self, x: Tensor) -> Tensor:
        """Features (B, 64)."""
        return self.network.features(x)


def trained_classifier(subject: Subject) -> Trained:
    """The classifier of a subject's data: from its file, or trained once and kept there.

    It is a function of the training images and their labels, not of the run or its seed, so that all runs on the same
    data are compared in the same space. 1,500 steps of Adam at batch 128, the learning rate down half a cosine wave
    from 0.002. The file is beside the data or, where that cannot be written, in the user's cache folder; where neither
    can be, it is trained at each call. Features are over the root of their mean square.
    """
    train = subject.training_images
    splits = subject.data.splits
    held_out = next(name for name in ("test", "validation", "train") if len(getattr(splits, name)))
    classes = int(train.labels.max()) + 1
    noise = partial(noise_of_its_own, subject.device, derive_seed(0, "classifier"))
    with noise():
        network = Classifier(tuple(train.shape), classes).to(subject.device)
    name = f"vaelab_classifier_{_identity(train)}.npz"
    for folder in _folders(subject):
        known = _read(folder / name, network)
        if known is not None:
            return Trained(network.eval(), known)
    with noise():  # a damaged file may have left some of its weights
        network = Classifier(tuple(train.shape), classes).to(subject.device)
        with torch.enable_grad():
            _train(network, train, subject)
        network.eval()
    with torch.no_grad():  # the mean square of a feature is 1: the kernel's numbers have a known size
        (some, *_) = Batches(train, batch_size=min(HASHED, len(train)), device=subject.device)
        network.scale.copy_(network.features(some.images).square().mean().sqrt())
    accuracy = _accuracy(network, subject.of_split(held_out).to(subject.device), subject)
    weights = {name: weight.cpu().numpy() for name, weight in network.state_dict().items()}
    for folder in _folders(subject):
        try:
            with replacing(folder / name) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, version=VERSION, accuracy=accuracy, **weights)
            break
        except OSError:
            continue
    return Trained(network, accuracy)


def _train(network: Classifier, train: Images, subject: Subject) -> None:
    step, size = 0, min(BATCH, len(train))
    batches = Batches(
        train, batch_size=size, seed=0, device=subject.device, position=lambda: divmod(step, -(-len(train) // size))
    )
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    progress = iter(subject.track(range(STEPS), "classifier"))
    while step < STEPS:
        for batch in batches:
            if step == STEPS:
                break
            optimizer.zero_grad()
            cross_entropy(network(batch.images), batch.labels).backward()
            optimizer.step()
            schedule.step()
            next(progress)
            step += 1


@torch.no_grad()
def _accuracy(network: Classifier, test: Images, subject: Subject) -> float:
    right = 0
    for batch in Batches(test, batch_size=rows_at_once(test.shape), device=subject.device):
        right += int((network(batch.images).argmax(1) == batch.labels).sum())
    return right / len(test)


def _identity(train: Images) -> str:
    """A hash of the labels and of the first pixels of a training split."""
    digest = hashlib.blake2b(f"{VERSION}/{tuple(train.shape)}/{len(train)}".encode(), digest_size=8)
    digest.update(train.labels.cpu().contiguous().numpy().tobytes())
    digest.update(train.first(HASHED).pixels.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _folders(subject: Subject) -> list[Path]:
    """Return the folders of kept classifiers: beside the data, else in the cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vaelab")
    root = getattr(subject.data, "root", None)
    return [Path(root), cache] if root is not None and Path(root).is_dir() else [cache]


def _read(path: Path, network: Classifier) -> float | None:
    """Load weights from a file and return the accuracy in it; None where there is none that fits."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if content["version"] != VERSION:
                return None
            network.load_state_dict({name: torch.from_numpy(content[name]) for name in network.state_dict()})
            return float(content["accuracy"])
    except Exception:  # no file, or one that is damaged in whatever way: it is trained anew
        return None
