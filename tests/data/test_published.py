"""Datasets by name, in torchvision's layout or the one they were published in."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import published
from vaelab.data import CIFAR10, CIFAR100, EMNIST, STL10, SVHN, USPS, CelebA, DSprites, ImageData, Omniglot, Splits
from vaelab.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "data"
    published.make_all(root)
    return root


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that are made here have not the checksums of the published ones."""
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *_: True)


def read(data_class: type[ImageData], root: Path, **options: object) -> tuple[ImageData, Splits]:
    made = data_class(root=str(root), batch_size=1, **options)  # type: ignore[call-arg, arg-type]
    return made, made.splits


@pytest.mark.parametrize(
    ("data_class", "options", "shape", "classes", "sizes"),
    [
        (CIFAR10, {"validation": 10}, (3, 32, 32), 10, (90, 10, 20)),
        (CIFAR100, {"validation": 5}, (3, 32, 32), 100, (15, 5, 20)),
        (SVHN, {"validation": 5}, (3, 32, 32), 10, (35, 5, 20)),
        (EMNIST, {"validation": 10}, (1, 28, 28), 47, (50, 10, 30)),
        (EMNIST, {"validation": 10, "part_of": "letters"}, (1, 28, 28), 26, (50, 10, 30)),
        (USPS, {}, (1, 16, 16), 10, (36, 4, 20)),
        (STL10, {}, (3, 96, 96), 10, (18, 2, 10)),
        (STL10, {"unlabelled": True, "validation": 0}, (3, 96, 96), 11, (26, 0, 10)),
        (Omniglot, {}, (1, 28, 28), 3, (18, 2, 10)),
        (CelebA, {"validation": 5}, (3, 64, 64), 0, (24, 5, 8)),
        (CelebA, {"label": "Smiling", "size": 16}, (3, 16, 16), 2, (24, 8, 8)),
        (DSprites, {"validation": 50, "test": 34}, (1, 64, 64), 3, (300, 50, 34)),
    ],
)
def test_shape_classes_and_splits(
    data_class: type[ImageData],
    options: dict[str, object],
    shape: tuple[int, ...],
    classes: int,
    sizes: tuple[int, ...],
    root: Path,
) -> None:
    made, splits = read(data_class, root, **options)
    assert (made.shape, made.classes) == (shape, classes)
    assert tuple(map(len, splits)) == sizes
    for split in splits:
        assert split.pixels.shape == (len(split), *shape)
        assert split.pixels.dtype == torch.uint8
        assert split.labels.max() < max(1, classes) if len(split) else True


def test_pixels_are_where_they_belong(root: Path) -> None:
    batch = pickle.loads((root / "cifar-10-batches-py" / "test_batch").read_bytes())
    assert np.array_equal(read(CIFAR10, root, validation=0)[1].test.pixels.numpy().reshape(20, -1), batch["data"])
    raw = (root / "EMNIST" / "raw" / "emnist-letters-test-images-idx3-ubyte").read_bytes()[16:]
    letters = read(EMNIST, root, part_of="letters", validation=0)[1].test
    assert np.array_equal(letters.pixels[:, 0].mT.numpy().reshape(-1), np.frombuffer(raw, np.uint8))
    assert letters.labels[:3].tolist() == [0, 1, 2]
    digits = read(SVHN, root, validation=0)[1].test
    assert digits.labels[[0, 9]].tolist() == [1, 0]


def test_omniglot_is_white_on_black_and_its_labels_are_the_alphabets(root: Path) -> None:
    made, splits = read(Omniglot, root)
    assert made.names == ("Greek", "Latin", "Tengwar")
    assert splits.test.labels.unique().tolist() == [2]
    assert splits.test.x.mean() < 0.2  # ink is a part of it


def test_the_attributes_of_celeba_are_factors_and_one_of_them_is_the_label(root: Path) -> None:
    made, splits = read(CelebA, root, label="Smiling", size=16)
    lines = [line.split() for line in (root / "celeba" / "list_attr_celeba.txt").read_text().splitlines()[2:]]
    known = splits.test.factors(torch.arange(8))
    assert made.factors == {"Bald": 2, "Smiling": 2, "Young": 2}
    assert known.tolist() == [[int(value == "1") for value in line[1:]] for line in lines[32:]]
    assert splits.test.labels.tolist() == known[:, 1].tolist()
    assert made.names == ("not Smiling", "Smiling")
    middle = Image.open(root / "celeba" / "img_align_celeba" / "000033.jpg").crop((15, 35, 163, 183))
    wanted = np.asarray(middle.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(splits.test.pixels[0].numpy(), np.moveaxis(wanted, -1, 0))
    with pytest.raises(DataError, match="did you mean Smiling"):
        _ = CelebA(root=str(root), label="smiling").shape


def test_dsprites_are_unpacked_once_with_their_factors(root: Path) -> None:
    made, splits = read(DSprites, root, validation=0, test=34)
    with np.load(root / made.files[0]) as archive:  # type: ignore[attr-defined]
        images, classes = archive["imgs"], archive["latents_classes"]
    numbers = torch.arange(len(splits.test))
    known = splits.test.factors(numbers).numpy()
    rows = splits.test.rows(numbers).numpy()
    assert made.factors == {"shape": 3, "scale": 2, "orientation": 4, "x": 4, "y": 4}
    assert np.array_equal(splits.test.pixels[:, 0].numpy(), images[rows] * 255)
    assert np.array_equal(known, classes[rows, 1:])
    assert np.array_equal(splits.test.labels.numpy(), classes[rows, 1])
    later = DSprites(root=str(root), validation=0, test=34)
    later.fetch = False
    assert later.splits.test.pixels.equal(splits.test.pixels)


def test_a_pickle_that_was_not_published_is_not_opened(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (ran,)

    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match="incomplete or damaged"):
        read(CIFAR10, tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("data_class", [CIFAR10, SVHN, Omniglot, CelebA, DSprites])
def test_for_a_run_folder_nothing_is_downloaded(data_class: type[ImageData], tmp_path: Path) -> None:
    made = data_class(root=str(tmp_path))  # type: ignore[call-arg]
    made.fetch = False
    with pytest.raises(DataError, match="nothing is downloaded to where a run folder says"):
        _ = made.splits
    assert not list(tmp_path.iterdir())


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("x")
    with pytest.raises(DataError, match=r"is a file: data\.root is a folder, with celeba in it"):
        _ = CelebA(root=str(tmp_path / "photos")).shape


@pytest.mark.parametrize(
    ("file", "content", "data_class"),
    [
        ("celeba/list_attr_celeba.txt", b"40\nBald\n", CelebA),
        ("celeba/list_eval_partition.txt", b"", CelebA),
        ("dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz", b"no zip", DSprites),
        ("usps.bz2", b"no bzip", USPS),
        ("train_32x32.mat", b"no mat", SVHN),
    ],
)
def test_a_damaged_file_is_an_error(
    file: str, content: bytes, data_class: type[ImageData], root: Path, tmp_path: Path
) -> None:
    for path in root.iterdir():
        if path.name == file.partition("/")[0] and path.is_dir():
            (tmp_path / path.name).mkdir()
            for inner in path.iterdir():
                (tmp_path / path.name / inner.name).symlink_to(inner)
            (tmp_path / file).unlink()
        elif not path.name.startswith(".") and path.name != file:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match="incomplete or damaged"):
        read(data_class, tmp_path)
