import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.data import Form, Scaling
from vaelab.errors import DataError
from vaelab.looking.own_images import read_images, read_own

GREY, COLOUR = (1, 4, 6), (3, 4, 6)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)


def saved(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_an_image_that_fits_is_taken_to_the_bit(pixels, tmp_path):
    read = read_images([saved(tmp_path / "a.png", pixels)], GREY)

    assert read.images.equal(torch.from_numpy(pixels)[None, None] / 255)
    assert (read.names, read.labels) == (["a.png"], None)
    assert read.notes == ["1 image of 6 x 4: not changed"]


def test_a_colour_image_is_made_grey_for_a_grey_model_by_luma(tmp_path):
    red_green_blue = np.zeros((4, 6, 3), np.uint8)
    red_green_blue[:, 0:2, 0] = red_green_blue[:, 2:4, 1] = red_green_blue[:, 4:6, 2] = 255

    read = read_images([saved(tmp_path / "a.png", red_green_blue)], GREY)

    torch.testing.assert_close(read.images[0, 0, 0], torch.tensor([0.299, 0.299, 0.587, 0.587, 0.114, 0.114]))
    assert read.notes == ["1 image of 6 x 4 in colour: made grey"]
    assert (
        read_images([tmp_path / "a.png"], COLOUR).images[0].equal(torch.from_numpy(red_green_blue).movedim(-1, 0) / 255)
    )


def test_a_grey_image_gets_equal_channels_for_a_model_of_colours(pixels, tmp_path):
    read = read_images([saved(tmp_path / "a.png", pixels)], COLOUR)

    assert read.images[0].equal((torch.from_numpy(pixels) / 255).expand(3, 4, 6))
    assert read.notes == ["1 image of 6 x 4: repeated in 3 channels"]


def test_an_image_of_another_size_is_cut_to_the_aspect_and_scaled(tmp_path):
    wide = np.zeros((8, 20), np.uint8)  # the middle 12 columns are kept
    wide[:, 4:16] = np.arange(0, 240, 20, dtype=np.uint8)

    read = read_images([saved(tmp_path / "a.png", wide)], GREY)

    (note,) = read.notes
    assert note == "1 image of 20 x 8: cropped to its middle 12 x 8, scaled to 6 x 4"
    row = read.images[0, 0, 1] * 255
    torch.testing.assert_close(row[1:-1], torch.arange(50.0, 180, 40))  # a ramp stays a ramp
    assert (row[0] > 0) & (row[-1] < 240)


def test_photographs_are_turned_upright_and_transparent_pixels_are_white(tmp_path):
    sideways = np.zeros((6, 4), np.uint8)
    sideways[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 8  # the camera was turned: rotate by 90 degrees
    turned = read_images([saved(tmp_path / "a.png", sideways, exif=exif)], GREY)
    assert turned.images.shape == (1, *GREY)
    assert turned.images[0, 0, :, 0].tolist() == [1] * 4

    ink = np.zeros((4, 6, 4), np.uint8)
    ink[0, :, 3] = 255
    see_through = read_images([saved(tmp_path / "b.png", ink)], GREY)
    assert see_through.images[0, 0, :, 0].tolist() == [0, 1, 1, 1]
    assert see_through.notes == ["1 image of 6 x 4: put on white where transparent"]


def test_sixteen_bits_and_palettes_and_first_frames_are_understood(pixels, tmp_path):
    deep = saved(tmp_path / "a.png", pixels.astype(np.uint16) * 257)
    torch.testing.assert_close(read_images([deep], GREY).images[0, 0], torch.from_numpy(pixels) / 255)

    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    moving = read_images([tmp_path / "b.gif"], GREY)
    torch.testing.assert_close(moving.images[0, 0], torch.from_numpy(pixels) / 255)
    assert moving.notes == ["1 image of 6 x 4: the first of 2 frames taken"]


def test_a_folder_gives_its_images_by_name_and_like_ones_are_spoken_of_together(pixels, tmp_path):
    for name in ("b.png", "a.png", "c.bmp"):
        saved(tmp_path / name, pixels)
    saved(tmp_path / "d.png", np.zeros((8, 12), np.uint8))
    (tmp_path / "notes.txt").write_text("no image")

    read = read_images([tmp_path, tmp_path / "a.png"], GREY)

    assert read.names == ["a.png", "b.png", "c.bmp", "d.png", "a.png"]
    assert read.notes == ["4 images of 6 x 4: not changed", "1 image of 12 x 8: scaled to 6 x 4"]


def test_inverting_and_black_and_white_are_said(pixels, tmp_path):
    path = saved(tmp_path / "a.png", pixels)

    inverted = read_images([path], GREY, invert=True)
    binary = read_images([path], GREY, binary=True)

    assert inverted.images.equal(1 - torch.from_numpy(pixels)[None, None] / 255)
    assert inverted.notes[1:] == ["inverted"]
    assert binary.images.equal((torch.from_numpy(pixels)[None, None] >= 127.5).float())
    assert "black and white" in binary.notes[1]


ARRAYS = {
    "(H, W)": lambda x: x,
    "(N, H, W)": lambda x: x[None],
    "(N, 1, H, W)": lambda x: x[None, None],
    "(N, H, W, 1)": lambda x: x[None, ..., None],
    "floats": lambda x: (x / 255)[None],
    "floats to 255": lambda x: x[None].astype(np.float64),
    "whole numbers": lambda x: x[None].astype(np.int64),
}


@pytest.mark.parametrize("form", ARRAYS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_every_form_are_the_same_images(form, suffix, pixels, tmp_path):
    path = tmp_path / f"a{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, ARRAYS[form](pixels))

    read = read_images([path], GREY)

    torch.testing.assert_close(read.images, torch.from_numpy(pixels)[None, None] / 255)
    assert read.names == [f"a{suffix}[0]"]
    assert ("divided by 255" in read.notes[0]) == (form in ("floats to 255", "whole numbers"))


@pytest.mark.parametrize("axis", [1, 3])
def test_the_channels_of_an_array_may_come_first_or_last(axis, tmp_path):
    images = np.random.default_rng(0).random((2, 3, 4, 6), dtype=np.float32)
    np.save(tmp_path / "a.npy", np.moveaxis(images, 1, axis))

    assert read_images([tmp_path / "a.npy"], COLOUR).images.equal(torch.from_numpy(images))


def test_labels_come_along_where_every_file_has_them(pixels, tmp_path):
    np.savez(tmp_path / "a.npz", images=pixels[None].repeat(3, 0), labels=[3, 1, 2])
    saved(tmp_path / "b.png", pixels)

    assert read_images([tmp_path / "a.npz"], GREY).labels.tolist() == [3, 1, 2]
    assert read_images([tmp_path / "a.npz", tmp_path / "b.png"], GREY).labels is None


def bomb(path):
    """A PNG of some bytes that claims to be 30,000 x 30,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))))


UNUSABLE = {
    "a text.png": (lambda path: path.write_text("no image"), "cannot be read as an image"),
    "empty.png": (lambda path: path.write_bytes(b""), "cannot be read as an image"),
    "missing.png": (lambda path: None, "there is no"),
    "missing.npy": (lambda path: None, "there is no"),
    "bomb.png": (bomb, r"refused: it would unpack to more than [\d,]+ pixels"),
    "folder": (lambda path: path.mkdir(), "no images in it"),
    "rank.npy": (lambda path: np.save(path, np.zeros(5)), r"shape \(5,\); images should be \(N, H, W\)"),
    "five.npy": (lambda path: np.save(path, np.zeros((1, 1, 1, 4, 6))), "images should be"),
    "channels.npy": (lambda path: np.save(path, np.zeros((2, 5, 4, 6))), "with 1 or 3 channels"),
    "none.npy": (lambda path: np.save(path, np.zeros((0, 4, 6))), r"shape \(0, 4, 6\)"),
    "nan.npy": (lambda path: np.save(path, np.full((4, 6), np.nan)), "NaN or infinite"),
    "negative.npy": (lambda path: np.save(path, np.full((4, 6), -1.0)), "from -1 to -1; images should be from 0 to 1"),
    "text.npy": (lambda path: np.save(path, np.array([["a", "b"]])), "should be numbers"),
    "pickle.npy": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read as an array"),
    "torn.npz": (lambda path: path.write_bytes(b"PK\x03\x04torn"), "cannot be read as an array"),
    "two.npz": (lambda path: np.savez(path, x=np.zeros((4, 6)), y=np.zeros(1)), "under the name images; it has x, y"),
    "labels.npz": (
        lambda path: np.savez(path, images=np.zeros((2, 4, 6)), labels=np.zeros(3, int)),
        "labels that are integers, one for each of its 2 images",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_refused_with_its_name_and_the_reason(name, tmp_path):
    make, reason = UNUSABLE[name]
    make(tmp_path / name)

    with pytest.raises(DataError, match=reason) as refusal:
        read_images([tmp_path / name], GREY)

    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_truncated_photograph_is_refused(tmp_path):
    path = saved(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        read_images([path], GREY)


def test_an_archive_that_would_unpack_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vaelab.looking.own_images.LARGEST", 1000)
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((100, 4, 6)))
    np.save(tmp_path / "a.npy", np.zeros((100, 4, 6)))

    with pytest.raises(DataError, match="unpack to"):
        read_images([tmp_path / "a.npz"], GREY)
    with pytest.raises(DataError, match="19,200 bytes"):
        read_images([tmp_path / "a.npy"], GREY)


class TestOtherData:
    """Rows of one's own for models whose data are no pixels."""

    form = Form(shape=(3,), scaling=Scaling.of([1.0, 2.0, 3.0], [2.0, 2.0, 4.0]), span=(-1.0, 1.0), values="real")

    def test_arrays_are_in_the_datas_own_units(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([[1, 2, 3], [3, 4, 7]], np.float64))
        np.save(tmp_path / "b.npy", np.array([5, 2, 3]))
        read = read_own([tmp_path / "a.npy", tmp_path / "b.npy"], self.form)

        assert read.images.tolist() == [[0, 0, 0], [1, 1, 1], [2, 0, 0]]
        assert read.names == ["a.npy[0]", "a.npy[1]", "b.npy[0]"]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.zeros((2, 4)), r"of shape \(2, 4\): this model takes \(N, \*\(3,\)\)"),
            (np.full((2, 3), np.nan), "NaN"),
            (np.array([["a", "b", "c"]]), "has <U1"),
        ],
    )
    def test_arrays_of_another_shape_or_kind_are_refused(
        self, values: np.ndarray, message: str, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(DataError, match=message):
            read_own([tmp_path / "a.npy"], self.form)

    def test_pictures_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"come as an .npy or .npz of shape"):
            read_own([tmp_path / "a.png"], self.form)


@pytest.mark.parametrize(
    ("values", "x", "said"),
    [
        (np.array([[0, 4095], [1024, 2048]], np.uint16), [0, 1, 1024 / 4095, 2048 / 4095], "as of 12 bits"),
        (np.array([[0.25, 1.0], [0.5, 0.0]], np.float32), [0.25, 1, 0.5, 0], "not changed"),
        (np.array([[0, 255], [7, 100]], np.int32), [0, 1, 7 / 255, 100 / 255], "divided by 255"),
    ],
)
def test_the_range_of_a_deep_picture_is_found_and_said(
    values: np.ndarray, x: list[float], said: str, tmp_path: Path
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    read = read_images([tmp_path / "a.tif"], (1, 2, 2))
    assert read.images.flatten().tolist() == pytest.approx(x)
    assert said in read.notes[0]


def test_one_coloured_image_as_an_array_is_one_image(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    np.save(tmp_path / "a.npy", values)
    read = read_images([tmp_path / "a.npy"], (3, 6, 5))
    assert np.array_equal((read.images * 255).round().byte()[0].numpy(), np.moveaxis(values, -1, 0))
