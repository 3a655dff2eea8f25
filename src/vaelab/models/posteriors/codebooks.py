"""Posteriors over codes out of learned codebooks."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions import Codes
from vaelab.models.networks.activations import Activation, activation_module
from vaelab.models.networks.convolutional import CONVOLUTIONS, ResidualBlock
from vaelab.models.networks.projections import CodeProjection, Features
from vaelab.models.parts import CodePosterior
from vaelab.models.posteriors.codes import BatchesSeen, straight_through
from vaelab.models.precision import full_precision

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Gradient = Literal["straight_through", "rotation"]
Update = Literal["ema", "gradient", "linear"]


class VectorQuantizer(CodePosterior):
    """z = the nearest of K learned vectors, for each of L vectors of the encoder (van den Oord et al. 2017).

    With `groups` a vector is cut into so many, each with a codebook of its own: together they have K^groups vectors
    (Jegou et al. 2011). With `depth` d, code i of a vector is the one nearest to what the codes before it have left,
    r_i = r_{i-1} - q_{i-1}, r_1 = e, from a codebook of its own, and z is their sum (Zeghidour et al. 2021; Lee et al.
    2022). A vector then has groups * depth codes, those of a group one after the other. For the codebooks see
    `Codebook`. Goes with objective=vector_quantization.

    Args:
        features: size F of the encoder's output, or shape of its grid, which has a vector at each place.
        latent_dim: size D of a vector.
        codebook_size: K, of each codebook.
        groups: pieces that a vector is cut into.
        depth: codes of a piece, one after the other.
        codes: how many vectors an image has; None for as many as the encoder's grid has places, or 1.
        update: `ema`, `gradient` or `linear`.
        decay: of the moving averages, a batch.
        revive_below: share of the average use; 0 revives none.
        kmeans_iterations: of the start; 0 takes vectors of the batch as they are.
        gradient: of z in the encoder's vector: `straight_through`, or that of the rotation that takes it to its code
            (`rotation`, Fifty et al. 2024).

    Raises:
        ValueError: D is not a multiple of `groups`.
    """

    books: Tensor | None

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        codebook_size: Annotated[int, Field(gt=1)] = 512,
        groups: Positive = 1,
        depth: Positive = 1,
        codes: Positive | None = None,
        update: Update = "ema",
        decay: Share = 0.99,
        revive_below: Share = 0.03,
        kmeans_iterations: Annotated[int, Field(ge=0)] = 10,
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__()
        if latent_dim % groups:
            raise ValueError(f"posterior.groups={groups} does not divide latent_dim={latent_dim}, the size of a vector")
        self.project = CodeProjection(features, latent_dim, codes)
        self.codebook_size, self.groups, self.depth, self.gradient = codebook_size, groups, depth, gradient
        self.latent_dim = self.project.codes * latent_dim
        self.grids, self.per_place = (self.project.grid,), groups * depth
        self.codes = self.project.codes * self.per_place
        self.register_buffer("books", self.codebook_of_each(), persistent=False)
        self.codebooks = nn.ModuleList(
            [
                Codebook(
                    codebook_size,
                    latent_dim // groups,
                    update=update,
                    decay=decay,
                    revive_below=revive_below,
                    kmeans_iterations=kmeans_iterations,
                )
                for _ in range(self.per_place)
            ]
        )

    def forward(self, features: Tensor) -> Distribution:
        """The codes: batch (B,), event (L D,)."""
        vectors = self.project(features)  # (B, places, D)
        through = rotated if self.gradient == "rotation" else straight_through
        pieces, indices, commitment, error = [], [], [], []
        for group, piece in enumerate(vectors.chunk(self.groups, -1)):
            residual, code = piece, torch.zeros_like(piece.detach())
            for codebook in self._of_group(group):
                found = codebook(residual)
                residual, code = residual - found.codes.detach(), code + found.codes.detach()
                indices.append(found.indices)
                commitment.append(found.commitment)
                error.append(found.error)
            pieces.append(through(piece, code))
        return Codes(
            torch.cat(pieces, -1).flatten(1),
            torch.stack(indices, -1).flatten(1),
            self.codebook_size,
            commitment=sum_of(commitment),
            codebook_error=sum_of(error) if error[0] is not None else None,
            codebooks=self.books,
        )

    def vectors(self, indices: Tensor) -> Tensor:
        """Vectors one after the other, (*, Z), of the numbers of their codes (*, L)."""
        of_place = indices.unflatten(-1, (-1, self.per_place))
        pieces = [
            sum_of(
                [codebook.vectors(of_place[..., group * self.depth + level]) for level, codebook in enumerate(books)]
            )
            for group, books in enumerate(map(self._of_group, range(self.groups)))
        ]
        return torch.cat(pieces, -1).flatten(-2)

    def _of_group(self, group: int) -> Sequence["Codebook"]:
        return list(self.codebooks)[group * self.depth : (group + 1) * self.depth]  # type: ignore[return-value]

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"codes={self.codes}"


class Quantized(NamedTuple):
    """What a codebook makes of vectors (B, N, D).

    Args:
        codes: the nearest code of each, (B, N, D).
        indices: their numbers, (B, N).
        commitment: squared error of an image, pulling the vectors, (B,).
        error: the same number, pulling the codes, (B,); None where they have no gradient.
    """

    codes: Tensor
    indices: Tensor
    commitment: Tensor
    error: Tensor | None


class Codebook(nn.Module):
    """K vectors of D numbers, to one of which others are quantized: the nearest.

    `update` says how they follow the vectors that they stand for. `ema`: by moving averages, code k = s_k / n_k, where
    n_k is that of the number of vectors nearest to it and s_k that of their sum (van den Oord et al. 2017, appendix
    A.1). `gradient`: by that of the squared error. Of these two the first training batch places the codes by k-means,
    and a code whose use n_k has fallen below `revive_below` of the average is put on one of the batch's vectors, drawn
    at random. `linear`: the codes are B W, B a fixed Gaussian basis (K, D) and W (D, D) trained by that gradient, which
    moves all of them at once, so that none falls out of use (SimVQ, Zhu et al. 2024, equation 8).

    Args:
        size: K.
        dim: D.
        update: `ema`, `gradient` or `linear`.
        decay: of the moving averages, a batch.
        revive_below: share of the average use; 0 revives none.
        kmeans_iterations: of the start; 0 takes vectors of the batch as they are.
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self, size: int, dim: int, *, update: Update, decay: float, revive_below: float, kmeans_iterations: int
    ) -> None:
        super().__init__()
        self.update, self.decay = update, decay
        self.revive_below, self.kmeans_iterations = revive_below, kmeans_iterations
        self.seen = BatchesSeen()
        basis = torch.randn(size, dim) * (dim**-0.5 if update == "linear" else 1.0)
        self.basis = nn.Parameter(basis, requires_grad=update == "gradient")
        if update == "linear":
            self.transform = nn.Linear(dim, dim, bias=False)
        else:
            self.register_buffer("counts", torch.ones(size))
            self.register_buffer("sums", basis.clone())

    @property
    def weight(self) -> Tensor:
        """The codes, (K, D)."""
        if self.update != "linear":
            return self.basis
        with full_precision(self.basis):
            codes: Tensor = self.transform(self.basis)
        return codes

    def forward(self, vectors: Tensor) -> Quantized:
        """The nearest codes of vectors (B, N, D); in training they follow."""
        seen, seen_here = self.seen(), vectors.detach().flatten(0, 1)
        follows = self.training and self.update != "linear"
        if follows:
            (self._revive if seen else self._start)(seen_here)
        weight = self.weight
        indices = nearest(vectors, weight)  # (B, N)
        codes = F.embedding(indices, weight)  # (B, N, D)
        if follows:
            self._follow(seen_here, indices.flatten())
        return Quantized(
            codes,
            indices,
            (vectors - codes.detach()).square().sum((1, 2)),
            (vectors.detach() - codes).square().sum((1, 2)) if self.update != "ema" else None,
        )

    def vectors(self, indices: Tensor) -> Tensor:
        """The codes (*, D) of numbers (*)."""
        return F.embedding(indices, self.weight)

    @torch.no_grad()
    def _start(self, vectors: Tensor) -> None:
        """Place all codes among the vectors (N, D) of the first batch."""
        size = len(self.basis)
        chosen = torch.randperm(len(vectors), device=vectors.device)[:size]
        again = torch.randint(len(vectors), (size - len(chosen),), device=vectors.device)
        start = vectors[torch.cat([chosen, again])]
        codes, counts = kmeans(vectors, start, self.kmeans_iterations)
        _from_first_process(codes, counts)
        self.basis.copy_(codes)
        self.counts.copy_(counts)
        self.sums.copy_(codes * counts[:, None])

    @torch.no_grad()
    def _revive(self, vectors: Tensor) -> None:
        """Put codes that are not in use on vectors (N, D) of the batch."""
        # Drawn whether one is needed or not: that is not worth a question to the device.
        drawn = vectors[torch.randint(len(vectors), (len(self.basis),), device=vectors.device)]
        _from_first_process(drawn)
        average = self.counts.mean()
        idle = self.counts < self.revive_below * average
        self.basis.copy_(torch.where(idle[:, None], drawn, self.basis))
        self.sums.copy_(torch.where(idle[:, None], drawn * average, self.sums))
        self.counts.copy_(torch.where(idle, average, self.counts))

    @torch.no_grad()
    def _follow(self, vectors: Tensor, indices: Tensor) -> None:
        """Take vectors (N, D), nearest to codes (N,), into the moving averages and, by `ema`, move the codes there."""
        counts, sums = sums_by_code(vectors, indices, len(self.basis))
        _over_processes(counts, sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        if self.update == "ema":
            used = self.counts > 1e-6  # below, the quotient has no digits left
            means = self.sums / self.counts.clamp(min=1e-6)[:, None]
            self.basis.copy_(torch.where(used[:, None], means, self.basis))

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"{len(self.basis)}, {self.basis.shape[1]}, update={self.update}"


class TwoGrids(CodePosterior):
    """Codes on two grids, the upper one of half the height and width (VQ-VAE-2, Razavi et al. 2019).

        z_top = nearest code of P(f),   f = down(h);   z_bottom = nearest code of Q(h, up(z_top))

    h is the encoder's grid, `down` a convolution of stride 2 and residual blocks, P and Q convolutions, `up` takes the
    nearest place. z is, at each place of the lower grid, the code above it and its own, 2 D numbers, which a decoder
    takes as it takes any grid. The codes are those of the upper grid, then those of the lower one. Goes with
    objective=vector_quantization.

    Args:
        features: shape (C, H, W) of the encoder's grid, the lower one.
        latent_dim: size D of a code.
        blocks: residual ones on the way up.
        activation: of those.
        codebook_size: K, of each of the two codebooks.
        update: see `Codebook`.
        decay: see `Codebook`.
        revive_below: see `Codebook`.
        kmeans_iterations: see `Codebook`.

    Raises:
        ValueError: the encoder has no grid, or one that cannot be halved.
    """

    above: Tensor
    books: Tensor

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        blocks: Annotated[int, Field(ge=0, le=1024)] = 2,
        activation: Activation = "relu",
        codebook_size: Annotated[int, Field(gt=1)] = 512,
        update: Update = "ema",
        decay: Share = 0.99,
        revive_below: Share = 0.03,
        kmeans_iterations: Annotated[int, Field(ge=0)] = 10,
    ) -> None:
        super().__init__()
        if isinstance(features, int):
            raise ValueError("posterior=two_grids needs the grid of a convolutional encoder: encoder.features=null")
        channels, *sizes = features
        if min(sizes) < 2:
            raise ValueError(
                f"posterior=two_grids halves the encoder's grid of {' x '.join(map(str, sizes))}, which cannot be "
                "halved: fewer encoder.channels keep a larger one"
            )
        upper = [size // 2 for size in sizes]
        places = len(sizes)
        self.down = nn.Sequential(
            CONVOLUTIONS[places](channels, channels, 4, stride=2, padding=1),
            *[ResidualBlock(channels, activation, places=places) for _ in range(blocks)],
            activation_module(activation),
        )
        self.projections = nn.ModuleList(
            [
                CodeProjection((channels, *upper), latent_dim),
                CodeProjection((channels + latent_dim, *sizes), latent_dim),
            ]
        )
        self.codebooks = nn.ModuleList(
            [
                Codebook(
                    codebook_size,
                    latent_dim,
                    update=update,
                    decay=decay,
                    revive_below=revive_below,
                    kmeans_iterations=kmeans_iterations,
                )
                for _ in range(2)
            ]
        )
        self.codebook_size, self.grids = codebook_size, (tuple(upper), tuple(sizes))
        self.split = [math.prod(upper), math.prod(sizes)]
        self.codes = sum(self.split)
        self.register_buffer("books", self.codebook_of_each(), persistent=False)
        self.latent_dim = 2 * latent_dim * self.split[1]
        of_axes = [torch.arange(size) * half // size for size, half in zip(sizes, upper, strict=True)]
        numbers = torch.arange(self.split[0]).reshape(upper)
        for axis, places_above in enumerate(of_axes):
            numbers = numbers.index_select(axis, places_above.to(numbers.device))
        self.register_buffer("above", numbers.flatten(), persistent=False)  # the upper place of each lower one

    def forward(self, features: Tensor) -> Distribution:
        """The codes: batch (B,), event (H W 2 D,)."""
        to_top, to_bottom = self.projections
        top, bottom = self.codebooks
        vectors = to_top(self.down(features))
        upper = top(vectors)
        spread = straight_through(vectors, upper.codes.detach())[:, self.above]  # (B, H W, D)
        grid = spread.transpose(1, 2).unflatten(2, self.grids[1]).to(features.dtype)
        own = to_bottom(torch.cat([features, grid], 1))
        lower = bottom(own)
        z = torch.cat([spread, straight_through(own, lower.codes.detach())], -1)
        return Codes(
            z.flatten(1),
            torch.cat([upper.indices, lower.indices], 1),
            self.codebook_size,
            commitment=upper.commitment + lower.commitment,
            codebook_error=upper.error + lower.error if upper.error is not None else None,
            codebooks=self.books,
        )

    def vectors(self, indices: Tensor) -> Tensor:
        """z, (*, Z), of the numbers of its codes (*, L)."""
        top, bottom = self.codebooks
        of_top, of_bottom = indices.split(self.split, -1)
        return torch.cat([top.vectors(of_top)[..., self.above, :], bottom.vectors(of_bottom)], -1).flatten(-2)  # type: ignore[operator]


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The number of the code (K, D) that is nearest to each of `vectors` (*, D), (*)."""
    with torch.no_grad(), full_precision(vectors):
        return (codebook.square().sum(-1) - 2 * vectors @ codebook.T).argmin(-1)


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


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return torch.stack(list(tensors)).sum(0) if len(tensors) > 1 else tensors[0]


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
