import warnings

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from vaelab import figures
from vaelab.figures import MARGIN, animate, drawn, reconstructions, save, tile


def cell(picture, row, column, size):
    height, width = size
    top, left = row * (height + MARGIN) + MARGIN, column * (width + MARGIN) + MARGIN
    return picture[top : top + height, left : left + width]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (6, 3, 2), (7, 3, 3), (2, 5, 1)])
def test_images_stand_row_by_row_and_the_rest_is_white(n, columns, rows, channels):
    images = torch.rand(n, channels, 4, 5, generator=torch.Generator().manual_seed(0))

    picture = tile(images, columns)

    assert picture.dtype == np.uint8
    assert picture.shape == (rows * (4 + MARGIN) + MARGIN, columns * (5 + MARGIN) + MARGIN, 3)
    painted = np.zeros(picture.shape[:2], bool)
    for number, image in enumerate(images):
        expected = (image * 255).round().expand(3, 4, 5).permute(1, 2, 0).numpy()
        assert (cell(picture, number // columns, number % columns, (4, 5)) == expected).all()
        cell(painted, number // columns, number % columns, (4, 5))[:] = True
    assert (picture[~painted] == 255).all()


@pytest.mark.parametrize(("value", "pixel"), [(-0.3, 0), (0, 0), (0.5, 128), (0.998, 254), (1, 255), (1.7, 255)])
def test_values_are_clipped_and_rounded_to_bytes(value, pixel):
    assert (cell(tile(torch.full((1, 1, 2, 2), value), 1), 0, 0, (2, 2)) == pixel).all()


def test_originals_stand_over_their_reconstructions():
    originals, reconstructed = torch.zeros(3, 1, 4, 4), torch.full((3, 1, 4, 4), 0.2)

    picture = reconstructions(originals, reconstructed)

    for column in range(3):
        assert (cell(picture, 0, column, (4, 4)) == 0).all()
        assert (cell(picture, 1, column, (4, 4)) == 51).all()


def test_images_that_carry_a_gradient_can_be_drawn():
    assert tile(torch.zeros(1, 1, 2, 2, requires_grad=True), 1).shape == (2 + 2 * MARGIN, 2 + 2 * MARGIN, 3)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (30, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("rows", [(), ("original", "reconstructed")])
def test_a_saved_picture_has_every_pixel_enlarged_by_a_whole_number_and_unchanged(rows, picture, tmp_path):
    path = save(picture, tmp_path / "new" / "figure.png", title="a title", rows=rows)

    written = np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(np.uint8)
    zoom = 10  # about 900 pixels wide
    enlarged = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    height, width = enlarged.shape[:2]
    places = [
        (top, left)
        for top in range(written.shape[0] - height + 1)
        for left in range(written.shape[1] - width + 1)
        if (written[top, left : left + 50] == enlarged[0, :50]).all()
        and (written[top : top + height, left : left + width] == enlarged).all()
    ]
    assert len(places) == 1


def test_a_title_and_the_labels_of_rows_are_drawn(picture, tmp_path):
    def ink(**texts):
        path = save(picture, tmp_path / "figure.png", **texts)
        return (matplotlib.image.imread(path)[:40, :, :3] < 0.5).any(-1).sum(), matplotlib.image.imread(path).shape

    assert ink(title="")[0] == 0
    assert ink(title="a title")[0] > 0
    assert ink(title="", rows=("original", "reconstructed"))[1][1] > ink(title="")[1][1]


def test_saving_twice_gives_the_same_file_and_leaves_no_other(picture, tmp_path):
    first = save(picture, tmp_path / "figure.png", title="a title").read_bytes()

    assert save(picture, tmp_path / "figure.png", title="a title").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def shades(*shape):
    """Images of one shade each, no two alike: 0, 1, 2, ... of 255."""
    count = int(np.prod(shape))
    return (torch.arange(count) / 255).reshape(*shape, 1, 1, 1).expand(*shape, 1, 3, 4)


def shade(picture, row, column, margin=MARGIN):
    return picture[row * (3 + margin) + margin + 1, column * (4 + margin) + margin + 1, 0]


def test_many_originals_stand_in_several_rows_each_over_its_reconstructions():
    picture = reconstructions(shades(7), shades(7) + 100 / 255, columns=3)

    rows = [[shade(picture, row, column) for column in range(3)] for row in range(6)]
    assert rows == [[0, 1, 2], [100, 101, 102], [3, 4, 5], [103, 104, 105], [6, 255, 255], [106, 255, 255]]


def test_an_interpolation_is_a_row_between_its_images():
    first, path, last = shades(2), shades(3, 2) + 10 / 255, shades(2) + 20 / 255

    picture = figures.interpolations(first, path, last)

    assert [shade(picture, 0, column) for column in range(5)] == [0, 10, 12, 14, 20]
    assert [shade(picture, 1, column) for column in range(5)] == [1, 11, 13, 15, 21]


def test_a_traversal_is_a_row_for_each_dimension():
    picture = figures.traversals(shades(3, 5))

    assert [[shade(picture, row, column) for column in range(5)] for row in range(3)] == np.arange(15).reshape(
        3, 5
    ).tolist()


def test_a_manifold_has_no_lines_between_its_images():
    picture = figures.manifold(shades(2, 3))

    assert picture.shape == (6, 12, 3)
    assert [[shade(picture, row, column, margin=0) for column in range(3)] for row in range(2)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (64, 8)])
def test_samples_stand_in_a_grid_that_is_nearly_square(n, columns):
    assert figures.samples(shades(n)).shape[1] == columns * (4 + MARGIN) + MARGIN


def inked(figure, area):
    """Whether each of an area's columns of pixels has ink."""
    return (figure[area] < 128).any((0, 2))


def test_labels_of_columns_stand_over_them_and_where_there_is_no_room_some_are_left_out():
    white = np.full((10, 90, 3), 255, np.uint8)  # enlarged tenfold
    above = np.s_[45:65, 15:915]

    def places(labels):
        ink = inked(drawn(white, title="", columns=labels), above)
        return np.split(np.flatnonzero(ink), np.flatnonzero(np.diff(np.flatnonzero(ink)) > 20) + 1)

    few = places(["aaa", "bbb", "ccc"])
    assert [round(place.mean(), -1) for place in few] == [150, 450, 750]
    many = places([f"{number:010}" for number in range(30)])
    assert 5 <= len(many) <= 10


def test_labels_of_rows_that_would_overlap_are_left_out(picture):
    def lines(labels):
        left = drawn(picture, title="", rows=labels)[45:345, :40]
        return (np.diff((left < 128).any((1, 2)).astype(int)) == 1).sum()

    assert lines(["88"] * 5) == 5
    assert 10 <= lines(["88"] * 60) <= 15


def test_a_title_wider_than_the_picture_is_not_cut_off(picture):
    narrow = drawn(picture, title="w" * 200)

    assert narrow.shape[1] > 1500
    assert (narrow[:, -15:] == 255).all()


def frames_of(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)], image.info


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_shows_each_picture_and_begins_anew(channels, tmp_path):
    generator = np.random.default_rng(0)
    pictures = [
        generator.choice([0, 90, 250], (30, 30, channels)).astype(np.uint8).repeat(3 // channels, 2) for _ in "abc"
    ]

    path = animate(pictures, tmp_path / "new" / "moving.gif", titles=["a", "b", "c"], seconds=0.2)

    frames, info = frames_of(path)
    assert (info["loop"], info["duration"]) == (0, 200)
    assert len(frames) == 3
    for frame, picture in zip(frames, pictures, strict=True):
        shown = frame[-15 - 300 : -15 : 10, 15 : 15 + 300 : 10].astype(int)
        assert abs(shown - picture).max() <= (5 if channels == 1 else 8)  # of 255
    assert animate(pictures, path, titles=["a", "b", "c"], seconds=0.2).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("labels", [None, np.arange(50) % 3, np.arange(50) % 15, np.arange(50)])
def test_points_are_drawn_in_the_colours_of_their_labels(labels, tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 2))

    path = figures.scatter(points, labels, tmp_path / "new" / "points.png", title="codes", axes=("one", "two"))

    image = matplotlib.image.imread(path)[..., :3]
    saturated = image[(image.max(-1) - image.min(-1)) > 0.3]
    colours = np.unique((saturated * 255).round(), axis=0, return_counts=True)
    frequent = len(colours[1][colours[1] > 40])
    classes = 1 if labels is None else len(np.unique(labels))
    assert image.shape == (900, 900, 3)
    assert frequent >= min(classes, 7)
    assert list(path.parent.iterdir()) == [path]


def test_a_name_in_another_script_is_drawn_or_is_one_warning(tmp_path):
    picture = np.zeros((10, 10, 3), np.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save(picture, tmp_path / "a.png", title="变分自编码器")
    assert len(caught) <= 1
    assert all("no installed font has all letters" in str(each.message) for each in caught)
