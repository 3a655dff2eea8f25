"""Penalties on codes, weights and derivatives, which need no prior."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vaelab.losses.needs import kinds
from vaelab.losses.objective import Term
from vaelab.losses.step import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Codes
from vaelab.models.parts import CodePosterior, UnsuitableError
from vaelab.models.posteriors import (
    BinaryQuantizer,
    BinarySphericalQuantizer,
    Deterministic,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    VectorQuantizer,
)
from vaelab.models.precision import full_precision
from vaelab.models.schedules import Schedule, Weight
from vaelab.seeding import rademacher_like

Probability = Annotated[float, Field(gt=0, lt=1)]


class DIP(Term):
    """sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2, C the covariance of z (Kumar et al. 2018, equations 6, 7).

    Args:
        weight: lambda_od.
        diagonal: lambda_d / lambda_od; the paper has 10 for `means` and 1 for `samples`.
        covariance: of the `means` of q(z|x) over the images (DIP-VAE-I; of a flow or a chain its `mean`, which is not
            E[z]), or of `samples` of q(z), which is that plus the mean covariance of q(z|x) (DIP-VAE-II).
    """

    couples_images = True

    def __init__(
        self,
        *,
        weight: Weight | Schedule = 10.0,
        diagonal: Weight = 10.0,
        covariance: Literal["means", "samples"] = "means",
    ) -> None:
        super().__init__(weight=weight)
        self.diagonal, self.covariance = diagonal, covariance

    def requires(self, model: Autoencoder) -> None:
        q, _ = kinds(model)
        try:
            _ = q.variance if self.covariance == "samples" and q is not None else None
        except NotImplementedError as error:
            raise UnsuitableError(
                "with covariance=samples it needs the posterior's variance, which {} does not know: covariance=means",
                model.posterior,
            ) from error

    def forward(self, step: Step) -> Tensor:
        q = step.q
        centred = q.mean - q.mean.mean(0)  # (B, Z)
        with full_precision(centred):
            covariance = centred.T @ centred / len(centred)  # (Z, Z)
        if self.covariance == "samples":
            own = q.covariance_matrix if hasattr(q, "covariance_matrix") else q.variance.diag_embed()
            covariance = covariance + own.mean(0)
        variances = covariance.diagonal()
        others = covariance.square().sum() - variances.square().sum()
        return others + self.diagonal * (variances - 1).square().sum()


class CodeNorm(Term):
    """|z|^2 / 2, the mean over the batch: keeps a deterministic code near 0 (RAE, Ghosh et al. 2020)."""

    def forward(self, step: Step) -> Tensor:
        return step.z.square().sum(-1).mean() / 2


class DecoderNorm(Term):
    """|theta|^2, theta the decoder's weights and biases (RAE-L2, Ghosh et al. 2020, section 3.1)."""

    def requires(self, model: Autoencoder) -> None:
        if not any(True for _ in model.decoder.parameters()):
            raise UnsuitableError("{} has no weights", model.decoder)

    def forward(self, step: Step) -> Tensor:
        return torch.stack([weights.square().sum() for weights in step.model.decoder.parameters()]).sum()


class DecoderJacobian(Term):
    """|d D(z) / dz|_F^2, D(z) the mean of p(x|z) (RAE-GP, Ghosh et al. 2020; see `jacobian_norm`)."""

    differentiates = ("decoder", "likelihood")

    def forward(self, step: Step) -> Tensor:
        return jacobian_norm(lambda at: step.model.decode(at, step.y).mean, step.z).mean()


class EncoderJacobian(Term):
    """|d f(x) / dx|_F^2, f(x) the mean of q(z|x) (contractive, Rifai et al. 2011; see `jacobian_norm`)."""

    differentiates = ("encoder", "posterior")

    def forward(self, step: Step) -> Tensor:
        return jacobian_norm(lambda at: step.model.encode(at, step.y).mean, step.seen).mean()


class Sparsity(Term):
    """sum_j KL(Bernoulli(rate) || Bernoulli(mean of z_j over the batch)) in nats, z_j in (0, 1) (Ng 2011, section 3).

    Args:
        weight: beta.
        rate: rho, the target mean activation of a unit.
    """

    couples_images = True

    def __init__(self, *, weight: Weight | Schedule = 3.0, rate: Probability = 0.05) -> None:
        super().__init__(weight=weight)
        self.rate = rate

    def requires(self, model: Autoencoder) -> None:
        posterior = model.posterior
        if not (isinstance(posterior, Deterministic) and isinstance(posterior.activation, nn.Sigmoid)):
            message = "it needs codes between 0 and 1, and those of {} are not: those of {} with activation=sigmoid are"
            raise UnsuitableError(message, posterior, Deterministic)

    def forward(self, step: Step) -> Tensor:
        z = step.z
        tiny = torch.finfo(z.dtype).eps
        active = z.mean(0).clamp(tiny, 1 - tiny)  # (Z,)
        rate = torch.full_like(active, self.rate)
        on, off = rate * (rate / active).log(), (1 - rate) * ((1 - rate) / (1 - active)).log()
        return (on + off).sum()


class Commitment(Term):
    """|e - sg(z)|^2, e what the encoder gives, z its codes, sg without gradient (van den Oord et al. 2017, equation 3).

    Squares are summed over all codes of an image. A codebook that is trained by gradients adds |sg(e) - z|^2 to the
    loss; one that follows moving averages, or is not learned, adds nothing.
    """

    def requires(self, model: Autoencoder) -> None:
        if not isinstance(model.posterior, CodePosterior) or model.posterior.has_density:
            fits = [VectorQuantizer, FiniteScalarQuantizer]
            raise UnsuitableError("it needs codes, and {} has none", model.posterior, fits=fits)

    def forward(self, step: Step) -> Tensor:
        return _codes(step).commitment.mean()

    def contribution(self, step: Step, value: Tensor) -> Tensor:
        weighted, error = super().contribution(step, value), _codes(step).codebook_error
        return weighted if error is None else weighted + error.mean()


class CodeEntropy(Term):
    """L (E[H(b|e)] - diversity * H(E[b])) in nats an image, b the soft bits of a code (Yu et al. 2023, equation 5).

    The first entropy has each vector sure of its code, the second has all codes used. It is that of independent bits,
    sum_j H(E[b_j]), an upper bound of the codes' own that takes no sum over all K of them, as in Zhao et al. (2024,
    section 3.2).

    Args:
        weight: of the penalty.
        diversity: gamma.
    """

    couples_images = True

    def __init__(self, *, weight: Weight | Schedule = 0.1, diversity: Weight = 1.0) -> None:
        super().__init__(weight=weight)
        self.diversity = diversity

    def requires(self, model: Autoencoder) -> None:
        """Refuse codes that are not made of bits."""
        if not isinstance(model.posterior, BinaryQuantizer):
            raise UnsuitableError(
                "it needs codes of bits, and {} has none",
                model.posterior,
                fits=[LookupFreeQuantizer, BinarySphericalQuantizer],
            )

    def forward(self, step: Step) -> Tensor:
        """Nats."""
        logits = _codes(step).bit_logits
        assert logits is not None  # `requires` refuses others
        with full_precision(logits):
            each = binary_entropy(logits).sum((1, 2)).mean()
            tiny = torch.finfo(logits.dtype).eps
            share = logits.sigmoid().mean((0, 1)).clamp(tiny, 1 - tiny)  # (D,); at 0 and 1 it has no gradient
            together = (torch.special.entr(share) + torch.special.entr(1 - share)).sum()
        penalty: Tensor = each - self.diversity * logits.shape[1] * together
        return penalty


class CodeUse(Term):
    """The perplexity of a batch's codes: exp(entropy) of their frequencies, K if they are uniform. Only reported.

    Codes of several codebooks are different codes.
    """

    only_reported = True

    def forward(self, step: Step) -> Tensor:
        return perplexity(_codes(step).numbers)


class CodeLength(Term):
    """L log K: the nats that an image's codes take under a uniform prior. Only reported, where there is a prior."""

    uses_prior = True
    only_reported = True

    def forward(self, step: Step) -> Tensor | None:
        return kl_divergence(_codes(step), step.p_z).mean() if step.model.prior is not None else None


def jacobian_norm(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """An unbiased estimate of |d function / d at|_F^2 for each of B inputs, (B,).

    |J^T v|^2 with one vector v of random signs an input, whose expectation is the sum of the squares of J. Of all v
    with independent entries, signs have the least variance: 2 sum_{i != j} (J J^T)_ij^2 where v ~ N(0, I) has
    2 sum_ij (J J^T)_ij^2 (Hutchinson 1990). It costs one backward pass instead of as many as the function has outputs.
    Gradients flow on to the parameters of `function` and to `at`, where gradients are enabled.
    """
    training = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        at = at if at.requires_grad else at.clone().requires_grad_()
        value = function(at)
        direction = rademacher_like(value)
        (gradient,) = torch.autograd.grad(value, at, direction, create_graph=training)
        return gradient.flatten(1).square().sum(1)


def binary_entropy(logits: Tensor) -> Tensor:
    """H of bits that are 1 with probability sigmoid(logits), in nats: softplus(l) - l sigmoid(l)."""
    return nn.functional.softplus(logits) - logits * logits.sigmoid()


def perplexity(indices: Tensor) -> Tensor:
    """exp(entropy) of the frequencies of the codes. Memory grows with the codes that occur, not with the codebook."""
    ordered = indices.flatten().sort().values
    counts = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)  # of each one's
    return (math.log(len(ordered)) - counts.to(torch.get_default_dtype()).log().mean()).exp()


def _codes(step: Step) -> Codes:
    assert isinstance(step.q, Codes)  # `Commitment.requires` refuses others
    return step.q
