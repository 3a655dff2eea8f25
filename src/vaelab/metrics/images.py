"""Similarity of images and their reconstructions, with pixels in [0, 1]."""

from torch import Tensor

SSIM_WINDOW = 11  # pixels, of a Gaussian of standard deviation 1.5


def psnr(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / MSE), of each of the images (B, C, H, W): (B,)."""
    return -10 * (images - reconstructions).square().flatten(1).mean(1).log10()


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarity of each of the images (B, C, H, W), at most 1: (B,).

    Wang et al. 2004, equation 13, with its constants: a Gaussian window of 11 x 11, K1 = 0.01, K2 = 0.03; the mean over
    the windows that lie within the image, and over channels.

    Raises:
        ValueError: the images are smaller than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = images.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"images of {height} x {width} pixels are smaller than SSIM's window, 11 x 11")
    _, of_windows = structural_similarity_index_measure(
        reconstructions, images, data_range=1.0, reduction="none", return_full_image=True
    )
    edge = SSIM_WINDOW // 2  # where windows reach out of the image, into its reflection
    return of_windows[..., edge:-edge, edge:-edge].flatten(1).mean(1)
