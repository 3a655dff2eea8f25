from dataclasses import dataclass

import pytest
import torch

from vaelab.data import Form, ImageData, Images, Splits
from vaelab.errors import DataError


def grey(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Images(torch.randint(0, 256, (n, 1, 3, 3), dtype=torch.uint8, generator=generator), torch.arange(n))


@dataclass(kw_only=True, eq=False)
class Toy(ImageData):
    batch_size: int = 1
    reads: int = 0

    def outline(self):
        return Form(shape=(1, 3, 3))

    def read(self):
        self.reads += 1
        train, validation = self.set_aside(grey(20))
        return Splits(train, validation, grey(6, seed=1))


def test_take_gives_the_images_in_the_order_asked_for():
    images = grey(5)
    taken = images.take(torch.tensor([3, 0, 3]))

    assert len(taken) == 3
    assert taken.labels.tolist() == [3, 0, 3]
    assert taken.pixels.equal(torch.stack([images.pixels[3], images.pixels[0], images.pixels[3]]))


def test_to_moves_pixels_and_labels():
    moved = grey(5).to(torch.device("meta"))

    assert {moved.pixels.device.type, moved.labels.device.type} == {"meta"}


def test_binarized_pixels_are_black_or_white_with_the_grey_value_as_their_mean():
    images = Images(torch.tensor([0, 64, 200, 255], dtype=torch.uint8).expand(5000, 1, 1, 4), torch.arange(5000))
    drawn = images.binarized(seed=0)

    assert drawn.pixels.dtype == torch.uint8
    assert set(drawn.pixels.unique().tolist()) == {0, 255}
    # Five standard errors: 5 * 0.5 / sqrt(5000).
    means = (drawn.pixels == 255).double().mean((0, 1, 2))
    torch.testing.assert_close(means, torch.tensor([0, 64, 200, 255]).double() / 255, atol=0.036, rtol=0)
    assert means[0] == 0
    assert means[3] == 1
    assert drawn.labels.equal(images.labels)


def test_binarization_is_a_function_of_its_seed():
    assert grey(5).binarized(1).pixels.equal(grey(5).binarized(1).pixels)
    assert not grey(5).binarized(1).pixels.equal(grey(5).binarized(2).pixels)


@pytest.mark.parametrize("validation", [0, 1, 7, 19])
def test_training_and_validation_images_are_together_all_and_none_twice(validation):
    train, held_out, _ = Toy(validation=validation).splits

    assert len(held_out) == validation
    assert sorted([*train.labels.tolist(), *held_out.labels.tolist()]) == list(range(20))
    for split in (train, held_out):
        assert split.pixels.equal(grey(20).pixels[split.labels])


def test_the_validation_split_is_a_function_of_the_datas_seed():
    def held_out(seed):
        return tuple(Toy(validation=7, seed=seed).splits.validation.labels.tolist())

    assert held_out(3) == held_out(3)
    assert len({held_out(seed) for seed in range(5)}) == 5


@pytest.mark.parametrize("validation", [20, 21])
def test_a_validation_split_that_leaves_nothing_to_train_on_is_an_error(validation):
    with pytest.raises(DataError, match=rf"data\.validation={validation}.*20 images"):
        _ = Toy(validation=validation).splits


def test_a_batch_larger_than_the_data_is_an_error_that_gives_both_numbers():
    with pytest.raises(DataError, match=r"data\.batch_size=14 is more than the 13 images"):
        _ = Toy(validation=7, batch_size=14).splits
    assert len(Toy(validation=7, batch_size=13).splits.train) == 13


def test_a_dataset_with_nothing_to_train_on_is_an_error():
    class Empty(Toy):
        def read(self):
            return Splits(grey(0), grey(5), grey(5))

    with pytest.raises(DataError, match="no images to train on"):
        _ = Empty(batch_size=5).splits


@pytest.mark.parametrize(("sizes", "shown"), [((5, 4, 3), 3), ((5, 4, 0), 4), ((5, 0, 0), 5)])
def test_pictures_are_of_test_images_or_where_there_are_none_of_others(sizes, shown):
    assert len(Splits(*map(grey, sizes)).shown) == shown


def test_making_a_dataset_reads_nothing_and_using_it_reads_once():
    data = Toy(validation=7)
    assert data.reads == 0

    assert data.splits is data.splits
    assert data.reads == 1


@pytest.mark.parametrize(
    ("binarize", "binary"),
    [("none", (False, False, False)), ("fixed", (True, True, True)), ("dynamic", (False, True, True))],
)
def test_binarize_says_which_splits_are_drawn_once(binarize, binary):
    splits = Toy(validation=7, binarize=binarize).splits

    assert tuple(set(split.pixels.unique().tolist()) <= {0, 255} for split in splits) == binary


def test_what_is_drawn_once_is_the_same_in_every_run_and_each_split_is_drawn_apart():
    first, again = (Toy(validation=10, binarize="fixed").splits for _ in range(2))
    other = Toy(validation=10, binarize="fixed", seed=1).splits

    for a, b in zip(first, again, strict=True):
        assert a.pixels.equal(b.pixels)
    assert not first.test.pixels.equal(other.test.pixels)

    class Uniform(Toy):
        def read(self):
            flat = Images(torch.full((10, 1, 3, 3), 128, dtype=torch.uint8), torch.arange(10))
            return Splits(flat, flat, flat)

    drawn = {tuple(split.pixels.flatten().tolist()) for split in Uniform(binarize="fixed").splits}
    assert len(drawn) == 3


def test_validation_and_test_images_are_the_same_for_fixed_and_dynamic_binarization():
    fixed, dynamic = (Toy(validation=7, binarize=binarize).splits for binarize in ("fixed", "dynamic"))

    assert fixed.validation.pixels.equal(dynamic.validation.pixels)
    assert fixed.test.pixels.equal(dynamic.test.pixels)
