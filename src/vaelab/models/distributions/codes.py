"""Distributions over codes: a latent z that is a row of L vectors out of a finite set of K."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vaelab.models.distributions.elementary import Delta
from vaelab.models.networks.transformer import CausalTransformer
from vaelab.models.precision import in_full
from vaelab.seeding import uniform_like


class Codes(Delta):
    """The output of a quantizer: all mass at one row of codes, with the terms that train it.

    Args:
        value: the codes' vectors one after the other, (B, L D).
        indices: their numbers, (B, L), from 0 to codebook_size - 1.
        codebook_size: K.
        commitment: sum of squares between the encoder's vectors and their codes, pulling the encoder, (B,).
        codebook_error: the same number, pulling the codes, (B,); None where gradients do not train them.
        codebooks: which codebook each code is out of, (L,); None where there is one.
        bit_logits: of the soft bits that codes are made of, (B, L, D); None of other codes.
    """

    space = "codes"

    def __init__(
        self,
        value: Tensor,
        indices: Tensor,
        codebook_size: int,
        commitment: Tensor,
        codebook_error: Tensor | None = None,
        codebooks: Tensor | None = None,
        bit_logits: Tensor | None = None,
    ) -> None:
        self.indices = indices
        self.codebooks = codebooks
        self.bit_logits = bit_logits
        self.codebook_size = codebook_size
        self.commitment = commitment
        self.codebook_error = codebook_error
        super().__init__(value)

    @property
    def numbers(self) -> Tensor:
        """Numbers of the codes among those of all codebooks, (B, L): the ones of the first come first."""
        if self.codebooks is None:
            return self.indices
        return self.indices + self.codebook_size * self.codebooks.to(self.indices.device)


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

    @property
    def indices(self) -> Tensor:
        """Numbers of the most probable codes, (*batch, L)."""
        return self.log_probability.argmax(-1)

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


class CodeSequence(Distribution):
    """p(c) = prod_l p(c_l | c_1, ..., c_{l-1}) over rows of L codes, or p(c|y): vectors of z, event (Z,).

    Args:
        network: gives the logits (`vaelab.models.networks.transformer`).
        shifts: what is added to the number of each code for the network's token, (L,): codebooks have tokens of their
            own.
        vectors: numbers of codes (*, L) -> z, (*, Z).
        numbers: z -> numbers of codes, where they can be told by it.
        classes: of the labels that the network is told; None where it is told none.
        y: labels (B,); without them, where the network is told labels, each class is as likely.
        temperature: logits are divided by it, in samples alone.
        top_k: samples are of the so many likeliest codes; None for all.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)
    space = "codes"

    def __init__(
        self,
        network: CausalTransformer,
        shifts: Tensor,
        *,
        vectors: Callable[[Tensor], Tensor],
        numbers: Callable[[Tensor], Tensor],
        classes: int | None = None,
        y: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> None:
        self.network, self.shifts, self.vectors, self.numbers = network, shifts, vectors, numbers
        self.classes, self.y, self.temperature, self.top_k = classes, y, temperature, top_k
        size = vectors(torch.zeros_like(shifts)).shape[-1]
        super().__init__(torch.Size(() if y is None else y.shape), torch.Size([size]), validate_args=False)

    @property
    def length(self) -> int:
        """L."""
        return len(self.shifts)

    @property
    def size(self) -> int:
        """K."""
        return self.network.output.out_features

    def log_prob_of_codes(self, indices: Tensor) -> Tensor:
        """Log-probability in nats, (*batch), of the numbers of codes (*batch, L)."""
        rows = indices.reshape(-1, indices.shape[-1])
        if self.y is None and self.classes is not None:
            each = [self._log_prob(rows, rows.new_full((len(rows),), label)) for label in range(self.classes)]
            found = torch.stack(each).logsumexp(0) - math.log(self.classes)
        else:
            context = rows.new_zeros(len(rows)) if self.y is None else self.y.expand(indices.shape[:-1]).reshape(-1)
            found = self._log_prob(rows, context)
        return found.reshape(indices.shape[:-1])

    def log_prob(self, value: Tensor) -> Tensor:
        """The same of z, where its codes can be told."""
        return self.log_prob_of_codes(self.numbers(value))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """z, (*sample_shape, *batch, Z)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.vectors(self.sample_codes(shape))

    @torch.no_grad()
    def sample_codes(self, shape: torch.Size) -> Tensor:
        """Numbers of codes, (*shape, L), drawn one after the other with a cache of keys and values."""
        count, device = shape.numel(), self.shifts.device
        if self.y is not None:
            context = self.y.expand(shape).reshape(-1)
        else:
            context = torch.randint(self.classes or 1, (count,), device=device)
        drawn = [self._sample(part) for part in context.split(self._rows_at_once())]
        return torch.cat(drawn).reshape(*shape, -1)

    def _sample(self, context: Tensor) -> Tensor:
        cache, token, codes = self.network.empty_cache(len(context)), context, []
        for position, shift in enumerate(self.shifts.tolist()):
            logits = in_full(self.network.next(token, position, cache)) / self.temperature
            if self.top_k is not None and self.top_k < logits.shape[-1]:
                least = logits.topk(self.top_k).values[:, -1:]
                logits = logits.masked_fill(logits < least, -math.inf)
            codes.append(torch.multinomial(logits.softmax(-1), 1)[:, 0])
            token = codes[-1] + shift
        return torch.stack(codes, 1)

    def _log_prob(self, rows: Tensor, context: Tensor) -> Tensor:
        found = []
        for codes, label in zip(*(given.split(self._rows_at_once()) for given in (rows, context)), strict=True):
            log_probability = in_full(self.network(codes + self.shifts, label)).log_softmax(-1)
            found.append(log_probability.gather(-1, codes[..., None])[..., 0].sum(-1))
        return torch.cat(found)

    def _rows_at_once(self) -> int:
        """Rows whose hidden layers are about 64 million numbers."""
        return max(
            1, 2**26 // (len(self.shifts) * (8 * self.network.positions.shape[1] + self.network.output.out_features))
        )


@register_kl(Codes, UniformCodes)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_codes(q: Codes, p: UniformCodes) -> Tensor:
    """KL = L log K, since q is deterministic (van den Oord et al. 2017, section 3.1)."""
    return q.commitment.new_full(q.batch_shape, p.log_size)


@register_kl(OneHotCodes, UniformCodes)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_categoricals(q: OneHotCodes, p: UniformCodes) -> Tensor:
    """KL = L log K minus the entropy of q."""
    return p.log_size - q.entropy()


@register_kl(Codes, CodeSequence)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_to_sequence(q: Codes, p: CodeSequence) -> Tensor:
    """-log p(c): q is sure of its codes."""
    return -p.log_prob_of_codes(q.indices)
