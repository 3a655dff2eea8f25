"""Posteriors over codes: z is a row of L vectors, each out of a finite set of K.

`latent_dim` is the size D of one vector, and z has L D numbers. Besides what every posterior has, these have `codes`
(L), `codebook_size` (K) and `vectors(indices)`, from which prior=uniform_codes is made.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions import Codes, OneHotCodes
from vaelab.models.networks.projections import CodeProjection, Features
from vaelab.models.parts import CodePosterior
from vaelab.models.precision import full_precision
from vaelab.models.schedules import Schedule, at

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Gradient = Literal["straight_through", "rotation"]
Update = Literal["ema", "gradient"]


class GumbelSoftmax(CodePosterior):
    """q(z|x): L independent categorical variables of K = latent_dim values each, as one-hot vectors.

    While training, samples are relaxed at a temperature, so that they have a gradient (Jang et al. 2017; Maddison et
    al. 2017); in evaluation they are one-hot, so that an ELBO is one. Goes with prior=uniform_codes.

    Args:
        features: size F of the encoder's output.
        latent_dim: K.
        codes: L; None for as many as the encoder's grid has places, or 1.
        temperature: a number, or a schedule of the training batches seen.
        straight_through: round relaxed samples to one-hot vectors and keep their gradient.
    """

    has_density = True
    relaxes_samples = True

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        codes: Positive | None = None,
        temperature: Temperature | Schedule = 1.0,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        if min(at(temperature, 0), at(temperature, math.inf)) <= 0:
            raise ValueError("posterior.temperature has to start and end above 0")
        self.project = CodeProjection(features, latent_dim, codes)
        self.codes = self.project.codes
        self.codebook_size = latent_dim
        self.latent_dim = self.codes * latent_dim
        self.temperature = temperature
        self.straight_through = straight_through
        self.seen = BatchesSeen()

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (L K,)."""
        seen = self.seen()
        temperature = at(self.temperature, seen) if self.training else None
        return OneHotCodes(self.project(features), temperature, straight_through=self.straight_through)

    def vectors(self, indices: Tensor) -> Tensor:
        """One-hot vectors one after the other, (*, L K), of the numbers of codes (*, L)."""
        return F.one_hot(indices, self.codebook_size).to(torch.get_default_dtype()).flatten(-2)


class VectorQuantizer(CodePosterior):
    """z = the nearest of K learned vectors, for each of L vectors of the encoder (van den Oord et al. 2017).

    The first training batch places the codes by k-means. They follow the encoder's vectors by moving averages,
    code k = s_k / n_k, where n_k is that of the number of vectors nearest to it and s_k that of their sum (appendix
    A.1), or by the gradient of the squared error. A code whose use n_k has fallen below `revive_below` of the average
    is put on one of the batch's vectors, drawn at random. Goes with objective=vector_quantization.

    Args:
        features: size F of the encoder's output, or shape of its grid, which has a code at each place.
        latent_dim: size D of a code.
        codebook_size: K.
        codes: L; None for as many as the encoder's grid has places, or 1.
        update: `ema`, or `gradient`.
        decay: of the moving averages, a batch.
        revive_below: share of the average use; 0 revives none.
        kmeans_iterations: of the start; 0 takes vectors of the batch as they are.
        gradient: of z in the encoder's vector: `straight_through`, or that of the rotation that takes it to its code
            (`rotation`, Fifty et al. 2024).
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        codebook_size: Annotated[int, Field(gt=1)] = 512,
        codes: Positive | None = None,
        update: Update = "ema",
        decay: Share = 0.99,
        revive_below: Share = 0.03,
        kmeans_iterations: Annotated[int, Field(ge=0)] = 10,
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__()
        self.project = CodeProjection(features, latent_dim, codes)
        self.codes = self.project.codes
        self.codebook_size = codebook_size
        self.latent_dim = self.codes * latent_dim
        self.update = update
        self.decay = decay
        self.revive_below = revive_below
        self.kmeans_iterations = kmeans_iterations
        self.gradient = gradient
        self.seen = BatchesSeen()
        self.codebook = nn.Parameter(torch.randn(codebook_size, latent_dim), requires_grad=update == "gradient")
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", self.codebook.detach().clone())

    def forward(self, features: Tensor) -> Distribution:
        """The codes: batch (B,), event (L D,)."""
        vectors = self.project(features)  # (B, L, D)
        seen = self.seen()
        if self.training:
            (self._revive if seen else self._start)(vectors.detach().flatten(0, 1))
        indices = nearest(vectors, self.codebook)  # (B, L)
        codes = F.embedding(indices, self.codebook)  # (B, L, D)
        if self.training:
            self._follow(vectors.detach().flatten(0, 1), indices.flatten())
        through = rotated if self.gradient == "rotation" else straight_through
        return Codes(
            through(vectors, codes.detach()).flatten(1),
            indices,
            self.codebook_size,
            commitment=(vectors - codes.detach()).square().sum((1, 2)),
            codebook_error=(vectors.detach() - codes).square().sum((1, 2)) if self.update == "gradient" else None,
        )

    def vectors(self, indices: Tensor) -> Tensor:
        """Codes one after the other, (*, L D), of their numbers (*, L)."""
        return F.embedding(indices, self.codebook).flatten(-2)

    @torch.no_grad()
    def _start(self, vectors: Tensor) -> None:
        """Place all codes among the vectors (N, D) of the first batch."""
        chosen = torch.randperm(len(vectors), device=vectors.device)[: self.codebook_size]
        again = torch.randint(len(vectors), (self.codebook_size - len(chosen),), device=vectors.device)
        start = vectors[torch.cat([chosen, again])]
        codebook, counts = kmeans(vectors, start, self.kmeans_iterations)
        _from_first_process(codebook, counts)
        self.codebook.copy_(codebook)
        self.counts.copy_(counts)
        self.sums.copy_(codebook * counts[:, None])

    @torch.no_grad()
    def _revive(self, vectors: Tensor) -> None:
        """Put codes that are not in use on vectors (N, D) of the batch."""
        # Drawn whether one is needed or not: that is not worth a question to the device.
        drawn = vectors[torch.randint(len(vectors), (self.codebook_size,), device=vectors.device)]
        _from_first_process(drawn)
        average = self.counts.mean()
        idle = self.counts < self.revive_below * average
        self.codebook.copy_(torch.where(idle[:, None], drawn, self.codebook))
        self.sums.copy_(torch.where(idle[:, None], drawn * average, self.sums))
        self.counts.copy_(torch.where(idle, average, self.counts))

    @torch.no_grad()
    def _follow(self, vectors: Tensor, indices: Tensor) -> None:
        """Take vectors (N, D), nearest to codes (N,), into the moving averages and, by `ema`, move the codes there."""
        counts, sums = sums_by_code(vectors, indices, self.codebook_size)
        _over_processes(counts, sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        if self.update == "ema":
            used = self.counts > 1e-6  # below, the quotient has no digits left
            means = self.sums / self.counts.clamp(min=1e-6)[:, None]
            self.codebook.copy_(torch.where(used[:, None], means, self.codebook))

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"codes={self.codes}, codebook_size={self.codebook_size}, size={self.codebook.shape[1]}"


class FiniteScalarQuantizer(CodePosterior):
    """Each number of z is rounded to one of a few levels; no codebook is learned (Mentzer et al. 2024).

    Dimension j takes `levels[j]` values, evenly spaced from -1 to 1: z_j is the one nearest to tanh(e_j), with the
    gradient of tanh. K is the product of the levels. (For an even number of levels the paper shifts the values, so that
    0 is one of them; here they are symmetric.) Goes with objective=vector_quantization, which has nothing to commit.

    Args:
        features: size F of the encoder's output, or shape of its grid, which has a code at each place.
        latent_dim: size D of a code.
        levels: of each of the D dimensions.
        codes: L; None for as many as the encoder's grid has places, or 1.

    Raises:
        ValueError: there are not D levels, or their product is beyond what an index can count.
    """

    steps: Tensor
    bases: Tensor

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        levels: Annotated[list[Annotated[int, Field(gt=1)]], Field(min_length=1)],
        codes: Positive | None = None,
    ) -> None:
        super().__init__()
        if len(levels) != latent_dim:
            raise ValueError(
                f"posterior.levels has {len(levels)} entries and latent_dim={latent_dim}: each dimension of a code has "
                f"one; latent_dim={len(levels)} fits"
            )
        self.codebook_size = math.prod(levels)
        if self.codebook_size >= 2**63:
            raise ValueError(f"posterior.levels multiply to {self.codebook_size} codes: more than can be numbered")
        self.project = CodeProjection(features, latent_dim, codes)
        self.codes = self.project.codes
        self.latent_dim = self.codes * latent_dim
        self.levels = levels
        self.register_buffer("steps", torch.tensor(levels) - 1, persistent=False)
        bases = [math.prod(levels[:number]) for number in range(len(levels))]
        self.register_buffer("bases", torch.tensor(bases), persistent=False)

    def forward(self, features: Tensor) -> Distribution:
        """The codes: batch (B,), event (L D,)."""
        bounded = self.project(features).tanh()  # (B, L, D)
        digits = ((bounded + 1) / 2 * self.steps).round()  # 0 ... level - 1
        values = digits / self.steps * 2 - 1
        indices = (digits.to(torch.int64) * self.bases).sum(-1)  # (B, L)
        nothing = bounded.new_zeros(bounded.shape[0])
        return Codes(straight_through(bounded, values).flatten(1), indices, self.codebook_size, commitment=nothing)

    def vectors(self, indices: Tensor) -> Tensor:
        """Codes one after the other, (*, L D), of their numbers (*, L)."""
        digits = indices.unsqueeze(-1) // self.bases % (self.steps + 1)
        return (digits / self.steps * 2 - 1).flatten(-2)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"codes={self.codes}, levels={self.levels}"


class BatchesSeen(nn.Module):
    """How many training batches there have been; part of a checkpoint, and never on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self) -> int:
        """The number before this batch, which counts if it is one of training."""
        count = self.count
        self.count += self.training
        return count

    def get_extra_state(self) -> Tensor:
        """The number, for a checkpoint."""
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it up."""
        self.count = int(state)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The number of the code (K, D) that is nearest to each of `vectors` (*, D), (*)."""
    with torch.no_grad(), full_precision(vectors):
        return (codebook.square().sum(-1) - 2 * vectors @ codebook.T).argmin(-1)


def straight_through(vectors: Tensor, codes: Tensor) -> Tensor:
    """The codes to the bit, with the gradient of the vectors."""
    return codes + (vectors - vectors.detach())


def rotated(vectors: Tensor, codes: Tensor) -> Tensor:
    """The codes, with the gradient of (|q| / |e|) R e, R the rotation that takes e to the direction of its code q.

    R and the lengths are constants (Fifty et al. 2024): R e = e - 2 r (r . e) + 2 q^ (e^ . e), where e^ and
    q^ are unit vectors and r = (e^ + q^) / |e^ + q^|.
    """
    e, q = F.normalize(vectors.detach(), dim=-1), F.normalize(codes, dim=-1)
    r = F.normalize(e + q, dim=-1)
    stretch = codes.norm(dim=-1, keepdim=True) / vectors.detach().norm(dim=-1, keepdim=True).clamp(min=1e-6)

    def along(direction: Tensor) -> Tensor:
        return (vectors * direction).sum(-1, keepdim=True)

    return straight_through(stretch * (vectors - 2 * r * along(r) + 2 * q * along(e)), codes)


def sums_by_code(vectors: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """How many vectors (N, D) each code has, (K,), and their sums, (K, D)."""
    counts = vectors.new_zeros(codebook_size).index_add_(0, indices, vectors.new_ones(len(indices)))
    return counts, vectors.new_zeros(codebook_size, vectors.shape[1]).index_add_(0, indices, vectors)


def kmeans(vectors: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from `start` (K, D): centres (K, D), and how many of the vectors (N, D) each has, (K,).

    A centre without a vector stays where it is.
    """
    centres = start
    for _ in range(iterations):
        counts, sums = sums_by_code(vectors, nearest(vectors, centres), len(centres))
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres, sums_by_code(vectors, nearest(vectors, centres), len(centres))[0]


def _over_processes(*tensors: Tensor) -> None:
    """Add up what the processes have that share a batch, in place."""
    if torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def _from_first_process(*tensors: Tensor) -> None:
    """Have in all processes what the first one has, in place."""
    if torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)
