import math

import pytest
import torch

from vaelab.losses.corruptions import GaussianNoise, Masking, SaltAndPepper


@pytest.fixture
def grey():
    return torch.full((50, 1, 20, 20), 0.4)


def share(pixels):
    return pixels.float().mean().item()


def test_masking_blackens_its_share_of_the_pixels_and_leaves_the_others(grey):
    torch.manual_seed(0)
    x = Masking(amount=0.3)(grey)
    assert share(x == 0) == pytest.approx(0.3, abs=0.015)  # four standard errors of 20,000 pixels
    assert share((x == 0) | (x == 0.4)) == 1


def test_salt_and_pepper_makes_as_many_pixels_white_as_black(grey):
    torch.manual_seed(0)
    x = SaltAndPepper(amount=0.4)(grey)
    assert share(x == 0) == pytest.approx(0.2, abs=0.012)
    assert share(x == 1) == pytest.approx(0.2, abs=0.012)
    assert share((x == 0) | (x == 1) | (x == 0.4)) == 1


def test_gaussian_noise_has_its_scale_and_no_mean(grey):
    torch.manual_seed(0)
    noise = GaussianNoise(scale=0.5)(grey) - grey
    assert noise.mean().item() == pytest.approx(0, abs=4 * 0.5 / math.sqrt(20_000))
    assert noise.std().item() == pytest.approx(0.5, abs=0.011)


@pytest.mark.parametrize("corruption", [Masking(amount=0), SaltAndPepper(amount=0), GaussianNoise(scale=0)])
def test_nothing_of_a_corruption_changes_nothing(corruption, grey):
    assert corruption(grey).equal(grey)
