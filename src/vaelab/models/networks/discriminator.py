"""Critics: networks that tell two kinds of latents, or of images, apart."""

from collections.abc import Sequence

from torch import Tensor, nn

from vaelab.models.networks.activations import Activation
from vaelab.models.networks.convolutional import Channels, ConvEncoder, Width
from vaelab.models.networks.mlp import Widths, dense_layers
from vaelab.models.networks.normalization import Normalization
from vaelab.models.parts import FeatureCritic


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


class PatchDiscriminator(FeatureCritic):
    """Convolutions of stride 2, then a logit for each place: (B, C, H, W) -> (B, H', W') (Isola et al. 2017).

    Each logit sees a patch of the image. Features are those before the logits.

    Args:
        shape: (C, H, W).
        channels: after each convolution of stride 2.
        activation: applied after every layer but the last.
        normalization: applied before every activation.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        activation: Activation = "leaky_relu",
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        widths = channels or [64, 128]
        self.encoder = ConvEncoder(
            shape, channels=widths, features=None, activation=activation, normalization=normalization
        )
        self.logit = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, C', H', W') of images."""
        found: Tensor = self.encoder(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, H', W') of the patches of images."""
        logits: Tensor = self.logit(self.features(x)).squeeze(1)
        return logits


class ImageDiscriminator(FeatureCritic):
    """A `ConvEncoder`, whose output are the features, then one logit: (B, C, H, W) -> (B,).

    Args:
        shape: (C, H, W).
        channels: after each convolution of stride 2.
        features: how many.
        activation: applied after every layer but the last.
        normalization: applied before every activation.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: Channels | None = None,
        features: Width = 256,
        activation: Activation = "leaky_relu",
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ConvEncoder(
            shape, channels=channels, features=features, activation=activation, normalization=normalization
        )
        self.logit = nn.Linear(features, 1)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, F) of images."""
        found: Tensor = self.encoder(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,) of images."""
        logits: Tensor = self.logit(self.features(x)).squeeze(-1)
        return logits
