"""Training images changed at random."""

import pytest
import torch

from vaelab.data import Augmentation, Batches, Images
from vaelab.data.augmentation import uniform


def rows(n: int) -> torch.Tensor:
    return torch.arange(n)


def test_the_numbers_of_a_row_are_uniform_and_apart_from_those_of_others() -> None:
    u = uniform(rows(20_000), seed=0, epoch=0, count=6).double()

    assert 0 <= u.min() <= u.max() < 1
    # Five standard errors of a mean, a variance's, and correlations of 20,000.
    assert (u.mean(1) - 0.5).abs().max() < 5 / (12 * 20_000) ** 0.5
    assert (u.var(1) - 1 / 12).abs().max() < 0.004
    assert (torch.corrcoef(u) - torch.eye(6)).abs().max() < 5 / 20_000**0.5
    assert torch.corrcoef(torch.stack([u[0, 1:], u[0, :-1]]))[0, 1].abs() < 5 / 20_000**0.5


def test_they_are_those_of_splitmix64_in_whole_numbers() -> None:
    mask = 2**64 - 1

    def mixed(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    from vaelab.seeding import derive_seed

    key, golden = derive_seed(3, "augmentation", 2), 0x9E3779B97F4A7C15
    exact = [(mixed((mixed((row * golden + key) & mask) + golden) & mask) >> 11) / 2**53 for row in range(5)]
    torch.testing.assert_close(uniform(rows(5), seed=3, epoch=2, count=1)[0], torch.tensor(exact))


def test_a_row_is_changed_alike_in_any_batch_and_anew_each_epoch() -> None:
    x = torch.rand(9, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    augment = Augmentation(flip=True, shift=2, crop=0.7)
    whole = augment(x, rows(9), 1, 4)

    assert augment(x[[7, 2]], torch.tensor([7, 2]), 1, 4).equal(whole[[7, 2]])
    assert not augment(x, rows(9), 1, 5).equal(whole)
    assert not augment(x, rows(9), 2, 4).equal(whole)


def test_half_are_mirrored() -> None:
    x = torch.rand(2000, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    changed = Augmentation(flip=True)(x, rows(2000), 0, 0)
    mirrored = (changed == x.flip(-1)).flatten(1).all(1)

    assert ((changed == x).flatten(1).all(1) ^ mirrored).all()
    assert 900 < mirrored.sum() < 1100


def test_images_move_by_every_step_up_to_the_most() -> None:
    x = torch.zeros(500, 1, 9, 9)
    x[:, :, 4, 4] = 1
    places = Augmentation(shift=2)(x, rows(500), 0, 0).flatten(1).argmax(1)
    assert {(int(place) // 9 - 4, int(place) % 9 - 4) for place in places} == {
        (down, across) for down in range(-2, 3) for across in range(-2, 3)
    }


def test_a_crop_is_a_part_scaled_back() -> None:
    ramp = torch.arange(32.0).expand(200, 1, 32, 32)
    changed = Augmentation(crop=0.5)(ramp, rows(200), 0, 0)
    slope = (changed[:, 0, 5, 20] - changed[:, 0, 5, 10]) / 10

    assert 0.499 < slope.min() < 0.55
    assert 0.95 < slope.max() <= 1.001
    assert 0 <= changed.min() <= changed.max() <= 31


def test_training_batches_are_changed_and_the_same_after_a_resume() -> None:
    images = Images(torch.randint(0, 256, (10, 1, 6, 6), dtype=torch.uint8), torch.arange(10))
    augment = Augmentation(flip=True, shift=1)
    whole = list(Batches(images, batch_size=3, seed=0, augment=augment, position=lambda: (2, 0)))
    rest = list(Batches(images, batch_size=3, seed=0, augment=augment, position=lambda: (2, 2)))
    plain = list(Batches(images, batch_size=3, seed=0, position=lambda: (2, 0)))

    assert [batch.images.equal(other.images) for batch, other in zip(whole[2:], rest, strict=True)] == [True, True]
    assert not all(a.images.equal(b.images) for a, b in zip(whole, plain, strict=True))
    with pytest.raises(ValueError, match="seed"):
        Batches(images, batch_size=3, augment=augment)
