"""What a training step may not do: counted, not timed."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils._python_dispatch import TorchDispatchMode

import vaelab
from vaelab.config.check import check
from vaelab.losses import Step
from vaelab.training.module import AutoencoderModule


def test_a_step_asks_no_tensor_for_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each such question makes the host wait for the device; terms are read once a logging interval."""
    waits: list[str] = []
    training_step = AutoencoderModule.training_step
    inside = False

    def step(self: AutoencoderModule, batch: object, batch_idx: int) -> torch.Tensor:
        nonlocal inside
        inside = True
        loss = training_step(self, batch, batch_idx)  # type: ignore[arg-type]
        inside = False
        return loss

    def counted(name: str) -> None:
        original = getattr(torch.Tensor, name)

        def method(tensor: torch.Tensor, *args: object) -> object:
            if inside:
                waits.append(name)
            return original(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, method)

    monkeypatch.setattr(AutoencoderModule, "training_step", step)
    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__"):
        counted(name)
    config = vaelab.compose(["data=digits", "trainer=debug", "callbacks.progress_bar=null"])
    vaelab.train(config, folder=tmp_path / "run")
    assert waits == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.gradient_clip_val=1.0"],
        ["model=factor_vae"],
        ["model=hinge_vae"],
        ["model=vq_vae"],
        ["model=iwae", "scheduler=cosine"],
    ],
    ids=str,
)
def test_an_epoch_asks_the_device_for_nothing_but_the_terms_that_it_logs(overrides: list[str], tmp_path: Path) -> None:
    """Counted in all that torch is asked to do between the start of an epoch's loop and its end, callbacks included."""
    asked: Counter[str] = Counter()

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            asked[func.name()] += func.name() in ("aten::_local_scalar_dense", "aten::equal", "aten::nonzero")
            return func(*args, **(kwargs or {}))

    training_epoch = _TrainingEpochLoop.run

    def watched(self: _TrainingEpochLoop, *arguments: Any) -> None:
        with Watching():
            training_epoch(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_TrainingEpochLoop, "run", watched)
        given = ["data=digits", "data.batch_size=16", "data.validation=0", "trainer=cpu", "trainer.max_epochs=1"]
        given.append("trainer.limit_train_batches=20")
        vaelab.train(vaelab.compose([*given, *overrides]), folder=tmp_path / "run")
    assert asked["aten::index_select"] == 0 < len(asked)  # it saw what torch was asked for
    assert sum(asked.values()) == 0


def test_seeding_a_step_formats_no_traceback_and_looks_for_no_library() -> None:
    """Either costs a small model several hundredths of its step."""
    called: set[str] = set()
    experiment = check(vaelab.compose(["data=digits"]))
    model = experiment.model()
    module = AutoencoderModule(model, experiment.objective, experiment.optimizer)
    trainer = experiment.trainer([], [])
    optimizer = experiment.optimizer(model.parameters())
    del trainer
    from vaelab.seeding import seed_noise

    def profile(frame: object, event: str, argument: object) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename)  # type: ignore[attr-defined]

    x = torch.rand(4, 1, 8, 8)
    sys.setprofile(profile)
    try:
        seed_noise(module.device, 1)
        experiment.objective(Step(model, x))["loss"].backward()
        optimizer.step()
    finally:
        sys.setprofile(None)
    assert called
    assert not [name for name in called if name.endswith(("traceback.py", "ctypes/__init__.py"))]


def test_deterministic_kernels_do_not_fill_fresh_memory() -> None:
    """Torch's debugging aid beside them writes NaN to whatever is allocated, megabytes a step."""
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for fills in (True, False):
            torch.use_deterministic_algorithms(True)
            torch.utils.deterministic.fill_uninitialized_memory = True
            if not fills:
                check(vaelab.compose(["data=digits", "trainer=cpu", "callbacks.progress_bar=null"])).trainer([], [])
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                torch.empty(1000)
            assert ("aten::fill_" in {event.key for event in profile.key_averages()}) is fills
    finally:
        torch.use_deterministic_algorithms(before)


def test_a_step_takes_no_more_calls_of_python_than_it_did(tmp_path: Path) -> None:
    """1,280 when this was written: a call takes 0.1 microseconds."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    training_epoch = _TrainingEpochLoop.run

    def counted(self: _TrainingEpochLoop, *arguments: object) -> object:
        sys.setprofile(count)
        try:
            return training_epoch(self, *arguments)
        finally:
            sys.setprofile(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_TrainingEpochLoop, "run", counted)
        given = ["data=digits", "data.batch_size=4", "data.validation=0", "trainer=cpu", "trainer.max_epochs=1"]
        config = vaelab.compose([*given, "callbacks.progress_bar=null"])  # which is drawn by the clock
        run = vaelab.train(config, folder=tmp_path / "run")
    assert calls / run.metrics["steps"] < 1400
