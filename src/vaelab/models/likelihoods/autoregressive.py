"""The likelihood of binary pixels that look at those before them."""

from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.distributions import AutoregressiveBernoulliImage
from vaelab.models.likelihoods.images import Shape
from vaelab.models.networks.causal import CausalConvolutions
from vaelab.models.networks.convolutional import Blocks, Width
from vaelab.models.parts import Likelihood


class AutoregressiveBernoulli(Likelihood):
    """p(x|z) = prod_i p(x_i|x_<i, z), pixels i row by row (PixelVAE, Gulrajani et al. 2017, section 3).

    The logit of pixel i is theta_i0 + f_i0 + sum_{k>0} theta_ik f_ik: the decoder gives the `features` numbers
    theta_i(z), and causal convolutions of the pixels before i the features f_i(x_<i). So the convolutions run once for
    all samples of z. The channels of a pixel are independent given z and the pixels before it.

    Args:
        shape: (C, H, W) of an image.
        features: K, numbers of the decoder for each pixel and channel.
        channels: of the causal convolutions.
        kernel: width of the first one, odd; the `blocks` after it are 3 wide.
        blocks: residual blocks after the first convolution.

    Raises:
        ValueError: an event is no image, or the kernel is even.
    """

    normalized_over = "binary"

    def __init__(
        self, shape: Shape, *, features: Width = 4, channels: Width = 16, kernel: Width = 7, blocks: Blocks = 2
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"loss=autoregressive_bernoulli is of images (C, H, W), and these are events of shape {shape}: "
                "take another loss"
            )
        self.shape, self.parameter_shape = shape, (features * shape[0], *shape[1:])
        self.before = CausalConvolutions(shape[0], features * shape[0], channels=channels, kernel=kernel, blocks=blocks)

    def forward(self, parameters: Tensor) -> Distribution:
        """p(x|z) from theta (*batch, K C, H, W)."""
        theta = parameters.unflatten(-3, (-1, self.shape[0]))
        return AutoregressiveBernoulliImage(theta, self.before, self.before.reach)
