import threading

import pytest
import torch

from vaelab.data import Batches, Images, in_turn
from vaelab.data.stores import Mapped


@pytest.fixture
def images():
    """Ten images of which each pixel is the image's number, and so is the label."""
    numbers = torch.arange(10)
    return Images(numbers.to(torch.uint8).reshape(-1, 1, 1, 1).expand(10, 1, 2, 2).contiguous(), numbers)


@pytest.fixture
def grey_images():
    generator = torch.Generator().manual_seed(0)
    return Images(torch.randint(0, 256, (10, 1, 4, 4), dtype=torch.uint8, generator=generator), torch.arange(10))


def labels(batches):
    return [batch.labels.tolist() for batch in batches]


def at(epoch, batch=0):
    return lambda: (epoch, batch)


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (64, [10]), (1, [1] * 10)]
)
@pytest.mark.parametrize("seed", [None, 0])
def test_an_epoch_has_every_image_once_the_last_batch_taking_what_is_left(images, batch_size, sizes, seed):
    batches = Batches(images, batch_size=batch_size, seed=seed)
    seen = labels(batches)

    assert [len(batch) for batch in seen] == sizes
    assert len(batches) == len(sizes)
    assert sorted(number for batch in seen for number in batch) == list(range(10))


def test_pixels_become_floats_between_0_and_1_and_keep_their_labels():
    images = Images(torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1), torch.tensor([7, 8, 9]))
    (batch,) = Batches(images, batch_size=3)

    assert batch.images.dtype == torch.float32
    assert batch.images.flatten().tolist() == pytest.approx([0, 0.2, 1], abs=1e-7)
    assert batch.labels.tolist() == [7, 8, 9]


def test_images_and_labels_are_shuffled_together(images):
    for batch in Batches(images, batch_size=3, seed=5):
        assert (batch.images * 255).round()[:, 0, 0, 0].long().equal(batch.labels)


def test_reading_leaves_the_stored_pixels_as_they_are(grey_images):
    before = grey_images.pixels.clone()

    list(Batches(grey_images, batch_size=10, seed=0, dynamic=True))
    list(Batches(grey_images, batch_size=10))

    assert grey_images.pixels.equal(before)


def test_without_a_seed_the_order_is_kept(images):
    assert labels(Batches(images, batch_size=4, position=at(3))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_order_is_a_function_of_seed_and_epoch(images):
    def order(seed, epoch):
        return tuple(Batches(images, batch_size=3, seed=seed).order(epoch).tolist())

    assert order(0, 4) == order(0, 4)
    assert len({order(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


def test_the_order_neither_reads_nor_moves_the_global_generator(grey_images):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = list(Batches(grey_images, batch_size=3, seed=0, dynamic=True))
    assert torch.get_rng_state().equal(state)

    torch.manual_seed(2)
    again = list(Batches(grey_images, batch_size=3, seed=0, dynamic=True))
    assert all(a.images.equal(b.images) and a.labels.equal(b.labels) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_begun_in_the_middle_goes_on_as_the_whole_one_did(grey_images, start, dynamic):
    whole = list(Batches(grey_images, batch_size=3, seed=0, dynamic=dynamic, position=at(2)))
    rest = list(Batches(grey_images, batch_size=3, seed=0, dynamic=dynamic, position=at(2, start)))

    assert len(rest) == 4 - start
    for a, b in zip(whole[start:], rest, strict=True):
        assert a.images.equal(b.images)
        assert a.labels.equal(b.labels)


def test_the_position_is_asked_for_at_every_iteration(images):
    positions = iter([(0, 0), (1, 0)])
    batches = Batches(images, batch_size=10, seed=0, position=lambda: next(positions))

    assert labels(batches) == [batches.order(0).tolist()]
    assert labels(batches) == [batches.order(1).tolist()]


def test_every_image_comes_equally_often_at_every_place(images):
    batches = Batches(images, batch_size=10, seed=0)
    orders = torch.stack([batches.order(epoch) for epoch in range(1000)])  # (epochs, places)
    counts = torch.stack([(orders == image).sum(0) for image in range(10)]).double()

    # Each count is binomial with mean 100 and a deviation of 9.5; five deviations.
    assert (counts - 100).abs().max() < 5 * 9.5


class TestDynamicBinarization:
    def test_pixels_are_0_or_1(self, grey_images):
        (batch,) = Batches(grey_images, batch_size=10, seed=0, dynamic=True)

        assert set(batch.images.unique().tolist()) == {0.0, 1.0}
        assert batch.images.dtype == torch.float32

    def test_a_pixels_mean_is_its_grey_value(self, grey_images):
        total = torch.zeros(10, 1, 4, 4)
        for epoch in range(1000):
            (batch,) = Batches(grey_images, batch_size=10, seed=0, dynamic=True, position=at(epoch))
            total[batch.labels] += batch.images

        # The standard error of a mean is at most 0.5 / sqrt(1000) = 0.016; five of them.
        assert (total / 1000 - grey_images.pixels / 255).abs().max() < 0.08

    def test_every_epoch_and_seed_draws_anew(self, grey_images):
        def drawn(seed, epoch):
            (batch,) = Batches(grey_images, batch_size=10, seed=seed, dynamic=True, position=at(epoch))
            return tuple(batch.images[batch.labels.argsort()].flatten().tolist())

        assert drawn(0, 1) == drawn(0, 1)
        assert len({drawn(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9

    def test_batches_of_one_epoch_are_drawn_apart(self):
        grey = Images(torch.full((4, 1, 8, 8), 128, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
        first, second = Batches(grey, batch_size=2, seed=0, dynamic=True)

        assert not first.images.equal(second.images)

    def test_it_needs_a_seed(self, grey_images):
        with pytest.raises(ValueError, match="seed"):
            Batches(grey_images, batch_size=3, dynamic=True)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_see_every_image_once_an_epoch_between_them(images, world_size):
    """At batches of 3, and one of a single image, of which only the first process takes part."""
    seen = []
    for rank in range(world_size):
        batches = Batches(images, batch_size=3, seed=0, rank=rank, world_size=world_size)
        for number, batch in enumerate(batches):
            seen += batch.labels.tolist()[: batches.own(number)]

    assert sorted(seen) == list(range(10))


def test_processes_take_whole_batches_in_turn_where_these_are_evaluated(images):
    alone = list(Batches(images, batch_size=4))
    shares = [list(Batches(images, batch_size=4, rank=rank, world_size=3, whole=True)) for rank in range(3)]

    for rank, share in enumerate(shares):
        assert [len(batch.images) for batch in share] == [
            len(batch.images) if number % 3 == rank else 0 for number, batch in enumerate(alone)
        ]
    mine = [[batch for batch in share if len(batch.images)] for share in shares]
    for one, other in zip(alone, in_turn(mine), strict=True):
        assert one.images.equal(other.images)
        assert one.labels.equal(other.labels)


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("rows")]


@pytest.mark.parametrize("at_batch", [0, 2])
@pytest.mark.parametrize("dynamic", [False, True])
def test_rows_that_a_thread_reads_ahead_are_those_of_memory(grey_images, at_batch, dynamic):
    mapped = Images(Mapped([grey_images.pixels[:4], grey_images.pixels[4:]], (1, 4, 4)), grey_images.labels)
    options = {"batch_size": 3, "seed": 5, "dynamic": dynamic, "position": at(1, at_batch)}

    for one, other in zip(Batches(grey_images, **options), Batches(mapped, **options), strict=True):
        assert one.images.equal(other.images)
        assert one.labels.equal(other.labels)

    assert not readers()


def test_an_error_in_reading_ahead_arises_at_its_batch_and_the_thread_ends(grey_images):
    def arrange(rows):
        if 255 in rows:
            raise OSError("the disk is gone")
        return rows

    pixels = grey_images.pixels.clamp(max=254)
    pixels[7] = 255
    iteration = iter(Batches(Images(Mapped([pixels], (1, 4, 4), arrange), grey_images.labels), batch_size=3))

    assert [next(iteration).labels.tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iteration)
    assert not readers()

    left = iter(Batches(Images(Mapped([grey_images.pixels], (1, 4, 4)), grey_images.labels), batch_size=3))
    next(left)
    del left
    assert not readers()
