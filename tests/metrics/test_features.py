import socket
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaelab.config.check import check
from vaelab.config.compose import compose
from vaelab.errors import RunError
from vaelab.metrics import classifier, features
from vaelab.metrics.features import Inception, feature_space
from vaelab.metrics.subject import Subject, split_images


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


def test_a_classifier_is_a_function_of_the_training_images_alone(cache: Path) -> None:
    first, again = feature_space("classifier", subject()), None
    x = subject().images.x[:5]
    for path in cache.iterdir():
        path.unlink()
    again = feature_space("classifier", subject("seed=4"))
    feature_space("classifier", subject("data.seed=1"))  # another training split

    assert first(x).equal(again(x))
    assert len(list(cache.iterdir())) == 2


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


def test_inception_takes_grey_and_coloured_images_at_299_pixels() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((tuple(x.shape), x.min().item(), x.max().item()))
            return x.flatten(1)[:, :8]

    for channels in (1, 3):
        assert Inception(Spy())(torch.rand(60, channels, 12, 12).round()).shape == (60, 8)
    assert {shape for shape, _, _ in seen} == {(50, 3, 299, 299), (10, 3, 299, 299)}
    assert all(low == pytest.approx(-1, abs=0.1) and high == pytest.approx(1, abs=0.1) for _, low, high in seen)


def test_inception_without_a_network_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)  # as a machine without a network does

    with pytest.raises(RunError, match="could not be downloaded") as found:
        feature_space("inception", subject())

    assert len(str(found.value).splitlines()) == 1
    assert "classifier and pixels need no network" in str(found.value)


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
