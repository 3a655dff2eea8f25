"""A folder of image files, decoded once into a mapped array."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaelab
from vaelab.data import ImageFolder
from vaelab.data.image_folder import CACHE
from vaelab.errors import DataError


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> np.ndarray:
    """Write a random image of so many rows and columns; its values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(values).save(path)
    return values


def data(root: Path, **options: object) -> ImageFolder:
    return ImageFolder(root=str(root), batch_size=1, **{"validation": 0, "test": 0, **options})  # type: ignore[arg-type]


def caches(root: Path) -> list[Path]:
    return sorted((root.parent / CACHE).glob("*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def test_images_at_any_depth_are_rows_in_the_order_of_their_paths_with_their_folder_as_label(root: Path) -> None:
    wanted = [
        picture(root / path, n) for n, path in enumerate(["cat/a.png", "cat/x/y/b.png", "dog/c.png", "dog/d.png"])
    ]
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "empty").mkdir()
    found = data(root)
    train = found.splits.train

    assert (found.shape, found.names) == ((3, 12, 10), ("cat", "dog"))
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(train.pixels.numpy(), np.moveaxis(np.stack(wanted), -1, 1))
    assert train.x.max() <= 1


def test_folders_of_splits_are_the_splits_and_validation_is_set_aside_where_there_is_none(root: Path) -> None:
    for n in range(10):
        picture(root / "train" / ("cat" if n % 2 else "dog") / f"{n}.png", n)
    picture(root / "test" / "dog" / "a.png", 99)
    picture(root / "elsewhere" / "b.png", 98)
    found = data(root, validation=0.2)

    assert [len(images) for images in found.splits] == [8, 2, 1]
    assert found.names == ("cat", "dog")
    assert found.splits.test.labels.tolist() == [1]


def test_images_beside_folders_have_no_labels(root: Path) -> None:
    picture(root / "a.png")
    picture(root / "cat" / "b.png")
    assert data(root).classes == 0


def test_images_are_decoded_once_until_a_file_changes(root: Path) -> None:
    for n in range(3):
        picture(root / f"{n}.png", n)
    _ = data(root).splits
    (first,) = caches(root)
    before = (first / "images.npy").stat().st_mtime_ns
    _ = data(root).splits
    assert (first / "images.npy").stat().st_mtime_ns == before

    changed = picture(root / "1.png", 77, size=(12, 10))
    os.utime(root / "1.png", ns=(1, 1))
    assert np.array_equal(data(root).splits.train.pixels[1].numpy(), np.moveaxis(changed, -1, 0))
    assert len(caches(root)) == 2


def test_the_cache_may_be_elsewhere(root: Path, tmp_path: Path) -> None:
    picture(root / "0.png")
    _ = data(root, cache=str(tmp_path / "fast")).splits
    assert not (root.parent / CACHE).exists()
    assert len(list((tmp_path / "fast").glob("photos-*/images.npy"))) == 1


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_every_size_becomes_the_one_asked_for(fit: str, root: Path) -> None:
    for n, size in enumerate([(40, 20), (20, 40), (8, 8), (5, 3)]):
        picture(root / f"{n}.png", n, size=size)
    train = data(root, size=[8, 16], fit=fit).splits.train

    assert train.pixels.shape == (4, 3, 8, 16)
    assert (train.pixels[0, :, :, 0] == 0).all() == (fit == "pad")


def test_what_pictures_may_be_is_made_rgb_or_grey_and_upright(root: Path) -> None:
    values = picture(root / "0.png")
    Image.fromarray(values).convert("CMYK").save(root / "1.tif")
    Image.fromarray(values).quantize(256).save(root / "2.png")
    clear = np.concatenate([values, np.full((12, 10, 1), 0, np.uint8)], -1)
    Image.fromarray(clear, "RGBA").save(root / "3.png")
    turned = Image.fromarray(np.rot90(values))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    turned.save(root / "4.png", exif=exif)
    rgb = data(root).splits.train.pixels.numpy()
    grey = data(root, colour="grey").splits.train.pixels.numpy()

    original = np.moveaxis(values, -1, 0)
    assert np.array_equal(rgb[0], original)
    assert np.abs(rgb[1].astype(int) - original).max() <= 1
    assert np.abs(rgb[2].astype(int) - original).mean() < 20
    assert (rgb[3] == 255).all()
    assert np.array_equal(rgb[4], original)
    assert np.array_equal(grey[0, 0], np.asarray(Image.fromarray(values).convert("L")))


@pytest.mark.parametrize(
    ("values", "scale", "x"),
    [
        (np.array([[0, 4095], [1024, 2048]], np.uint16), [0.0, 4095.0], [0, 1, 1024 / 4095, 2048 / 4095]),
        (np.array([[0.25, 1.0], [0.5, 0.0]], np.float32), "none", [0.25, 1, 0.5, 0]),
        (np.array([[0, 255], [7, 100]], np.int32), [0.0, 255.0], [0, 1, 7 / 255, 100 / 255]),
    ],
)
def test_more_than_8_bits_are_kept(values: np.ndarray, scale: object, x: list[float], root: Path) -> None:
    root.mkdir()
    Image.fromarray(values).save(root / "0.tif")
    train = data(root, colour="grey", scale=scale).splits.train
    assert train.x.flatten().tolist() == pytest.approx(x)


def test_a_value_that_is_no_number_is_damage(root: Path) -> None:
    root.mkdir()
    for number, value in enumerate((0.5, np.nan, np.inf)):
        Image.fromarray(np.array([[value, 0.5]], np.float32)).save(root / f"{number}.tif")
    with pytest.raises(DataError, match=r"2 files .*: 1.tif has values that are NaN or infinite; 2.tif has"):
        _ = data(root, colour="grey").splits
    assert sorted(path.name for path in root.parent.iterdir()) == ["photos"]


def test_12_bits_in_16_are_refused_with_their_range(root: Path) -> None:
    root.mkdir()
    Image.fromarray(np.array([[12, 4095]], np.uint16)).save(root / "0.png")
    with pytest.raises(DataError, match=r"images from 12 to 4095: say data.scale=\[12,4095\]"):
        _ = data(root, colour="grey").outline()
    assert sorted(path.name for path in root.parent.iterdir()) == ["photos"]


class TestDamagedFiles:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "photos"
        for n in range(20):
            picture(root / ("cat" if n % 2 else "dog") / f"{n:02}.png", n)
        for n in range(12):
            (root / "cat" / f"text{n:02}.png").write_text("no image")
        frames = [Image.fromarray(np.full((12, 10), n, np.uint8)) for n in (0, 200)]
        frames[0].save(root / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
        cut = (root / "dog" / "00.png").read_bytes()
        (root / "dog" / "zcut.png").write_bytes(cut[: len(cut) // 2])
        return root

    def test_are_named_all_at_once_and_nothing_is_left_behind(self, root: Path) -> None:
        with pytest.raises(DataError) as caught:
            _ = data(root).splits

        message = str(caught.value)
        assert re.match(r"14 files in .* cannot be taken: cat/text00.png cannot be read as an image", message)
        assert message.count("text") == 10
        assert message.endswith("and 4 more: data.damaged=skip (--damaged skip) leaves them out")
        assert "\n" not in message
        assert sorted(path.name for path in root.parent.iterdir()) == ["photos"]

    def test_are_left_out_on_request_with_their_labels(self, root: Path) -> None:
        found = data(root, damaged="skip", stratify=True)
        train = found.splits.train
        (cache,) = caches(root)
        listed = [json.loads(line) for line in (cache / "files.txt").read_text().splitlines()]

        assert len(train) == len(listed) == 20
        for row, path in enumerate(listed):
            assert found.names[train.labels[row]] == path.split("/")[0]
            assert np.array_equal(train.pixels[row].numpy(), np.moveaxis(np.asarray(Image.open(root / path)), -1, 0))

    def test_of_other_sizes_are_told_of_data_size(self, tmp_path: Path) -> None:
        root = tmp_path / "sizes"
        for n in range(101):
            picture(root / f"{n:03}.png", n, size=(8, 8 + n // 100))
        with pytest.raises(DataError, match=r"1 file in .* 100.png is 9 x 8, and the first image 8 x 8.*data.size=64"):
            _ = data(root).splits


def stratified_without_labels(root: Path) -> list[str]:
    picture(root / "a.png")
    return ["data.stratify=true"]


def weights_of_another_label(root: Path) -> list[str]:
    return ["data.weights={bird: 2}"]


def splits_that_share_a_row(root: Path) -> list[str]:
    np.save(root / "a.npy", [0, 1])
    np.save(root / "b.npy", [1, 2])
    return ["data.split_files={train: a.npy, test: b.npy}"]


def no_groups(root: Path) -> list[str]:
    return ["data.groups=patients.txt"]


def several_sizes(root: Path) -> list[str]:
    picture(root / "cat" / "x.png", 0, size=(8, 20))
    return ["data.size=null"]


def counts_of_pixels(root: Path) -> list[str]:
    return ["loss=poisson"]


def levels_of_floats(root: Path) -> list[str]:
    for path in root.rglob("*.png"):
        path.unlink()
    for n in range(30):
        Image.fromarray(np.random.default_rng(n).random((8, 8), np.float32)).save(root / f"{n}.tif")
    return ["loss=discretized_logistic"]


def a_bernoulli_of_16_bits(root: Path) -> list[str]:
    levels_of_floats(root)
    for n in range(30):
        Image.fromarray(np.full((8, 8), 1000 * n, np.uint16)).save(root / f"{n}.tif")
    return ["loss=bce", "data.scale=none"]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (stratified_without_labels, r"data.stratify=true needs labels"),
        (weights_of_another_label, r"data.weights: no row has the label bird"),
        (splits_that_share_a_row, r"share rows, such as row 1"),
        (no_groups, r"patients.txt is not there"),
        (several_sizes, r"images of 2 sizes, 10 x 12 \(cat/00.png\), 20 x 8 \(cat/x.png\): data.size=64"),
        (counts_of_pixels, r"the loss is of counts"),
        (levels_of_floats, r"the loss is of the 256 levels of uint8 pixels, and the data have values from 0.0"),
        (a_bernoulli_of_16_bits, r"is of values in \[0, 1\], and the data have values from 0 to 2.9e\+04"),
    ],
)
def test_what_names_and_first_images_tell_is_refused_before_any_is_decoded(
    mistake: Callable[[Path], list[str]], message: str, root: Path, tmp_path: Path
) -> None:
    for n in range(30):
        picture(root / "cat" / f"{n:02}.png", n)
        picture(root / "dog" / f"{n:02}.png", n)
    words = ["data=image_folder", f"data.root={root}", "data.size=8", "data.colour=grey", *mistake(root)]
    with pytest.raises((DataError, vaelab.ConfigError), match=message):
        vaelab.train(vaelab.compose(words), folder=tmp_path / "run")
    assert sorted(path.name for path in root.parent.iterdir()) == ["photos"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, r"is not there \(data.root="),
        (lambda root: root.mkdir(), r"has no image files in it, at any depth"),
        (lambda root: root.write_text("x"), r"is a file: data.root is a folder"),
        (lambda root: (root.mkdir(), (root / "a.png").write_text("x")), r"no image that can be read: a.png is damaged"),
    ],
)
def test_a_root_that_is_no_folder_of_images_is_refused(make: object, message: str, root: Path) -> None:
    make(root)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        _ = data(root).shape


def test_for_a_run_folder_nothing_is_decoded(root: Path) -> None:
    picture(root / "a.png")
    found = data(root)
    found.fetch = False
    with pytest.raises(DataError, match="nothing is written to where a run folder says"):
        _ = found.splits
    assert not (root.parent / CACHE).exists()


def test_a_class_alone_conditions_nothing(root: Path, tmp_path: Path) -> None:
    for n in range(4):
        picture(root / "cat" / f"{n}.png", n)
    config = vaelab.compose(["data=image_folder", f"data.root={root}", "conditional=true"])
    with pytest.raises(vaelab.ConfigError, match="have only cat"):
        vaelab.train(config, folder=tmp_path / "run")


DECODE = """
import sys
from vaelab.data import ImageFolder, importing
importing.MOST_OF_BLOCK = 10
train = ImageFolder(root=sys.argv[1], batch_size=1, validation=0, test=0).splits.train
print(len(train))
"""


@pytest.mark.slow
def test_decoding_that_was_killed_goes_on_where_it_was(root: Path) -> None:
    wanted = np.stack([picture(root / f"{n:04}.png", n) for n in range(3000)])
    with subprocess.Popen([sys.executable, "-c", DECODE, root]) as process:
        while not any(path.stat().st_size > 500 for path in root.parent.glob(f"{CACHE}/*.part/done.txt")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    (part,) = caches(root)
    before = (part / "done.txt").read_text().splitlines()[:-1]
    assert 2 < len(before) < 300
    kept = {json.loads(line)["start"] for line in before} - {0}  # the first image says how large all are
    for start in kept:  # so that decoding them again would show
        for n in range(start, start + 10):
            stat = (root / f"{n:04}.png").stat()
            (root / f"{n:04}.png").write_bytes(bytes(stat.st_size))
            os.utime(root / f"{n:04}.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = subprocess.run([sys.executable, "-c", DECODE, root], capture_output=True, text=True, check=True)

    assert result.stdout == "3000\n"
    assert np.array_equal(np.load(caches(root)[0] / "images.npy"), np.moveaxis(wanted, -1, 1))
    assert not list(root.parent.glob(f"{CACHE}/*.part"))
