"""Terms that own critics: networks trained against the model, of latents or of images."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vaelab.losses.divergences import mmd_to_prior, moment_matched_total_correlation
from vaelab.losses.needs import need_density, need_independent_dimensions, need_prior, need_uncoupled
from vaelab.losses.objective import Critics, Term
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.parts import FeatureCritic, UnsuitableError
from vaelab.models.precision import in_full
from vaelab.models.priors import StandardNormal
from vaelab.models.schedules import Schedule, Weight

Part = Callable[..., Any]
AdversarialLoss = Literal["non_saturating", "hinge"]
Fakes = Literal["reconstructions", "samples", "both"]


class Adversary(Term):
    """A term with one critic, D, whose logits (B,) are large for what it takes for real.

    Args:
        weight: a number, or a schedule of the optimizer's step.
        discriminator: size Z of latents, or shape (C, H, W) of images -> D.
        optimizer: D's parameters -> their optimizer.
    """

    critic: nn.Module

    def __init__(self, *, weight: Weight | Schedule, discriminator: Part, optimizer: Part) -> None:
        super().__init__(weight=weight)
        self.discriminator, self.optimizer = discriminator, optimizer

    def build(self, model: Autoencoder) -> None:
        self.critic = self.discriminator(model.posterior.latent_dim)

    def logits(self, seen: Tensor) -> Tensor:
        """D's, (B,), in full precision."""
        return in_full(self.critic(seen))

    @abstractmethod
    def critic_loss(self, step: Step) -> Tensor:
        """The loss of D; no gradient reaches the model."""

    def critics(self) -> Critics:
        return {"discriminator": (self.critic, self.optimizer)}

    def critic_losses(self, step: Step) -> dict[str, Tensor]:
        return {"discriminator": self.critic_loss(step)}


class DensityRatioTotalCorrelation(Adversary):
    """TC(z) = E_q[log D(z) - log(1 - D(z))] in nats (FactorVAE, Kim & Mnih 2018, equation 3).

    D is the probability that z is a sample of q(z) rather than of prod_j q(z_j), of which permuting each dimension over
    the batch makes samples (their algorithm 1, which permutes a second batch; this one permutes the same, and costs
    half). An evaluation takes `moment_matched_total_correlation`, as `gaussian_tc`.
    """

    couples_images = True
    evaluated_as = "gaussian_tc"

    def requires(self, model: Autoencoder) -> None:
        need_density(model)
        need_independent_dimensions(model)

    def forward(self, step: Step) -> Tensor:
        value: Tensor = self.logits(step.z).mean()
        return value

    def evaluate(self, step: Step) -> Tensor:
        return moment_matched_total_correlation(step.q)

    def critic_loss(self, step: Step) -> Tensor:
        z = step.z.detach()
        return discriminator_loss(self.logits, z, permuted(z))


class LatentAdversary(Adversary):
    """E_q[-log D(z)], D the probability that z is a sample of p(z) rather than of q(z) (Makhzani et al. 2015).

    The paper trains the autoencoder in two phases; here they are one step. An evaluation takes the MMD of z and p(z).
    """

    uses_prior = True
    evaluated_as = "mmd"

    def requires(self, model: Autoencoder) -> None:
        need_prior(model)
        assert model.prior is not None
        if any(True for _ in model.prior.parameters()):
            message = "it brings the posterior to the prior, and would not train {} itself"
            raise UnsuitableError(message, model.prior, fits=[StandardNormal])

    def forward(self, step: Step) -> Tensor:
        return F.softplus(-self.logits(step.z)).mean()

    def evaluate(self, step: Step) -> Tensor:
        return mmd_to_prior(step)

    def critic_loss(self, step: Step) -> Tensor:
        return discriminator_loss(self.logits, step.sample_prior(), step.z.detach())


class ImageAdversary(Adversary):
    """The decoder's loss against a critic of images, D > 0 for images that it takes for real.

    `non_saturating`: -log sigmoid(D(x')) (Goodfellow et al. 2014); `hinge`: -D(x') (Lim & Ye 2017). The critic's own
    loss is the cross-entropy, or relu(1 - D(x)) + relu(1 + D(x')), plus r1 / 2 |dD(x)/dx|^2 (Mescheder et al. 2018,
    equation 9). Summed over the kinds of x', the mean over the patches of a critic of patches. An evaluation leaves it
    out.

    With `adaptive` the weight is multiplied by |dL/dw| / |dA/dw|, w the decoder's last weights, L the loss without this
    term and those after it, A this term: both then pull the decoder's output alike (Esser et al. 2021, equation 7).

    Args:
        loss: `non_saturating` or `hinge`.
        fakes: x': the means of p(x|z) at `reconstructions`' z, at `samples` of the prior, or `both`.
        r1: weight of the gradient penalty; 0 for none.
        encoder: whether the gradient reaches the encoder; not in a VAE-GAN (Larsen et al. 2016, section 2.3).
        start: the optimizer step at which the term begins; before, the term is 0 and the critic does not change.
        adaptive: whether the weight follows the size of the gradients.
    """

    def __init__(
        self,
        *,
        weight: Weight | Schedule = 1.0,
        discriminator: Part,
        optimizer: Part,
        loss: AdversarialLoss = "hinge",
        fakes: Fakes = "reconstructions",
        r1: Weight = 0.0,
        encoder: bool = True,
        start: Annotated[int, Field(ge=0)] = 0,
        adaptive: bool = False,
    ) -> None:
        super().__init__(weight=weight, discriminator=discriminator, optimizer=optimizer)
        self.loss, self.fakes, self.r1, self.encoder = loss, fakes, r1, encoder
        self.start, self.adaptive = start, adaptive

    def requires(self, model: Autoencoder) -> None:
        if len(model.likelihood.shape) != 3:
            shape = model.likelihood.shape
            raise UnsuitableError(f"its critic sees images (C, H, W), and the data have the shape {shape}")
        if self.fakes != "reconstructions":
            need_prior(model)

    def build(self, model: Autoencoder) -> None:
        self.critic = self.discriminator(model.likelihood.shape)
        if self.r1 > 0:
            instead = "r1=0, or a critic with normalization=layer or group"
            need_uncoupled("r1 takes the critic's gradient at each image", self.critic, instead=instead)

    def made(self, step: Step) -> list[Tensor]:
        """The kinds of x', (B, C, H, W) each."""
        images = []
        if self.fakes != "samples":
            p_x = step.p_x if self.encoder else step.model.decode(step.z.detach(), step.y)
            images.append(p_x.mean)
        if self.fakes != "reconstructions":
            images.append(step.model.decode(step.sample_prior(), step.y).mean)
        return images

    def forward(self, step: Step) -> Tensor:
        if step.number < self.start:
            return step.x.new_zeros(())
        logits = [self.logits(x) for x in self.made(step)]
        losses = [F.softplus(-logit) if self.loss == "non_saturating" else -logit for logit in logits]
        return torch.stack(losses).sum(0).mean()

    def contribution(self, step: Step, value: Tensor) -> Tensor:
        """The term times its weight and, where that is adaptive, what makes its gradient as large as the rest's."""
        weighted = super().contribution(step, value)
        if not self.adaptive or not value.requires_grad:
            return weighted
        weights = [weight for weight in step.model.decoder.parameters() if weight.ndim > 1 and weight.requires_grad][-1]
        (rest,) = torch.autograd.grad(step.loss_before, weights, retain_graph=True)
        (own,) = torch.autograd.grad(value, weights, retain_graph=True)
        adapted: Tensor = (rest.norm() / (own.norm() + 1e-4)).clamp(max=1e4).detach() * weighted
        return adapted

    def evaluate(self, step: Step) -> None:
        """Leave it out: a critic's value at one step cannot be compared with that at another."""

    def critic_loss(self, step: Step) -> Tensor:
        if step.number < self.start:  # a gradient of zero, so that the critic does not change
            return 0 * torch.stack([weight.sum() for weight in self.critic.parameters()]).sum()
        with torch.no_grad():
            made = [image.detach() for image in self.made(step)]  # those of the step are part of its graph
        x = step.x.detach().requires_grad_(self.r1 > 0)
        real, fakes = self.logits(x), [self.logits(image) for image in made]
        loss = torch.stack([self._critic_loss_of_fakes(-real), *map(self._critic_loss_of_fakes, fakes)]).sum(0)
        if self.r1 > 0:
            of_image = real.reshape(len(real), -1).mean(1)
            (gradient,) = torch.autograd.grad(of_image.sum(), x, create_graph=True)
            return loss.mean() + self.r1 / 2 * gradient.square().flatten(1).sum(1).mean()
        return loss.mean()

    def _critic_loss_of_fakes(self, logits: Tensor) -> Tensor:
        """The critic's loss of fakes; that of real images is the same of -logits."""
        return F.softplus(logits) if self.loss == "non_saturating" else F.relu(1 + logits)


class CriticFeatures(Term):
    """|f(x) - f(x')|^2 / 2, f the features of an image critic, x' the mean of p(x|z) (Larsen et al. 2016, equation 7).

    It is -log N(f(x) | f(x'), I) but for a constant. The critic is that of another term, which also trains it. An
    evaluation leaves it out.

    Args:
        adversary: the name of the other term.
    """

    def __init__(self, *, weight: Weight | Schedule = 1.0, adversary: str = "adversary") -> None:
        super().__init__(weight=weight)
        self.adversary = adversary
        self._features: Callable[[Tensor], Tensor] | None = None

    def bind(self, terms: Mapping[str, Term]) -> None:
        other = terms.get(self.adversary)
        if not (isinstance(other, ImageAdversary) and isinstance(other.critic, FeatureCritic)):
            message = "it needs the features of a critic of images, and no term {} has such a critic"
            raise UnsuitableError(message, self.adversary, fits=[ImageAdversary])
        self._features = other.critic.features

    def forward(self, step: Step) -> Tensor:
        assert self._features is not None
        difference = in_full(self._features(step.x)) - in_full(self._features(step.p_x.mean))
        return difference.square().flatten(1).sum(1).mean() / 2

    def evaluate(self, step: Step) -> None:
        """Leave it out: the features of one step cannot be compared with those of another."""


def discriminator_loss(discriminator: Callable[[Tensor], Tensor], positive: Tensor, negative: Tensor) -> Tensor:
    """-(log D(positive) + log(1 - D(negative))) / 2 in nats, the batch's mean: log 2 for one that guesses."""
    return (F.softplus(-discriminator(positive)) + F.softplus(discriminator(negative))).mean() / 2


def permuted(z: Tensor) -> Tensor:
    """Permute each dimension of z (B, Z) independently over the batch (Kim & Mnih 2018, algorithm 1)."""
    return z.gather(0, torch.rand_like(z).argsort(0))
