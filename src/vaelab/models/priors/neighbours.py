"""A kernel density over codes."""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions.elementary import rows_per_chunk
from vaelab.models.parts import Prior
from vaelab.models.precision import full_precision

Positive = Annotated[int, Field(gt=0)]


class NearestNeighbours(Prior):
    """p(z) = 1/M sum_m N(z; z_m, (h d_m)^2 I), d_m from code z_m to its k-th nearest neighbour (Breiman et al. 1977).

    Kernels are narrow where codes are dense. The codes are those of training images, kept as they are; learned is h
    alone, by the likelihood of codes under all kernels but the nearest, since that is often a code's own.

    Args:
        latent_dim: Z.
        neighbours: k.
        codes: M, how many are kept, drawn at random where there are more.
    """

    centres: Tensor
    distances: Tensor

    def __init__(
        self, latent_dim: int, *, neighbours: Positive = 5, codes: Annotated[int, Field(gt=1)] = 10_000
    ) -> None:
        super().__init__()
        self.neighbours, self.fewest_codes, self.in_use = neighbours, neighbours + 1, codes
        self.register_buffer("centres", torch.randn(codes, latent_dim))
        self.register_buffer("distances", torch.ones(codes))
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(latent_dim)))

    @torch.no_grad()
    def start(self, codes: Tensor, held_out: Tensor) -> None:
        """Keep codes, and find the neighbours of each."""
        kept = codes[torch.randperm(len(codes))[: len(self.centres)]]
        self.in_use = len(kept)
        self.centres[: self.in_use] = kept
        parts = kept.split(rows_per_chunk(kept, len(kept)))
        with full_precision(kept):
            nearest = torch.cat(
                [_squares(part, kept).topk(self.neighbours + 1, largest=False).values for part in parts]
            )
        distances = nearest[:, -1].clamp(min=0).sqrt()  # the nearest of all is the code itself
        self.distances[: self.in_use] = distances.clamp(min=1e-3 * distances.mean().item() + 1e-12)

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        used = slice(self.in_use)
        scales = self.log_scale.exp() * self.distances[used]
        return Kernels(self.centres[used], scales, leave_out_nearest=self.training)

    def get_extra_state(self) -> Tensor:
        """How many codes are kept, for a checkpoint."""
        return torch.tensor(self.in_use)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it up.

        Raises:
            ValueError: there are not so many.
        """
        if not 1 < int(state) <= len(self.centres):
            raise ValueError(f"{int(state)} codes are kept of {len(self.centres)}")
        self.in_use = int(state)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"neighbours={self.neighbours}, codes={self.in_use}"


class Kernels(Distribution):
    """1/M sum_m N(c_m, s_m^2 I).

    Args:
        centres: (M, Z).
        scales: (M,).
        leave_out_nearest: `log_prob` of a vector is without the kernel whose centre is the nearest.
    """

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)

    def __init__(self, centres: Tensor, scales: Tensor, *, leave_out_nearest: bool = False) -> None:
        self.centres, self.scales, self.leave_out_nearest = centres, scales, leave_out_nearest
        super().__init__(torch.Size(), centres.shape[1:], validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Centres drawn at random, and noise, (*sample_shape, Z)."""
        with torch.no_grad():
            chosen = torch.randint(len(self.centres), torch.Size(sample_shape), device=self.centres.device)
            centres = self.centres[chosen]
            return centres + self.scales[chosen].unsqueeze(-1) * torch.randn_like(centres)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, (*sample)."""
        rows = value.reshape(-1, value.shape[-1])
        parts = rows.split(rows_per_chunk(rows, len(self.centres)))
        return torch.cat([self._log_prob(part) for part in parts]).reshape(value.shape[:-1])

    def _log_prob(self, rows: Tensor) -> Tensor:
        with full_precision(rows):
            squares = _squares(rows, self.centres).clamp(min=0)  # (N, M)
        size, count = rows.shape[-1], len(self.centres) - self.leave_out_nearest
        each = -squares / (2 * self.scales.square()) - size * self.scales.log()
        if self.leave_out_nearest:
            each = each.scatter(1, squares.argmin(1, keepdim=True), -math.inf)
        log_sum: Tensor = each.logsumexp(1)
        return log_sum - math.log(count) - size / 2 * math.log(2 * math.pi)


def _squares(rows: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (N, M) of rows (N, Z) to centres (M, Z)."""
    return rows.square().sum(1, keepdim=True) + centres.square().sum(1) - 2 * rows @ centres.T
