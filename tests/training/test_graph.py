"""The step as a CUDA graph: the bits of the step without it, or one line that says why not."""

from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vaelab
from vaelab.config.conf import options
from vaelab.losses import Step
from vaelab.training.checkpoints import read
from vaelab.training.graph import StepGraph, _Captured
from vaelab.training.module import AutoencoderModule

DIGITS = ["data=digits", "data.batch_size=100", "callbacks.progress_bar=null", "callbacks.pictures=null"]
QUIET = ["callbacks.rates=null", "logger=csv", "trainer.log_every_n_steps=7"]
GPU = ["trainer=gpu", "trainer.max_epochs=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
ON = "trainer.cuda_graph=true"
CANNOT = {
    "flow_prior_vae": "cannot be captured",  # zuko's RealNVP picks its halves by `nonzero` of a mask
    "gumbel_vae": "differs from it, in loss",  # its temperature is a number that changes with the batches
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")


def trained(folder: Path, *overrides: str) -> dict[str, Any]:
    run = vaelab.train(vaelab.compose([*DIGITS, *QUIET, *GPU, *overrides]), folder=folder)
    return left(run)


def left(run: vaelab.Run) -> dict[str, Any]:
    """What a run leaves, without what tells the time."""
    state = read(run.folder / "checkpoints" / "last.ckpt")
    state["csv"] = (run.folder / "csv" / "metrics.csv").read_text()
    state["metrics"] = run.metrics
    return state


def different(one: Any, other: Any, at: str = "") -> list[str]:
    """The places where two differ."""
    if isinstance(one, Tensor):
        return [] if one.dtype == other.dtype and one.equal(other) else [at]
    if isinstance(one, dict):
        names = [] if one.keys() == other.keys() else [at]
        return names + [place for key in one for place in different(one[key], other.get(key), f"{at}/{key}")]
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return [place for number, pair in enumerate(pairs) for place in different(*pair, f"{at}/{number}")]
    return [] if one == other else [at]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that were replayed."""
    numbers: list[int] = []
    original = _Captured.replay

    def replay(self: _Captured, step: Any) -> Any:
        numbers.append(step.number)
        return original(self, step)

    monkeypatch.setattr(_Captured, "replay", replay)
    return numbers


@needs_gpu
@pytest.mark.parametrize("preset", options("model"))
def test_a_run_has_the_same_bits_with_and_without_the_graph(preset: str, tmp_path: Path, replays: list[int]) -> None:
    """14 batches, of which the last is smaller."""
    if preset in CANNOT:
        with pytest.raises(vaelab.ConfigError, match=CANNOT[preset]):
            trained(tmp_path / "with", f"model={preset}", ON)
        return
    eager = trained(tmp_path / "without", f"model={preset}")
    assert replays == []
    graph = trained(tmp_path / "with", f"model={preset}", ON)

    assert replays == list(range(3, 13))
    assert different(eager, graph) == []


@needs_gpu
@pytest.mark.parametrize(
    "overrides",
    [
        ["model=annealed_vae", "objective.kl_weight.steps=20", "trainer.gradient_clip_val=0.1"],
        ["scheduler=warmup", "scheduler.steps=10"],
        ["optimizer=adamw"],
        ["optimizer=sgd", "optimizer.lr=1e-4", "optimizer.momentum=0.9"],
        ["callbacks=averaging", "encoder.normalization=batch"],
        ["model=factor_vae", "trainer.gradient_clip_val=1.0"],
        ["trainer.precision=bf16-mixed", "encoder=conv", "decoder=conv"],
        ["trainer.precision=64-true"],
        ["model=vq_vae", "data.binarize=dynamic"],
        ["model=flow_prior_vae", "prior.flow=maf"],
    ],
    ids=str,
)
def test_so_it_has_where_it_is_resumed(overrides: list[str], tmp_path: Path, replays: list[int]) -> None:
    """Where a scheduler sets the learning rate, it is rounded to float32 with the graph, and losses are near."""
    both = [*overrides, ON, "callbacks.checkpoints.every_n_steps=5"]
    undisturbed = trained(tmp_path / "undisturbed", *both, "trainer.max_epochs=3")
    trained(tmp_path / "resumed", *both, "trainer.max_epochs=2")
    resumed = left(vaelab.resume(tmp_path / "resumed", ["trainer.max_epochs=3"]))
    eager = trained(tmp_path / "eager", *both[:-2], both[-1], "trainer.max_epochs=3")

    assert replays
    assert different(undisturbed, resumed) == []
    if "scheduler=warmup" in overrides:
        assert eager["metrics"]["test/loss"] == pytest.approx(undisturbed["metrics"]["test/loss"], rel=1e-4)
    else:
        assert different(eager, undisturbed) == []


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("preset", options("model"))
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_a_step_does_not_wait_for_the_gpu(
    preset: str, graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch raises where it would; but for what is done once."""
    if preset in CANNOT and (graph or preset != "gumbel_vae"):
        pytest.skip(CANNOT[preset])
    step = AutoencoderModule._train_on
    taken = 0

    def watched(self: AutoencoderModule, batch: Any) -> Any:
        nonlocal taken
        taken += 1
        torch.cuda.set_sync_debug_mode("error" if taken > 6 else "default")
        try:
            return step(self, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(AutoencoderModule, "_train_on", watched)
    trained(tmp_path / "run", f"model={preset}", f"trainer.cuda_graph={graph}")

    assert taken == 14


class Toy:
    """A regression of one layer, and how often its step was captured."""

    def __init__(self, factor: Callable[[], float | Tensor] = lambda: 1.0) -> None:
        self.model = torch.nn.Linear(3, 1).cuda()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2**-10, fused=True)
        self.factor = factor
        self.graph = StepGraph(self.take, self.model, [self.optimizer], scheduled=False)

    def take(self, step: Step) -> dict[str, Tensor]:
        loss = self.model(step.x).square().mean() * self.factor()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss": loss}

    def train(self, number: int) -> float:
        """How far a step moves the bias."""
        before = self.model.bias.item()
        self.graph(Step(None, torch.ones(4, 3, device="cuda"), number=number))  # type: ignore[arg-type]
        return abs(self.model.bias.item() - before)


@needs_gpu
def test_what_a_graph_cannot_repeat_is_refused_in_one_line() -> None:
    numbers = count(1)
    for factor, message in [
        (lambda: torch.randn(()).cuda(), "cannot be captured"),  # noise of the CPU
        (lambda: float(next(numbers)), "a replay of this step differs from it, in loss"),
    ]:
        toy = Toy(factor)
        with pytest.raises(vaelab.ConfigError, match=message) as caught:
            _ = [toy.train(number) for number in range(5)]
        assert "\n" not in str(caught.value)


@needs_gpu
def test_a_graph_is_captured_anew_where_a_constant_learning_rate_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    toy, captures = Toy(), Counter[str]()
    capture = StepGraph._capture

    def counted(self: StepGraph, step: Step) -> _Captured:
        captures["taken"] += 1
        return capture(self, step)

    monkeypatch.setattr(StepGraph, "_capture", counted)
    for number in range(10):
        toy.optimizer.param_groups[0]["lr"] = 2**-10 if number < 6 else 2**-4
        assert (toy.train(number) > 2**-7) == (number >= 6)
    assert captures["taken"] == 2


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["trainer=cpu"], "it needs a GPU of NVIDIA, and the run is on cpu"),
        pytest.param(["trainer=gpu", "trainer.accumulate_grad_batches=2"], "a step for every batch", marks=needs_gpu),
        pytest.param(["trainer=gpu", "trainer.precision=16-mixed"], "precision=16-mixed is not among", marks=needs_gpu),
        pytest.param(["trainer=gpu", "trainer.detect_anomaly=true"], "looks at each gradient", marks=needs_gpu),
        pytest.param(["trainer=gpu", "compile=true"], "graphs of its own", marks=needs_gpu),
    ],
    ids=str,
)
def test_what_does_not_go_with_a_graph_is_refused_before_anything_is_written(
    overrides: list[str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(vaelab.ConfigError, match=reason) as caught:
        vaelab.train(vaelab.compose([*DIGITS, *overrides, ON]), folder=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
