"""Images of one's own, read from a mapped file."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaelab
from vaelab.data import ArrayData, Batches, Form
from vaelab.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty images of 5 x 4 whose pixels are the image's number, as is the label."""
    numbers = np.arange(40)
    np.save(tmp_path / "images.npy", np.broadcast_to(numbers.astype(np.uint8)[:, None, None], (40, 5, 4)))
    np.save(tmp_path / "labels.npy", numbers.astype(np.int32))
    return tmp_path


def test_every_image_is_in_one_split_and_keeps_its_label(root: Path) -> None:
    data = ArrayData(root=str(root), validation=7, test=9, batch_size=8)

    assert (data.shape, data.classes) == ((1, 5, 4), 40)
    assert [len(images) for images in data.splits] == [24, 7, 9]
    assert sorted(torch.cat([images.labels for images in data.splits]).tolist()) == list(range(40))
    for images in data.splits:
        assert images.pixels.shape == (len(images), 1, 5, 4)
        assert images.pixels[:, 0, 0, 0].long().equal(images.labels)


def test_no_split_is_a_copy(root: Path) -> None:
    splits = ArrayData(root=str(root), validation=7, test=9, batch_size=8).splits

    assert len({id(images.store) for images in splits}) == 1


def test_splits_are_a_function_of_the_seed(root: Path) -> None:
    first, again, other = (
        ArrayData(root=str(root), test=9, seed=seed, batch_size=8).splits.test.labels for seed in (0, 0, 1)
    )

    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("binarize", ["none", "fixed", "dynamic"])
def test_batches_are_those_of_the_same_images_in_memory(root: Path, binarize: str) -> None:
    mapped = ArrayData(root=str(root), test=9, binarize=binarize, batch_size=8)  # type: ignore[arg-type]
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
    data = ArrayData(root=str(tmp_path), validation=0, test=2, batch_size=2)

    assert data.shape == (3, 8, 9)
    assert data.splits.train.labels.tolist() == [0] * 4
    assert data.classes == 0


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "int16", "uint16", "int64", "bool"])
@pytest.mark.parametrize("event", [(5,), (2, 40), (3, 8, 6), (2, 4, 4, 4)], ids=str)
def test_rows_of_any_rank_and_type_reach_a_batch_as_they_are(
    dtype: str, event: tuple[int, ...], tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, (30, *event)).astype(dtype)
    np.save(tmp_path / "images.npy", values)
    data = ArrayData(root=str(tmp_path), scale="none", channels="first", validation=0, test=0, batch_size=30)
    (batch,) = Batches(data.splits.train, batch_size=30)

    assert data.shape == event
    assert batch.images.dtype == torch.float32
    assert np.array_equal(batch.images.numpy(), values.astype(np.float32))
    assert data.form.values == "counts"


@pytest.mark.parametrize(
    ("shape", "dtype", "channels", "event", "said"),
    [
        ((9, 7, 5), "uint8", "auto", (1, 7, 5), "one channel"),
        ((9, 32, 32, 3), "uint8", "auto", (3, 32, 32), "channels last"),
        ((9, 3, 32, 32), "uint8", "auto", (3, 32, 32), None),
        ((9, 3, 32, 3), "uint8", "auto", (3, 32, 3), "channels first"),
        ((9, 3, 32, 3), "uint8", "last", (3, 3, 32), None),
        ((9, 8, 8, 1), "float32", "auto", (1, 8, 8), "channels last"),
        ((9, 1, 200), "float32", "auto", (1, 200), "channels first"),
        ((9, 28, 28), "float32", "auto", (1, 28, 28), "one channel"),
        ((9, 200, 2), "float32", "last", (2, 200), None),
        ((9, 6, 6, 6, 1), "float32", "auto", (1, 6, 6, 6), "channels last"),
        ((9, 6, 6, 6), "float32", "none", (1, 6, 6, 6), None),
        ((9, 11), "float32", "auto", (11,), None),
    ],
)
def test_what_an_axis_is_taken_for_is_said(
    shape: tuple[int, ...], dtype: str, channels: str, event: tuple[int, ...], said: str | None, tmp_path: Path
) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "images.npy", values)
    data = ArrayData(root=str(tmp_path), channels=channels, scale="none", validation=0, test=0, batch_size=2)  # type: ignore[arg-type]

    assert data.shape == event
    assert [said in note for note in data.notes] == ([True] if said else [])
    moved = np.moveaxis(values, -1, 1) if said == "channels last" or channels == "last" else values
    assert np.array_equal(data.splits.train.pixels.numpy().reshape(moved.shape), moved)


def test_an_array_in_several_files_is_one_array(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8)
    for number, part in enumerate(np.split(values, [7, 30])):
        np.save(tmp_path / f"images-{number}.npy", part)
    train = ArrayData(root=str(tmp_path), validation=0, test=0, batch_size=8).splits.train
    numbers = torch.tensor([49, 0, 30, 6, 7, 29, 7])

    assert np.array_equal(train.pixels[:, 0].numpy(), values)
    assert np.array_equal(train.take(numbers).pixels[:, 0].numpy(), values[numbers])


def test_folders_of_splits_are_the_splits(tmp_path: Path) -> None:
    for name, size in {"train": 12, "val": 3, "test": 5}.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "images.npy", np.full((size, 4, 4), size, np.uint8))
        np.save(tmp_path / name / "labels.npy", np.array(["cat", "dog", "cat"] * 4)[:size])
    data = ArrayData(root=str(tmp_path), batch_size=2)

    assert [len(images) for images in data.splits] == [12, 3, 5]
    assert [images.pixels.unique().tolist() for images in data.splits] == [[12], [3], [5]]
    assert data.names == ("cat", "dog")
    assert data.splits.validation.labels.tolist() == [0, 1, 0]


class TestLabels:
    def data(self, folder: Path, labels: np.ndarray) -> ArrayData:
        np.save(folder / "images.npy", np.zeros((len(labels), 4, 4), np.uint8))
        np.save(folder / "labels.npy", labels)
        return ArrayData(root=str(folder), validation=0, test=0, batch_size=1)

    @pytest.mark.parametrize(
        ("labels", "names", "numbers"),
        [
            ([3, 100, 200, 3], ("3", "100", "200"), [0, 1, 2, 0]),
            ([-1, 1, -1, 1], ("-1", "1"), [0, 1, 0, 1]),
            (["dog", "cat", "dog", "ox"], ("cat", "dog", "ox"), [1, 0, 1, 2]),
            ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
        ],
    )
    def test_are_the_classes_there_are_under_their_names(
        self, labels: list[object], names: tuple[str, ...], numbers: list[int], tmp_path: Path
    ) -> None:
        data = self.data(tmp_path, np.array(labels))

        assert (data.names, data.classes) == (names, len(names))
        assert data.splits.train.labels.tolist() == numbers

    def test_have_the_names_of_names_txt(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
        assert self.data(tmp_path, np.array([2, 0, 2])).names == ("ant", "bee", "cow")

    def test_that_names_txt_does_not_name_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("ant\nbee\n")
        with pytest.raises(DataError, match=r"names 2 labels, and .* has 0 to 2"):
            _ = self.data(tmp_path, np.array([2, 0, 2])).names


class TestScale:
    def data(self, folder: Path, values: np.ndarray, scale: object, **options: object) -> ArrayData:
        np.save(folder / "images.npy", values)
        return ArrayData(root=str(folder), scale=scale, validation=0, batch_size=2, **options)  # type: ignore[arg-type]

    def test_standardise_is_by_the_training_rows_and_column_by_column(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        values = generator.normal([1e9, 5, 0], [3, 0.1, 20], (400, 3))
        data = self.data(tmp_path, values, "standardise", test=0.25)
        train, _, test = data.splits

        torch.testing.assert_close(train.x.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(train.x.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
        assert 0.001 < test.x.mean(0).abs().max() < 0.5
        torch.testing.assert_close(data.form.scaling.undo(train.x.double()), train.pixels, rtol=1e-6, atol=0)  # type: ignore[union-attr]

    def test_standardise_takes_the_channels_of_images_each_by_itself(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).normal([[[[0]], [[50]]]], [[[[1]], [[9]]]], (100, 2, 6, 5)).astype("float32")
        x = self.data(tmp_path, values, "standardise", test=0).splits.train.x

        torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)

    def test_a_constant_column_becomes_zeros(self, tmp_path: Path) -> None:
        x = self.data(tmp_path, np.full((9, 2), 7.3), "standardise", test=0).splits.train.x
        assert x.abs().max() < 1e-12

    def test_a_range_becomes_0_to_1_and_what_is_outside_is_said(self, tmp_path: Path) -> None:
        values = np.linspace(-2, 6, 30, dtype=np.float32).reshape(10, 3)
        data = self.data(tmp_path, values, [-2.0, 2.0], test=0)

        torch.testing.assert_close(data.splits.train.x, torch.from_numpy((values + 2) / 4))
        assert data.form.span == pytest.approx((0, 2))
        assert "values go from -2 to 6, so from 0 to 2" in data.notes[-1]

    def test_whole_numbers_without_one_are_refused_with_their_range(self, tmp_path: Path) -> None:
        data = self.data(tmp_path, np.arange(12, 42).reshape(10, 3).astype("uint16"), "auto", test=0)
        with pytest.raises(DataError, match=r"whole numbers from 12 to 41: say data.scale=\[12,41\]"):
            _ = data.splits

    def test_masks_of_uint8_are_said(self, tmp_path: Path) -> None:
        data = self.data(tmp_path, np.eye(10, dtype=np.uint8)[:, None], "auto", test=0)
        _ = data.splits
        assert "largest of the uint8 values is 1" in data.notes[-1]

    def test_nan_is_refused_with_its_row(self, tmp_path: Path) -> None:
        values = np.zeros((10, 3), np.float32)
        values[7, 1] = np.nan
        with pytest.raises(DataError, match="NaN or infinite, first in row 7"):
            _ = self.data(tmp_path, values, "none", test=0).splits

    def test_a_run_keeps_it_whatever_the_data_become(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).normal(3, 2, (40, 3))
        first = self.data(tmp_path, values, "standardise", test=0)
        assert first.splits.train.x.std() < 1.1
        first_rows = first.form.scaling.apply(torch.from_numpy(values[:3]))  # type: ignore[union-attr]
        kept = Form.from_json(json.loads(json.dumps(first.form.to_json())), "data.json")
        later = self.data(tmp_path, values * 2, "standardise", test=0)
        later.recall(kept)

        scaling = later.splits.train.scaling
        torch.testing.assert_close(scaling.apply(torch.from_numpy(values))[:3], first_rows)
        assert later.splits.train.x.std() > 1.9


class TestSplits:
    def data(self, folder: Path, **options: object) -> ArrayData:
        np.save(folder / "images.npy", np.arange(60, dtype=np.float32)[:, None])
        np.save(folder / "labels.npy", np.arange(60) // 40)  # 40 of one, 20 of the other
        return ArrayData(root=str(folder), batch_size=2, **options)  # type: ignore[arg-type]

    def rows(self, data: ArrayData) -> list[list[int]]:
        return [images.x.flatten().long().tolist() for images in data.splits]

    def test_shares_are_of_the_rows(self, tmp_path: Path) -> None:
        train, validation, test = self.rows(self.data(tmp_path, validation=0.05, test=0.2))
        assert [len(train), len(validation), len(test)] == [45, 3, 12]
        assert sorted(train + validation + test) == list(range(60))

    def test_files_of_row_numbers_are_the_splits(self, tmp_path: Path) -> None:
        np.save(tmp_path / "mine.npy", np.array([5, 3, 59]))
        (tmp_path / "val.txt").write_text("7\n8\n")
        train, validation, test = self.rows(
            self.data(tmp_path, split_files={"test": "mine.npy", "validation": "val.txt"})
        )
        assert (validation, test) == ([7, 8], [5, 3, 59])
        assert train == [row for row in range(60) if row not in (5, 3, 59, 7, 8)]

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ([7, 9], r"test.txt and val.txt share rows, such as row 7"),
            ([60], r"has row 60: rows are numbered 0 to 59"),
            ([1, 1], r"has a row twice"),
            (["x"], r"should be a list of row numbers"),
        ],
    )
    def test_files_that_are_no_splits_are_refused(self, numbers: list[object], message: str, tmp_path: Path) -> None:
        (tmp_path / "val.txt").write_text("7\n8\n")
        (tmp_path / "test.txt").write_text("".join(f"{number}\n" for number in numbers))
        data = self.data(tmp_path, split_files={"validation": "val.txt", "test": "test.txt"})
        with pytest.raises(DataError, match=message):
            _ = data.splits

    def test_stratified_ones_have_every_label_as_often(self, tmp_path: Path) -> None:
        data = self.data(tmp_path, stratify=True, validation=0.1, test=0.2)
        shares = [images.labels.bincount(minlength=2).tolist() for images in data.splits]
        assert shares == [[28, 14], [4, 2], [8, 4]]

    def test_no_group_is_torn_apart(self, tmp_path: Path) -> None:
        patients = np.array([f"p{row // 5}" for row in range(60)])
        np.save(tmp_path / "patients.npy", patients)
        parts = self.rows(self.data(tmp_path, groups="patients.npy", validation=0.1, test=0.2))
        of_split = [set(patients[rows]) for rows in parts]

        assert not of_split[0] & of_split[1]
        assert not of_split[0] & of_split[2]
        assert not of_split[1] & of_split[2]
        assert [len(rows) for rows in parts] == [35, 10, 15]

    def test_two_ways_at_once_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"data.stratify and data.groups both say"):
            self.data(tmp_path, stratify=True, groups="patients.npy")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (None, None, r"images.npy is not there \(data.root=.*numpy.save"),
        (np.zeros((9, 4, 4), np.complex64), None, r"holds complex64: rows are numbers"),
        (np.zeros(9, np.uint8), None, r"of shape \(9,\).*\(N, C, H, W\)"),
        (np.zeros((0, 4, 4), np.uint8), None, r"of shape \(0, 4, 4\)"),
        (np.asfortranarray(np.zeros((9, 4, 4), np.uint8)), None, "Fortran"),
        (np.zeros((9, 4, 4), np.uint8), np.zeros(8, np.int64), r"labels.npy holds int64 of shape \(8,\).* 9 rows"),
        (np.zeros((9, 4, 4), np.uint8), np.zeros(9), "whole numbers"),
        (np.zeros((2, 4, 4), np.uint8), None, "leave nothing to train on: there are 2 rows"),
        ("no array", None, "is not an array that numpy.save wrote"),
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
        _ = ArrayData(root=str(tmp_path), test=2, batch_size=2).splits


def test_image_files_in_place_of_an_array_are_pointed_to_the_option_that_takes_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a" / "b.png")
    with pytest.raises(DataError, match=r"image files, such as a/b.png: data=image_folder data.root="):
        _ = ArrayData(root=str(tmp_path)).shape


def test_a_folder_in_place_of_the_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "images.npy").mkdir()
    with pytest.raises(DataError, match=r"images\.npy cannot be read: Is a directory"):
        _ = ArrayData(root=str(tmp_path), test=2, batch_size=2).splits


@pytest.mark.parametrize("channels", [2, 5])
def test_images_of_any_number_of_channels_are_trained_on_and_drawn(channels: int, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (40, channels, 8, 8), np.uint8))
    overrides = ["data=array", f"data.root={tmp_path}", "data.test=8", "data.batch_size=8", "trainer=debug"]
    run = vaelab.train(vaelab.compose([*overrides, "trainer.max_epochs=1"]), folder=tmp_path / "run")

    assert [figure.name for figure in run.figures] == ["reconstructions.png", "samples.png"]


def test_drawing_more_images_than_there_is_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ArrayData(root=str(tmp_path), test=2, batch_size=2, binarize="fixed")
    np.save(tmp_path / "images.npy", np.zeros((9, 4, 4), np.uint8))
    monkeypatch.setattr(torch, "empty", lambda *sizes, **kinds: torch.zeros(2**62))
    with pytest.raises(DataError, match=r"6 images .* do not fit the memory: data\.binarize=dynamic"):
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


class TestLabelsThatAreChosen:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Rows whose value tells their label: 10 of 3, 20 of 100, 30 of 200."""
        labels = np.repeat([3, 100, 200], [10, 20, 30])
        np.save(tmp_path / "images.npy", np.broadcast_to(labels.astype(np.uint8)[:, None, None], (60, 4, 4)))
        np.save(tmp_path / "labels.npy", labels)
        return tmp_path

    @pytest.mark.parametrize(
        "options", [{}, {"stratify": True}, {"groups": "g.txt"}, {"split_files": {"test": "t.txt"}}]
    )
    def test_are_the_only_ones_in_every_split(self, root: Path, options: dict[str, object]) -> None:
        (root / "g.txt").write_text("\n".join(map(str, range(60))))
        (root / "t.txt").write_text("0\n12\n59")
        data = ArrayData(root=str(root), batch_size=1, only=["200", "3"], **options)  # type: ignore[arg-type]
        assert data.names == ("200", "3")
        assert sum(map(len, data.splits)) == 40
        for split in data.splits:
            values = split.pixels[:, 0, 0, 0]
            assert values.tolist() == [int(data.names[label]) for label in split.labels]

    @pytest.mark.parametrize(
        ("weights", "counts"),
        [("balance", [30, 30, 30]), ({"3": 2.5, "200": 0.5}, [25, 20, 15]), ({"100": 0}, [10, 0, 30])],
    )
    def test_are_seen_as_often_as_their_weight_says(self, root: Path, weights: object, counts: list[int]) -> None:
        options = {"validation": 0, "test": 0, "batch_size": 1, "weights": weights}
        train = ArrayData(root=str(root), **options).splits.train  # type: ignore[arg-type]
        assert train.labels.bincount(minlength=3).tolist() == counts
        assert len(train.rows(torch.arange(len(train))).unique()) == sum(
            min(a, b) for a, b in zip(counts, (10, 20, 30), strict=True)
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"only": ["4"]}, "no row has the label 4"),
            ({"weights": {"20": 2}}, r"no row has the label 20; did you mean 200"),
        ],
    )
    def test_are_refused_where_there_are_none(self, root: Path, options: dict[str, object], message: str) -> None:
        with pytest.raises(DataError, match=message):
            _ = ArrayData(root=str(root), batch_size=1, **options).splits  # type: ignore[arg-type]
