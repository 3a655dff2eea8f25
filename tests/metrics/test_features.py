import socket
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import inception_v3, mobilenet_v2, shufflenet_v2_x0_5

from tokenizers import MOBILENET
from vaelab.config.check import check
from vaelab.config.compose import compose
from vaelab.errors import RunError
from vaelab.metrics import classifier, features
from vaelab.metrics.features import feature_space
from vaelab.metrics.subject import Subject, split_images
from vaelab.models.networks.torchvision import TorchvisionEmbedding


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "STEPS", 120)
    return tmp_path / "cache" / "vaelab"


def subject(*overrides: str, trust: tuple[str, ...] = ()) -> Subject:
    experiment = check(compose(["data=digits", *overrides]))
    return Subject(
        model=experiment.model().eval(),
        objective=experiment.objective,
        data=experiment.data,
        split="test",
        of_split=partial(split_images, experiment.data),
        seed=experiment.seed,
        trust=trust,
    )


def test_pixels_are_the_numbers_of_an_image() -> None:
    x = torch.rand(3, 1, 8, 8)

    assert feature_space("pixels", subject())(x).equal(x.flatten(1))


@pytest.mark.slow
def test_a_classifier_is_trained_once_and_kept_with_its_accuracy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = subject()
    x = digits.images.x[:5]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = feature_space("classifier", digits)
    assert torch.get_rng_state().equal(before)  # training draws from a seed of its own
    (path,) = cache.iterdir()
    monkeypatch.setattr(classifier, "_train", None)  # not called again
    second = feature_space("classifier", subject("seed=9", "model=ae"))

    assert first(x).shape == (5, 64)
    assert first(x).equal(second(x))
    assert first.details["accuracy"] == second.details["accuracy"] > 0.7
    assert np.load(path)["accuracy"] == first.details["accuracy"]


@pytest.mark.slow
def test_a_classifier_is_a_function_of_the_training_images_alone(cache: Path) -> None:
    first, again = feature_space("classifier", subject()), None
    x = subject().images.x[:5]
    for path in cache.iterdir():
        path.unlink()
    again = feature_space("classifier", subject("seed=4"))
    feature_space("classifier", subject("data.seed=1"))  # another training split

    assert first(x).equal(again(x))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.slow
def test_a_damaged_file_is_replaced_and_nothing_in_it_runs(cache: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "hacked",)

    first = feature_space("classifier", subject())
    (path,) = cache.iterdir()
    for content in (b"", b"nonsense"):
        path.write_bytes(content)
        assert feature_space("classifier", subject()).details == first.details
    np.savez(path, version=np.array(1), accuracy=np.array(Payload(), dtype=object))
    assert feature_space("classifier", subject()).details == first.details
    assert not (tmp_path / "hacked").exists()


@pytest.mark.slow
def test_it_is_kept_beside_the_data_or_where_that_cannot_be_written_in_the_cache(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    digits = subject().training_images
    np.save(root / "images.npy", digits.pixels.squeeze(1).numpy())
    np.save(root / "labels.npy", digits.labels.numpy())
    array = ["data=array", f"data.root={root}", "data.test=200"]

    feature_space("classifier", subject(*array))

    assert [path.suffix for path in sorted(root.iterdir())] == [".npy", ".npy", ".npz"]
    assert classifier._folders(subject(*array)) == [root, cache]


def test_vectors_of_any_shape_and_small_images_have_a_classifier() -> None:
    for shape in ((5,), (2, 9), (1, 4, 4), (3, 20, 11)):
        network = classifier.Classifier(shape, 3)
        x = torch.randn(4, *shape)
        assert network.features(x).shape == (4, 64)
        assert network(x).shape == (4, 3)


@pytest.fixture
def small_weights(tmp_path: Path) -> str:
    """A file with weights of a small network of torchvision, as they are drawn at random."""
    path = tmp_path / "small.pth"
    torch.save(shufflenet_v2_x0_5(weights=None).state_dict(), path)
    return str(path)


@pytest.mark.slow
def test_features_of_a_network_are_what_its_last_linear_layer_sees_at_the_size_it_was_trained_on() -> None:
    network = mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(MOBILENET, weights_only=True))
    network.eval()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    space = feature_space("mobilenet_v2", subject(), str(MOBILENET))

    for channels in (1, 3):
        x = torch.rand(3, channels, 8, 8)
        large = interpolate(x.expand(-1, 3, -1, -1), (224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            expected = network.features((large - mean[:, None, None]) / deviation[:, None, None]).mean((2, 3))
        torch.testing.assert_close(space(x), expected, rtol=1e-4, atol=1e-5)
        assert space(x).shape == (3, 1280)
    assert space.details == {"weights": MOBILENET.name}


def test_more_images_than_are_taken_at_once_give_the_same(small_weights: str) -> None:
    space = feature_space("shufflenet_v2_x0_5", subject(), small_weights)
    x = torch.rand(11, 1, 8, 8)  # 8 are taken at once

    torch.testing.assert_close(space(x), torch.cat([space(x[:3]), space(x[3:])]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_inception_sees_numbers_from_minus_one_to_one_as_with_torchvisions_own_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of how weights are drawn
        network = inception_v3(weights=None)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    seen: list[Tensor] = []
    space = feature_space("inception_v3", subject(), str(tmp_path / "a.pth"))
    layer = next(part for part in space.network.modules() if isinstance(part, nn.Conv2d))  # type: ignore[attr-defined]
    layer.register_forward_hook(lambda _, given, __: seen.append(given[0]))

    assert space(torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])).shape == (2, 2048)
    black, white = seen[0]
    assert black.shape == (3, 299, 299)
    torch.testing.assert_close(black, torch.full_like(black, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(white, torch.ones_like(white), rtol=0, atol=1e-5)


def test_networks_of_every_family_have_the_features_that_they_tell_classes_from() -> None:
    expected = {
        "alexnet": 4096,
        "convnext_tiny": 768,
        "densenet121": 1024,
        "efficientnet_b0": 1280,
        "googlenet": 1024,
        "inception_v3": 2048,
        "regnet_y_400mf": 440,
        "resnet50": 2048,
        "swin_t": 768,
        "vgg16": 4096,
        "vit_b_16": 768,
    }
    assert {name: TorchvisionEmbedding(name).dimensions for name in expected} == expected
    with pytest.raises(ValueError, match="squeezenet1_1 has no linear layer"):
        _ = TorchvisionEmbedding("squeezenet1_1").dimensions


def test_weights_that_cannot_be_downloaded_are_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)  # as a machine without a network does

    for fetch, message in ((True, "could not be downloaded from https://"), (False, "there are no weights of")):
        with pytest.raises(RunError, match=message) as found:
            feature_space("mobilenet_v3_small", replace(subject(), fetch=fetch))
        assert len(str(found.value).splitlines()) == 1


OWN = """
import torch
from torch import nn

class Halves(nn.Module):
    def forward(self, x):
        return x[:, :, ::2].flatten(1)

def coloured():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())

two_axes = nn.Identity()
number = 3
"""


def test_a_module_of_ones_own_is_taken_from_its_file_where_that_is_trusted(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    x = torch.rand(2, 1, 8, 8)

    for trusted in (str(file), "mine", "mine.py"):
        space = feature_space(f"{file}:Halves", subject(trust=(trusted,)))
        assert space.name == "mine"
        assert space(x).equal(x[:, :, ::2].flatten(1))


MISTAKES = {
    "no such space": ("pixel", "did you mean pixels?"),
    "no such network": ("resnet17", "did you mean resnet1"),
    "not trusted": ("{file}:Halves", "its code would run: allow it with --trust"),
    "no file": ("{folder}/none.py:Halves", "there is no Python file"),
    "no Python": ("{folder}/text.txt:Halves", "there is no Python file"),
    "broken Python": ("{folder}/broken.py:Halves", "cannot be used (SyntaxError"),
    "no such name": ("{file}:Quarters", "cannot be used (AttributeError"),
    "no module": ("{file}:number", "number is a int: name a torch.nn.Module"),
    "another image shape": ("{file}:coloured", "takes no images of shape (1, 8, 8)"),
    "features with axes": (
        "{file}:two_axes",
        "returns (2, 1, 8, 8) for 2 images; features should be floats of shape (2, D)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_features_that_cannot_be_had_are_refused_in_one_line(mistake: str, tmp_path: Path) -> None:
    name, message = MISTAKES[mistake]
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "text.txt").write_text("")
    trust = () if mistake == "not trusted" else ("mine", "none", "text", "broken")

    with pytest.raises(RunError) as found:
        feature_space(name.format(file=file, folder=tmp_path), subject(trust=trust))

    assert message in str(found.value)
    assert len(str(found.value).splitlines()) == 1


def test_data_without_labels_have_no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    unlabelled = subject()
    unlabelled.data.splits.train.store_labels.zero_()

    with pytest.raises(RunError, match="features classifier: the data have no labels"):
        feature_space("classifier", unlabelled)
    assert features.feature_space("pixels", unlabelled)
