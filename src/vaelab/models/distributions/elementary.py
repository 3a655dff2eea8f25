"""A point mass, and the distributions of a VAE: normals and black-and-white images."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.distributions import Normal as TorchNormal

from vaelab.seeding import standard_normal_like

PIXELS_IN_CACHE = 2**17  # of a core of a CPU: half a megabyte of float32
NUMBERS_AT_ONCE = {"cpu": 2**19, "other": 2**26}


def rows_per_chunk(like: Tensor, numbers: int) -> int:
    """Return how many rows of `numbers` numbers to process together on the device of `like`, to bound memory."""
    return max(1, NUMBERS_AT_ONCE["cpu" if like.device.type == "cpu" else "other"] // numbers)


class Delta(Distribution):
    """All mass at one point: p(z) = delta(z - value). The output of a deterministic encoder.

    It has no density, so it has neither `log_prob` nor a KL divergence to a prior: KL(Delta || p) is
    infinite for every continuous p, and asking for it raises NotImplementedError.

    Shapes: `value` (*batch, *event), with `event_dims` dimensions of event; samples (*sample, *batch, *event).
    """

    arg_constraints = {"value": constraints.real}  # noqa: RUF012 (as torch declares them)
    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1) -> None:
        self.value = value
        split = value.dim() - event_dims
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The point itself, (*batch, *event)."""
        return self.value

    @property
    def variance(self) -> Tensor:
        """Zeros, (*batch, *event)."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The point, repeated: (*sample_shape, *batch, *event)."""
        return self.value.expand(self._extended_shape(torch.Size(sample_shape)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`rsample`, without its gradient."""
        return self.rsample(sample_shape).detach()


class Normal(TorchNormal):
    """N(loc, scale^2) for a batch of images, (B, ...): the noise of each image is its own, see `vaelab.seeding`."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples loc + scale * noise, (*sample, B, ...)."""
        return self.loc + self.scale * standard_normal_like(self.loc, sample_shape)


class StandardNormal(TorchNormal):
    """N(0, 1), each of its numbers; a KL divergence to it takes a third of the operations of that to any normal.

    Shapes: `zero` and `one`, zeros and ones of the batch shape, where the numbers are to be.
    """

    def __init__(self, zero: Tensor, one: Tensor) -> None:
        super().__init__(zero, one, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StandardNormal":
        """The same of another batch shape."""
        return StandardNormal(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


@register_kl(TorchNormal, StandardNormal)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_to_standard_normal(q: TorchNormal, p: StandardNormal) -> Tensor:
    loc, scale, _ = torch.broadcast_tensors(q.loc, q.scale, p.loc)  # type: ignore[no-untyped-call]
    kl: Tensor = _KLToStandardNormal.apply(loc, scale)
    return kl


class _KLToStandardNormal(torch.autograd.Function):
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s (Kingma & Welling 2014, appendix B)."""

    @staticmethod
    def forward(ctx: Any, loc: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(loc, scale)
        return torch.addcmul(loc.square(), scale, scale).sub_(1).mul_(0.5).sub_(scale.log())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        loc, scale = ctx.saved_tensors
        of_loc, of_scale = ctx.needs_input_grad
        for_scale = gradient * (scale - scale.reciprocal()) if of_scale else None
        return gradient * loc if of_loc else None, for_scale


class BernoulliImage(Distribution):
    """Independent Bernoullis, one a pixel: log p(x) = sum_i x_i log m_i + (1 - x_i) log(1 - m_i), m = sigmoid(logits).

    The same numbers as `Independent(Bernoulli(logits=logits), 3)`, an order of magnitude faster: it takes a
    hundredth of the logarithms. Grey x are allowed, and give minus the binary cross-entropy.

    Shapes: `logits` (*batch, C, H, W), batch shape (*batch), event shape (C, H, W); or with another number of
    dimensions of the event, `event_dims`.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012 (as torch declares them)
    support = constraints.independent(constraints.unit_interval, 3)  # type: ignore[no-untyped-call]

    def __init__(self, logits: Tensor, event_dims: int = 3) -> None:
        self.logits = logits
        self.event_dims = event_dims
        split = logits.dim() - event_dims
        super().__init__(logits.shape[:split], logits.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Probabilities of 1, (*batch, C, H, W)."""
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        """The variance m (1 - m) of each pixel, (*batch, C, H, W)."""
        return self.mean * (1 - self.mean)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Black and white images, (*sample_shape, *batch, C, H, W)."""
        with torch.no_grad():
            return self.mean.expand(self._extended_shape(torch.Size(sample_shape))).bernoulli()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-likelihood of `value` in nats, (*batch); `value` broadcasts against the logits."""
        dtype = torch.promote_types(self.logits.dtype, torch.float32)  # half precision has no room for a sum
        logits, value = torch.broadcast_tensors(self.logits.to(dtype), value.to(dtype))  # type: ignore[no-untyped-call]
        log_prob: Tensor = _BernoulliLogProb.apply(logits.flatten(-self.event_dims), value.flatten(-self.event_dims))
        return log_prob


class _BernoulliLogProb(torch.autograd.Function):
    """sum_i x_i l_i - softplus(l_i) over the last dimension, of logits l and x of one shape.

    With softplus(l) = max(l, 0) + log(1 + exp(-|l|)): the sum of the logarithms is the logarithm of products, which
    are of so many factors between 1 and 2 as float32 can hold. The rest is summed pixel by pixel, where it is small,
    since the sums of x_i l_i and of max(l_i, 0) are large and nearly equal for a good model. Many images are done in
    parts so small that a CPU keeps them in its cache from one operation to the next.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(logits, x)
        parts = [_log_prob(*part) for part in _parts(logits, x)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        logits, x = ctx.saved_tensors
        of_logits, of_x = ctx.needs_input_grad
        gradient = gradient[..., None]
        for_x = gradient * logits if of_x else None
        if not of_logits:
            return None, for_x
        if torch.is_grad_enabled():  # the gradient is asked for its own
            return gradient * (x - logits.sigmoid()), for_x
        for_logits = torch.empty_like(logits)
        for out, part, pixels, weight in _parts(for_logits, logits, x, gradient):
            torch.sub(pixels, torch.sigmoid(part, out=out), out=out).mul_(weight)
        return for_logits, for_x


def _log_prob(logits: Tensor, x: Tensor) -> Tensor:
    linear = logits.clamp(min=0).addcmul_(x, logits, value=-1).sum(-1)
    factors = logits.abs().neg_().exp_().add_(1)
    products = factors.view(*factors.shape[:-1], -1, _factors(factors.shape[-1])).prod(-1)
    return -(linear + products.log_().sum(-1))


def _parts(first: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors with the same rows into chunks that fit the cache of a CPU core; no split on other devices."""
    if first.ndim < 2 or first.device.type != "cpu" or first.numel() <= PIXELS_IN_CACHE:
        return iter([(first, *others)])
    rows = max(1, PIXELS_IN_CACHE // first[0].numel())
    return zip(*(tensor.split(rows) for tensor in (first, *others)), strict=True)


def _factors(size: int) -> int:
    """Return the largest divisor n of `size` with 2^n below float32's largest number 2^128."""
    return next(count for count in range(127, 0, -1) if size % count == 0)
