import matplotlib.image
import numpy as np
import pytest
import torch

from vaelab.figures import MARGIN, reconstructions, save, tile


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
