"""Networks of bounded slope."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SpectralDecoder(nn.Module):
    """A decoder whose linear and convolutional layers have weights of spectral norm 1 (Miyato et al. 2018, equation 8).

    The norm is followed by one step of power iteration each training pass; a convolution's is that of its kernel as a
    matrix.

    Args:
        latent_dim: size Z of the latent variable.
        shape: what one output looks like: the likelihood's `parameter_shape`.
        network: the decoder.
    """

    def __init__(self, latent_dim: int, shape: Sequence[int], *, network: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network(latent_dim, shape)
        for layer in list(self.network.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                spectral_norm(layer)

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of p(x|z), (*batch, *shape), of latents (*batch, Z)."""
        parameters: Tensor = self.network(z)
        return parameters
