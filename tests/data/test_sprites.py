"""Shapes drawn by a formula."""

import math
from itertools import product

import pytest
import torch

from vaelab.data import Batches, Sprites
from vaelab.data.sprites import SIZE, SpriteStore

VALUES = [3, 2, 4, 5, 6]


def every_image(**options: object) -> tuple[SpriteStore, torch.Tensor]:
    store = SpriteStore(32, VALUES, antialias=bool(options.get("antialias", True)))
    return store, store.rows(torch.arange(len(store)))


def test_rows_are_numbered_as_those_of_dsprites_the_last_factor_fastest() -> None:
    store, _ = every_image()

    assert len(store) == math.prod(VALUES)
    assert store.factors(torch.arange(len(store))).tolist() == [list(of) for of in product(*map(range, VALUES))]


def test_a_row_does_not_depend_on_the_batch_it_is_drawn_in() -> None:
    store, images = every_image()
    numbers = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:50]

    assert store.rows(numbers).equal(images[numbers])
    assert store.rows(numbers[:1]).equal(images[numbers[:1]])


def test_the_area_of_a_shape_is_that_of_geometry_wherever_it_is() -> None:
    """Half side s: a square has 4 s^2, an ellipse pi 1.25 0.75 s^2, a heart (2 + pi / 2) s^2 / 1.21."""
    store, images = every_image()
    factors = store.factors(torch.arange(len(store)))
    area = images.double().sum((1, 2, 3)) / 255 * (2 / 32) ** 2
    unit = torch.tensor([4, math.pi * 1.25 * 0.75, (2 + math.pi / 2) / 1.21], dtype=torch.float64)[factors[:, 0]]
    side = SIZE * torch.tensor([0.5, 1.0], dtype=torch.float64)[factors[:, 1]]

    # Outlines are taken straight within a pixel: 3 % of shapes that are 3.5 pixels to a side.
    torch.testing.assert_close(area, unit * side**2, rtol=0.06, atol=0)


def test_x_goes_to_the_right_and_y_down() -> None:
    store, images = every_image()
    factors = store.factors(torch.arange(len(store)))
    squares = images[(factors[:, :3] == torch.tensor([0, 0, 0])).all(1)].double()  # 5 x 6 of them
    places = torch.arange(32, dtype=torch.float64)
    x = (squares.sum((1, 2)) @ places / squares.sum((1, 2, 3))).reshape(5, 6)
    y = (squares.sum((1, 3)) @ places / squares.sum((1, 2, 3))).reshape(5, 6)

    assert (x.diff(dim=0) > 4).all()
    assert (x.diff(dim=1).abs() < 0.01).all()
    assert (y.diff(dim=1) > 3).all()


def test_without_antialiasing_pixels_are_black_or_white_by_their_middle() -> None:
    _, hard = every_image(antialias=False)
    _, soft = every_image()

    assert set(hard.unique().tolist()) == {0, 255}
    assert ((soft > 140) <= (hard == 255)).all()
    assert ((hard == 255) <= (soft > 110)).all()


def test_labels_and_factors_follow_the_images_into_splits_and_batches() -> None:
    data = Sprites(size=16, values=VALUES, validation=100, test=0.1, batch_size=32)
    splits = data.splits

    assert data.factors == {"shape": 3, "scale": 2, "angle": 4, "x": 5, "y": 6}
    assert (data.shape, data.names, data.classes) == ((1, 16, 16), ("square", "ellipse", "heart"), 3)
    assert [len(images) for images in splits] == [548, 100, 72]
    for images in splits:
        factors = images.factors(torch.arange(len(images)))
        assert factors.shape == (len(images), 5)
        assert factors[:, 0].equal(images.labels)
        assert images.x[:5].equal(images.store.rows(images.rows(torch.arange(5))).float() / 255)
    batch = next(iter(Batches(splits.train, batch_size=32, seed=0)))
    assert batch.images.shape == (32, 1, 16, 16)


def test_more_shapes_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there are 3 shapes, square, ellipse, heart"):
        Sprites(values=[4, 1, 1, 1, 1])
