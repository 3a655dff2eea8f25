import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from vaelab.metrics.images import psnr, ssim


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def brute_force_ssim(a, b):
    """Wang et al. 2004, equation 13, window by window, of one channel (H, W)."""
    taps = torch.tensor([math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)], dtype=torch.float64)
    window = torch.outer(taps, taps)
    window /= window.sum()
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (image[row : row + 11, column : column + 11].double() for image in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            covariance = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return torch.stack(values).mean()


@pytest.mark.parametrize("shape", [(1, 11, 11), (1, 14, 12), (3, 13, 17)], ids=str)
def test_ssim_is_that_of_its_definition(shape):
    images = torch.rand(3, *shape)
    others = (images + 0.3 * torch.randn_like(images)).clamp(-0.2, 1.2)  # a Gaussian's mean may leave [0, 1]

    pairs = [list(zip(a, b, strict=True)) for a, b in zip(images, others, strict=True)]
    expected = [torch.stack([brute_force_ssim(*pair) for pair in channels]).mean() for channels in pairs]

    torch.testing.assert_close(ssim(images, others).double(), torch.stack(expected), rtol=0, atol=1e-5)


def test_ssim_of_an_image_with_itself_is_one():
    images = torch.rand(2, 1, 28, 28)

    torch.testing.assert_close(ssim(images, images), torch.ones(2))


@pytest.mark.parametrize("size", [(8, 8), (10, 28), (28, 10)], ids=str)
def test_images_smaller_than_the_window_have_no_ssim(size):
    images = torch.rand(1, 1, *size)

    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels are smaller than SSIM's window, 11 x 11"):
        ssim(images, images)


def test_psnr_is_that_of_another_implementation_image_by_image():
    images, others = torch.rand(5, 3, 6, 7), torch.rand(5, 3, 6, 7)
    expected = [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in zip(images, others, strict=True)]

    torch.testing.assert_close(psnr(images, others), torch.stack(expected))


def test_psnr_in_closed_form():
    """An error of 0.1 at each pixel is 20 dB."""
    images = torch.full((2, 1, 4, 4), 0.5)

    torch.testing.assert_close(psnr(images, images + 0.1), torch.full((2,), 20.0))
