"""`vaelab import`: arrays, HDF5 and datasets, copied a block at a time."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaelab.cli.main import main
from vaelab.data import ArrayData, array_import

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), np.uint8)
LABELS = np.arange(40) % 4
Write = Callable[[Path, dict[str, np.ndarray]], None]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["import", *map(str, arguments)])
    return int(caught.value.code or 0)


def data(folder: Path, **options: object) -> ArrayData:
    return ArrayData(root=str(folder), batch_size=1, **{"validation": 0, "test": 0, **options})  # type: ignore[arg-type]


def hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values


def npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path, **{name.replace("/", "_"): values for name, values in arrays.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [npz, hdf5])
@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train/images", "train/labels", "test/images", "test/labels")],
)
def test_splits_and_labels_are_found_by_their_names(names: tuple[str, ...], write: Write, tmp_path: Path) -> None:
    path = tmp_path / f"set.{'npz' if write is npz else 'h5'}"
    write(path, dict(zip(names, (PIXELS[:30], LABELS[:30, None], PIXELS[30:], LABELS[30:, None]), strict=True)))
    assert run(path, tmp_path / "out") == 0
    found = data(tmp_path / "out", validation=5)

    assert [len(split) for split in found.splits] == [25, 5, 10]
    assert found.shape == (3, 6, 5)
    assert np.array_equal(found.splits.test.pixels.numpy(), np.moveaxis(PIXELS[30:], -1, 1))
    assert found.splits.test.labels.tolist() == LABELS[30:].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", path.name]


@pytest.mark.parametrize("write", [npz, hdf5])
def test_other_arrays_are_named(write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"set.{'npz' if write is npz else 'h5'}"
    write(path, {"scans": PIXELS.astype(">f4"), "masks": PIXELS, "kind": np.array(["a", "b"])[LABELS % 2]})

    assert run(path, tmp_path / "out") == 2
    assert "--key NAME, of" in capfd.readouterr().err
    assert run(path, tmp_path / "out", "--key", "scan") == 2
    assert "did you mean scans?" in capfd.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert run(path, tmp_path / "out", "--key", "scans", "--labels", "kind") == 0
    found = data(tmp_path / "out")
    assert found.names == ("a", "b")
    assert np.array_equal(found.splits.train.pixels.numpy(), np.moveaxis(PIXELS, -1, 1).astype("f4"))


def test_an_array_is_copied_with_labels_in_any_order_of_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(PIXELS[..., 0]))
    np.save(tmp_path / "b.npy", LABELS)
    assert run(tmp_path / "a.npy", tmp_path / "deep" / "out", "--labels", tmp_path / "b.npy") == 0
    train = data(tmp_path / "deep" / "out").splits.train
    assert np.array_equal(train.pixels[:, 0].numpy(), PIXELS[..., 0])
    assert train.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.npy"])
def test_an_interrupted_import_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, blocks = tmp_path / name, []
    {"a.npz": npz, "a.h5": hdf5}.get(name, lambda path, arrays: np.save(path, arrays["x"]))(path, {"x": PIXELS})
    monkeypatch.setattr(array_import, "BLOCK", 7 * PIXELS[0].nbytes)
    read = array_import._read

    def interrupted(rows: array_import.Blocks, where: str) -> array_import.Blocks:
        for block in read(rows, where):
            if len(blocks) == 3:
                raise KeyboardInterrupt
            blocks.append(block[0])
            yield block

    def seen(rows: array_import.Blocks, where: str) -> array_import.Blocks:
        for block in read(rows, where):
            blocks.append(block[0])
            yield block

    monkeypatch.setattr(array_import, "_read", interrupted)
    assert run(path, tmp_path / "out") == 130
    log = tmp_path / "out.part" / "done.txt"
    assert [json.loads(line)["start"] for line in log.read_text().splitlines()] == [0, 7, 14]
    log.write_text(log.read_text() + '{"start": 21, "cou')  # the line that was being written
    blocks[:] = []
    monkeypatch.setattr(array_import, "_read", seen)
    assert run(path, tmp_path / "out") == 0
    assert sum(map(len, blocks)) == 19
    assert np.array_equal(np.load(tmp_path / "out" / "images.npy"), PIXELS)
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"no zip", "cannot be read"),
        ("a.npy", b"no array", "not an array that numpy.save wrote"),
        ("a.h5", b"nothing", "not an HDF5 file"),
        ("a.parquet", b"nothing", "cannot be read as a dataset"),
        ("b.npz", None, "is not there"),
        ("b.h5", None, "is not there"),
        ("b.parquet", None, "is not there"),
        ("photos", None, "is not there"),
    ],
)
def test_what_cannot_be_read_leaves_nothing(
    name: str, content: bytes | None, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert run(path, tmp_path / "deep" / "out") == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "deep").exists()


def test_a_file_that_ends_early_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    npz(tmp_path / "a.npz", {"images": np.random.default_rng(0).integers(0, 256, (400, 30, 30), np.uint8)})
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[100_000:100_100] = bytes(100)
    (tmp_path / "a.npz").write_bytes(content)
    assert run(tmp_path / "a.npz", tmp_path / "out") == 2
    assert "cannot be read" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_folder_that_is_there_is_not_written_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    assert run(tmp_path / "a.npy", tmp_path) == 2
    assert "is there already" in capfd.readouterr().err


def test_images_in_a_folder_become_an_array(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.fromarray(PIXELS[number]).save(tmp_path / "photos" / label / "0.png")
    assert run(tmp_path / "photos", tmp_path / "out", "--size", "4,4", "--colour", "grey") == 0
    assert "vaelab train data=array data.root=" in capfd.readouterr().out
    found = data(tmp_path / "out")
    assert (found.shape, found.names, len(found.splits.train)) == ((1, 4, 4), ("cat", "dog"), 2)
    assert run(tmp_path / "photos", tmp_path / "more", "--size", "4x4") == 2
    assert "--size 4x4: a side of" in capfd.readouterr().err


class TestHuggingFace:
    @pytest.fixture
    def photos(self, tmp_path: Path) -> Path:
        for number, (split, label) in enumerate([(s, c) for s in ("train", "test") for c in ("cat", "dog")] * 3):
            path = tmp_path / "photos" / split / label / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[number]).save(path)
        return tmp_path / "photos"

    def test_a_folder_of_images_a_saved_dataset_and_a_parquet(self, photos: Path, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        assert run(f"hf:{photos}", tmp_path / "a") == 0
        loaded = datasets.load_dataset(str(photos), cache_dir=str(tmp_path / "cache"))
        loaded.save_to_disk(tmp_path / "saved")
        assert run(tmp_path / "saved", tmp_path / "b") == 0
        loaded["train"].to_parquet(tmp_path / "c.parquet")
        assert run(tmp_path / "c.parquet", tmp_path / "c") == 0

        for folder in ("a", "b"):
            found = data(tmp_path / folder)
            assert [len(split) for split in found.splits] == [6, 0, 6]
            assert found.names == ("cat", "dog")
            for split, first in ((found.splits.train, 0), (found.splits.test, 2)):
                for row, label in zip(split.pixels.numpy(), split.labels.tolist(), strict=True):
                    numbers = [n for n in range(12) if np.array_equal(row, np.moveaxis(PIXELS[n], -1, 0))]
                    assert numbers
                    assert numbers[0] % 2 == label
                    assert numbers[0] % 4 in (first, first + 1)
        assert np.array_equal(np.load(tmp_path / "c" / "images.npy"), np.load(tmp_path / "a" / "images.npy")[:6])
        assert not list(tmp_path.glob("*.part"))

    def test_columns_of_numbers_and_damaged_images(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        datasets = pytest.importorskip("datasets")
        Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
        contents = (tmp_path / "a.png").read_bytes(), b"no image", None
        images = [content and {"bytes": content, "path": None} for content in contents]
        rows = {"signal": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "kind": ["a", "b", "a"], "picture": images}
        features = datasets.Features(
            signal=datasets.List(datasets.Value("float32")), kind=datasets.Value("string"), picture=datasets.Image()
        )
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")

        assert run(tmp_path / "t.parquet", tmp_path / "a", "--key", "signal", "--labels", "kind") == 0
        assert data(tmp_path / "a").splits.train.pixels.tolist() == rows["signal"]
        assert data(tmp_path / "a").names == ("a", "b")
        assert run(tmp_path / "t.parquet", tmp_path / "b") == 2
        assert "2 files in" in (error := capfd.readouterr().err)
        assert "row 1 cannot be read as an image" in error
        assert not (tmp_path / "b").exists()
        assert run(tmp_path / "t.parquet", tmp_path / "b", "--damaged", "skip", "--labels", "kind") == 0
        assert len(data(tmp_path / "b").splits.train) == 1
        assert data(tmp_path / "b").names == ("a",)
