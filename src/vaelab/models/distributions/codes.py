"""Distributions over codes: a latent z that is a row of L vectors out of a finite set of K."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vaelab.models.distributions.elementary import Delta
from vaelab.seeding import uniform_like


class Codes(Delta):
    """The output of a quantizer: all mass at one row of codes, with the terms that train it.

    Args:
        value: the codes' vectors one after the other, (B, L D).
        indices: their numbers, (B, L), from 0 to codebook_size - 1.
        codebook_size: K.
        commitment: sum of squares between the encoder's vectors and their codes, pulling the encoder, (B,).
        codebook_error: the same number, pulling the codes, (B,); None where gradients do not train them.
    """

    space = "codes"

    def __init__(
        self,
        value: Tensor,
        indices: Tensor,
        codebook_size: int,
        commitment: Tensor,
        codebook_error: Tensor | None = None,
    ) -> None:
        self.indices = indices
        self.codebook_size = codebook_size
        self.commitment = commitment
        self.codebook_error = codebook_error
        super().__init__(value)


class OneHotCodes(Distribution):
    """L categorical variables as one-hot vectors, one after the other: event (L K,).

    `log_prob` is that of one-hot vectors. With a temperature, samples are relaxed to the inside of the simplex, so that
    they have a gradient: softmax((logits + Gumbel noise) / temperature) (Jang et al. 2017; Maddison et al. 2017);
    `straight_through` rounds them to one-hot vectors and keeps that gradient.

    Args:
        logits: (*batch, L, K).
        temperature: None draws one-hot vectors, without a gradient.
        straight_through: whether relaxed samples are rounded.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    has_rsample = True
    space = "codes"

    def __init__(self, logits: Tensor, temperature: float | None = None, *, straight_through: bool = False) -> None:
        self.log_probability = logits.log_softmax(-1)  # (*batch, L, K)
        self.temperature = temperature
        self.straight_through = straight_through
        *batch, codes, size = logits.shape
        self.codebook_size = size
        super().__init__(torch.Size(batch), torch.Size([codes * size]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The probabilities, (*batch, L K)."""
        return self.log_probability.exp().flatten(-2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Relaxed or one-hot vectors, (*sample_shape, *batch, L K)."""
        tiny = torch.finfo(self.log_probability.dtype).tiny
        uniform = uniform_like(self.log_probability, torch.Size(sample_shape)).clamp(min=tiny)
        perturbed = self.log_probability - (-uniform.log()).log()
        hard = torch.zeros_like(perturbed).scatter(-1, perturbed.argmax(-1, keepdim=True), 1.0)
        if self.temperature is None:
            return hard.flatten(-2)
        soft = (perturbed / self.temperature).softmax(-1)
        return (hard + soft - soft.detach() if self.straight_through else soft).flatten(-2)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`rsample`, without its gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of one-hot vectors in nats, (*sample, *batch)."""
        return (value * self.log_probability.flatten(-2)).sum(-1)

    def entropy(self) -> Tensor:
        """Nats, (*batch)."""
        return -(self.log_probability.exp() * self.log_probability).sum((-2, -1))


class UniformCodes(Distribution):
    """A uniform distribution over rows of L codes, each one of K.

    Args:
        codes: L.
        codebook_size: K.
        vectors: numbers of codes (*, L) -> their vectors one after the other, (*, L D).
        like: where samples are made.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    space = "codes"

    def __init__(self, codes: int, codebook_size: int, vectors: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.codes = codes
        self.codebook_size = codebook_size
        self.vectors = vectors
        self.like = like
        size = vectors(torch.zeros(codes, dtype=torch.int64, device=like.device)).shape[-1]
        super().__init__(torch.Size(), torch.Size([size]), validate_args=False)

    @property
    def log_size(self) -> float:
        """L log K: the logarithm of the number of rows of codes."""
        return self.codes * math.log(self.codebook_size)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Rows of codes, (*sample_shape, L D)."""
        shape = (*torch.Size(sample_shape), self.codes)
        with torch.no_grad():
            return self.vectors(torch.randint(self.codebook_size, shape, device=self.like.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """-L log K of every row of codes, (*sample)."""
        return value.new_full(value.shape[:-1], -self.log_size)


@register_kl(Codes, UniformCodes)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_codes(q: Codes, p: UniformCodes) -> Tensor:
    """KL = L log K, since q is deterministic (van den Oord et al. 2017, section 3.1)."""
    return q.commitment.new_full(q.batch_shape, p.log_size)


@register_kl(OneHotCodes, UniformCodes)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_categoricals(q: OneHotCodes, p: UniformCodes) -> Tensor:
    """KL = L log K minus the entropy of q."""
    return p.log_size - q.entropy()
