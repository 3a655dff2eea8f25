"""Images of one's own, read from a mapped file."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.data import ArrayImages, Batches
from vaelab.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty images of 5 x 4 whose pixels are the image's number, as is the label."""
    numbers = np.arange(40)
    np.save(tmp_path / "images.npy", np.broadcast_to(numbers.astype(np.uint8)[:, None, None], (40, 5, 4)))
    np.save(tmp_path / "labels.npy", numbers.astype(np.int32))
    return tmp_path


def test_every_image_is_in_one_split_and_keeps_its_label(root: Path) -> None:
    data = ArrayImages(root=str(root), validation=7, test=9, batch_size=8)

    assert (data.shape, data.classes) == ((1, 5, 4), 40)
    assert [len(images) for images in data.splits] == [24, 7, 9]
    assert sorted(torch.cat([images.labels for images in data.splits]).tolist()) == list(range(40))
    for images in data.splits:
        assert images.pixels.shape == (len(images), 1, 5, 4)
        assert images.pixels[:, 0, 0, 0].long().equal(images.labels)


def test_no_split_is_a_copy(root: Path) -> None:
    splits = ArrayImages(root=str(root), validation=7, test=9, batch_size=8).splits

    assert len({id(images.store) for images in splits}) == 1


def test_splits_are_a_function_of_the_seed(root: Path) -> None:
    first, again, other = (
        ArrayImages(root=str(root), test=9, seed=seed, batch_size=8).splits.test.labels for seed in (0, 0, 1)
    )

    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("binarize", ["none", "fixed", "dynamic"])
def test_batches_are_those_of_the_same_images_in_memory(root: Path, binarize: str) -> None:
    mapped = ArrayImages(root=str(root), test=9, binarize=binarize, batch_size=8)  # type: ignore[arg-type]
    train = mapped.splits.train
    copied = type(train)(train.pixels.clone(), train.labels.clone())

    for images in (train, copied):
        assert len(list(Batches(images, batch_size=8, seed=3, dynamic=binarize == "dynamic"))) == 4
    pairs = [Batches(images, batch_size=8, seed=3, dynamic=binarize == "dynamic") for images in (train, copied)]
    for a, b in zip(*pairs, strict=True):
        assert a.images.equal(b.images)
        assert a.labels.equal(b.labels)


def test_labels_may_be_missing_and_channels_there(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((6, 3, 8, 9), np.uint8))
    data = ArrayImages(root=str(tmp_path), test=2, batch_size=2)

    assert data.shape == (3, 8, 9)
    assert data.splits.train.labels.tolist() == [0] * 4
    assert data.classes == 0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (None, None, r"images.npy is not there \(data.root=.*numpy.save"),
        (np.zeros((9, 4, 4), np.float32), None, r"holds float32 of shape \(9, 4, 4\): images are uint8"),
        (np.zeros((9, 16), np.uint8), None, r"of shape \(9, 16\).*\(N, H, W\)"),
        (np.zeros((0, 4, 4), np.uint8), None, r"of shape \(0, 4, 4\)"),
        (np.asfortranarray(np.zeros((9, 4, 4), np.uint8)), None, "Fortran"),
        (np.zeros((9, 4, 4), np.uint8), np.zeros(8, np.int64), r"labels.npy holds int64 of shape \(8,\).* 9 images"),
        (np.zeros((9, 4, 4), np.uint8), np.zeros(9), "whole numbers"),
        (np.zeros((9, 4, 4), np.uint8), np.full(9, -1), "from -1 to -1: they are the numbers of classes"),
        (np.zeros((9, 4, 4), np.uint8), np.full(9, 2**63 + 5, np.uint64), "to 9223372036854775813: they are the num"),
        (np.zeros((2, 4, 4), np.uint8), None, "leave nothing to train on: .*images.npy has 2 images"),
        ("no array", None, "is no array of numpy.save"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(images: object, labels: object, message: str, tmp_path: Path) -> None:
    if isinstance(images, str):
        (tmp_path / "images.npy").write_text(images)
    elif images is not None:
        np.save(tmp_path / "images.npy", images)  # type: ignore[arg-type]
    if labels is not None:
        np.save(tmp_path / "labels.npy", labels)  # type: ignore[arg-type]

    with pytest.raises(DataError, match=message):
        _ = ArrayImages(root=str(tmp_path), test=2, batch_size=2).splits


def test_a_folder_in_place_of_the_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "images.npy").mkdir()
    with pytest.raises(DataError, match=r"images\.npy cannot be read: Is a directory"):
        _ = ArrayImages(root=str(tmp_path), test=2, batch_size=2).splits


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_images_of_any_number_of_channels_are_trained_on_and_drawn(channels: int, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (40, channels, 8, 8), np.uint8))
    overrides = ["data=array", f"data.root={tmp_path}", "data.test=8", "data.batch_size=8", "trainer=debug"]
    run = vaelab.train(vaelab.compose([*overrides, "trainer.max_epochs=1"]), folder=tmp_path / "run")

    assert [figure.name for figure in run.figures] == ["reconstructions.png", "samples.png"]


def test_drawing_more_images_than_there_is_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ArrayImages(root=str(tmp_path), test=2, batch_size=2, binarize="fixed")
    np.save(tmp_path / "images.npy", np.zeros((9, 4, 4), np.uint8))
    monkeypatch.setattr(torch, "empty", lambda *sizes, **kinds: torch.zeros(2**62))
    with pytest.raises(DataError, match=r"7 images .* do not fit the memory: data\.binarize=dynamic"):
        _ = data.splits


def test_a_network_that_does_not_fit_is_refused_by_the_header_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((9, 4, 4), np.uint8))
    config = vaelab.compose(["data=array", f"data.root={tmp_path}", "encoder=conv", "encoder.channels=[1,2,3]"])

    with pytest.raises(vaelab.ConfigError, match="4 x 4"):
        vaelab.train(config, folder=tmp_path / "run")


TRAIN_WITH_LITTLE_MEMORY = """
import resource, sys
import torch, pytorch_lightning, matplotlib.pyplot, tensorboard, vaelab
from vaelab.runs import run
torch.set_num_threads(1)
used = 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + 400 * 2**20,) * 2)
root, folder = sys.argv[1:]
config = vaelab.compose([
    "data=array", f"data.root={root}", "data.validation=100", "data.test=100", "data.binarize=dynamic",
    "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=20", "~callbacks.progress_bar",
])
print(vaelab.train(config, folder=folder).metrics)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit on a process's own memory")
def test_an_array_several_times_the_memory_is_trained_on(tmp_path: Path) -> None:
    """Two gigabytes, with 400 megabytes to spare; any copy of the array would end the process."""
    shape = (500_000, 64, 64)
    np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)  # a sparse file
    assert resource.RLIMIT_DATA
    result = subprocess.run(
        [sys.executable, "-c", TRAIN_WITH_LITTLE_MEMORY, tmp_path, tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "'steps': 20" in result.stdout
