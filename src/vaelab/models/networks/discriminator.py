"""A network that tells two kinds of latents apart."""

from torch import Tensor, nn

from vaelab.models.networks.activations import Activation
from vaelab.models.networks.mlp import Widths, dense_layers


class Discriminator(nn.Module):
    """Linear and activation for each width, then one logit: (B, Z) -> (B,).

    Args:
        latent_dim: Z.
        hidden: widths of the hidden layers.
        activation: applied after every hidden layer.
    """

    def __init__(self, latent_dim: int, *, hidden: Widths | None = None, activation: Activation = "leaky_relu") -> None:
        super().__init__()
        widths = [latent_dim, *(hidden if hidden is not None else [1000, 1000])]
        self.layers = nn.Sequential(*dense_layers(widths, activation), nn.Linear(widths[-1], 1), nn.Flatten(0))

    def forward(self, z: Tensor) -> Tensor:
        """Logits (B,) of latents (B, Z)."""
        logits: Tensor = self.layers(z)
        return logits
