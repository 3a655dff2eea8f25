"""A training step as one CUDA graph: its kernels are launched together, with no Python between them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from vaelab.errors import ConfigError
from vaelab.losses import Step, Terms
from vaelab.models.posteriors.codes import BatchesSeen
from vaelab.models.schedules import Schedule, at
from vaelab.text import one_line
from vaelab.training.internals import has_plain_steps, looks_for_anomalies

WARM_UP = 3  # steps that make what is made once: optimizer states, library handles, the first codes
SCHEDULES = 64  # at most, in a step
PRECISIONS = ("32-true", "64-true", "bf16-mixed")


class StepGraph:
    """A training step that is captured once, then replayed for every batch of the same shape.

    The first steps, and those of batches of another shape, such as the last one of an epoch, run eagerly. A replay
    gives the bits of the eager step: it draws from the same generator, which is seeded before each step, and reads
    scheduled weights and learning rates from tensors. The first replay after the capture is compared with the eager
    step, to the bit, so that what a graph cannot repeat does not go unnoticed: a number that Python changes from step
    to step, noise drawn on the CPU. A learning rate that a scheduler changes is rounded to float32, in eager steps too.

    Args:
        take: the step itself: forward, backward, optimizers.
        module: all tensors that the step changes, but for the states of the optimizers.
        optimizers: of the step.
        scheduled: whether a scheduler changes the learning rate of the first optimizer.

    Raises:
        ConfigError: when called: the step cannot be captured, or a replay differs from it.
    """

    def __init__(
        self,
        take: Callable[[Step], Terms],
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        scheduled: bool,
    ) -> None:
        self.take, self.module, self.optimizers = take, module, optimizers
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._scheduled = optimizers[0].param_groups if scheduled else []
        self._constant = groups[len(self._scheduled) :]
        self._rates = [torch.zeros((), device=group["params"][0].device) for group in self._scheduled]
        self._counters = [part for part in module.modules() if isinstance(part, BatchesSeen)]
        self._warm_up = WARM_UP
        self._captured: _Captured | None = None
        self._compared = False

    def __call__(self, step: Step) -> Terms:
        """Take a step, whose noise is seeded; its terms."""
        with self._rates_on_device():
            if self._warm_up > 0:
                self._warm_up -= 1
                return self.take(step)
            captured = self._captured
            if captured is None or captured.rates != self._constant_rates():
                captured = self._captured = self._capture(step)
                return captured.replay(step)
            if captured.x.shape != step.x.shape:
                return self.take(step)
            if not self._compared:
                self._compared = True
                return self._compare(captured, step)
            for counter in self._counters:
                counter()
            return captured.replay(step)

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        rates = [group["lr"] for group in self._scheduled]
        for group, rate, tensor in zip(self._scheduled, rates, self._rates, strict=True):
            group["lr"] = tensor.fill_(rate)
        try:
            yield
        finally:
            for group, rate in zip(self._scheduled, rates, strict=True):
                group["lr"] = rate

    def _constant_rates(self) -> list[float]:
        return [group["lr"] for group in self._constant]

    def _capture(self, step: Step) -> "_Captured":
        capturable = [group for o in self.optimizers for group in o.param_groups if "capturable" in group]
        stream, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        x, y = step.x.clone(), None if step.y is None else step.y.clone()
        scheduled = _Scheduled(x.new_empty(SCHEDULES))
        inside = _CapturedStep(step.model, x, y, number=step.number, dataset_size=step.dataset_size, tensors=scheduled)
        try:
            for group in capturable:
                group["capturable"] = True
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                terms = self.take(inside)
                values = torch.stack([term.detach() for term in terms.values()])
        except RuntimeError as error:
            torch.cuda.set_stream(stream)
            generator = torch.cuda.default_generators[x.device.index]
            generator.graphsafe_set_state(generator.clone_state())  # else it waits for the end of the capture
            cause = str(error.__context__ or error).splitlines()[0]
            raise _refused(f"this step cannot be captured ({one_line(cause, 200)})") from error
        finally:
            for group in capturable:
                group["capturable"] = False
        return _Captured(graph, x, y, scheduled, list(terms), values, self._constant_rates())

    def _compare(self, captured: "_Captured", step: Step) -> Terms:
        """Take a step by a replay and then, from the same state, eagerly."""
        state, noise = self._state(), (torch.get_rng_state(), torch.cuda.get_rng_state(step.x.device))
        before = {name: tensor.clone() for name, tensor in state.items()}
        replayed = dict(captured.replay(step))
        replayed |= {name: tensor.clone() for name, tensor in state.items()}
        with torch.no_grad():
            for name, tensor in state.items():
                tensor.copy_(before[name])
        torch.set_rng_state(noise[0])
        torch.cuda.set_rng_state(noise[1], step.x.device)
        terms = self.take(step)
        eager = {**{name: term.detach() for name, term in terms.items()}, **state}
        differing = [name for name, value in eager.items() if not _same(value, replayed[name])]
        if differing:
            raise _refused(f"a replay of this step differs from it, in {', '.join(differing[:3])}")
        return terms

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for number, optimizer in enumerate(self.optimizers):
            for place, kept in enumerate(optimizer.state.values()):
                tensors = {name: value for name, value in kept.items() if isinstance(value, Tensor)}
                state |= {f"{name} {place} of optimizer {number}": value for name, value in tensors.items()}
        return state


@dataclass
class _Scheduled:
    """Weights as tensors that are set before each replay; their memory is not the graph's, which writes to its own."""

    free: Tensor
    taken: list[tuple[Schedule, Tensor]] = field(default_factory=list)

    def take(self, schedule: Schedule) -> Tensor:
        tensor = self.free[len(self.taken)]
        self.taken.append((schedule, tensor))
        return tensor

    def set(self, number: int) -> None:
        for schedule, tensor in self.taken:
            tensor.fill_(at(schedule, number))


@dataclass(eq=False)
class _CapturedStep(Step):
    _: KW_ONLY
    tensors: _Scheduled

    def weight(self, weight: float | Schedule) -> float:
        return self.tensors.take(weight) if callable(weight) else weight  # type: ignore[return-value]  # a factor, too


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    x: Tensor
    y: Tensor | None
    scheduled: _Scheduled
    names: list[str]
    values: Tensor
    rates: list[float]  # that the graph holds as constants

    def replay(self, step: Step) -> Terms:
        """Run the graph on the images of a step; its terms, in tensors of their own."""
        self.x.copy_(step.x)
        if self.y is not None and step.y is not None:
            self.y.copy_(step.y)
        self.scheduled.set(step.number)
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


def require_capturable(trainer: pl.Trainer, *, accumulate_grad_batches: int, compiled: bool = False) -> None:
    """Refuse what a graph of the training step does not go with.

    Raises:
        ConfigError: in one line.
    """
    device, precision = trainer.strategy.root_device.type, trainer.precision
    reasons = {
        f"it needs a GPU of NVIDIA, and the run is on {device}": device != "cuda",
        "it is for one process": trainer.world_size > 1,
        "it takes a step for every batch: trainer.accumulate_grad_batches=1": accumulate_grad_batches > 1,
        f"trainer.precision={precision} is not among {', '.join(PRECISIONS)}": precision not in PRECISIONS,
        "trainer.detect_anomaly looks at each gradient": looks_for_anomalies(trainer),
        "compile=true has graphs of its own": compiled,
        "a callback wants to see each step of the optimizer": not has_plain_steps(trainer),
    }
    for reason, holds in reasons.items():
        if holds:
            raise _refused(reason)


def _refused(reason: str) -> ConfigError:
    return ConfigError([f"trainer.cuda_graph=true: {reason}; trainer.cuda_graph=false goes without"])


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())
