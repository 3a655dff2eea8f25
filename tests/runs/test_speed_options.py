"""Options that change how fast a run is and not what it learns."""

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vaelab
from vaelab.config.check import check
from vaelab.looking.evaluate import Wanted, evaluation_of
from vaelab.runs.differences import differences

QUICK = ["data=digits", "trainer=cpu", "trainer.max_epochs=2", "logger=csv", "trainer.log_every_n_steps=1"]
QUICK += ["callbacks.progress_bar=null"]


def losses(folder: Path) -> Tensor:
    with (folder / "csv" / "metrics.csv").open() as file:
        return torch.tensor([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])


def checkpoint(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


CONV = ["encoder=conv", "decoder=conv"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        pytest.param(
            ["compile=true"], 1e-4, marks=pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
        ),
        (["channels_last=true", *CONV], 1e-4),
        (["trainer.precision=bf16-mixed"], 0.02),  # bfloat16 has 8 bits: 0.4 % a number
    ],
    ids=["compile", "channels_last", "bf16"],
)
def test_a_faster_run_learns_the_same(options: list[str], tolerance: float, tmp_path: Path) -> None:
    network = CONV if "encoder=conv" in options else []
    plain = vaelab.train(vaelab.compose([*QUICK, *network]), folder=tmp_path / "plain")
    fast = vaelab.train(vaelab.compose([*QUICK, *options]), folder=tmp_path / "fast")

    torch.testing.assert_close(losses(fast.folder), losses(plain.folder), rtol=tolerance, atol=0)
    assert abs(fast.metrics["test/elbo"] - plain.metrics["test/elbo"]) < 0.5  # nats
    assert checkpoint(fast.folder).keys() == checkpoint(plain.folder).keys()
    with torch.no_grad():
        x = torch.rand(5, 1, 8, 8)
        assert vaelab.load(fast)(x).shape == x.shape
    evaluated = vaelab.evaluate(fast)
    tested = {name: value for name, value in fast.metrics.items() if name.startswith("test/")}
    assert {name: evaluated[name] for name in tested} == pytest.approx(tested, rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "option", "tolerance"),
    [
        pytest.param(
            "64-true",  # two networks against each other double a difference of rounding every few steps
            "compile=true",
            1e-9,
            marks=pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler"),
        ),
        ("32-true", "trainer.precision=bf16-mixed", 0.02),
    ],
    ids=["compile", "bf16"],
)
def test_so_it_does_where_a_term_asks_for_several_gradients(
    precision: str, option: str, tolerance: float, tmp_path: Path
) -> None:
    """The adaptive weight of a critic, once it has started; buffers that are used twice must not be reused between."""
    adversary = "objective.terms.adversary"
    given = [*QUICK, "model=hinge_vae", f"{adversary}.adaptive=true", f"{adversary}.start=2"]
    given.append(f"trainer.precision={precision}")
    plain = vaelab.train(vaelab.compose(given), folder=tmp_path / "plain")
    fast = vaelab.train(vaelab.compose([*given, option]), folder=tmp_path / "fast")

    torch.testing.assert_close(losses(fast.folder), losses(plain.folder), rtol=tolerance, atol=0)


@pytest.mark.slow
def test_a_run_has_the_threads_that_its_config_says_and_leaves_torch_as_it_was(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    number = before + 1
    vaelab.train(vaelab.compose([*QUICK, f"threads={number}"]), folder=tmp_path / "run")

    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["hardware"]["threads"] == number
    assert torch.get_num_threads() == before

    seen = set()

    def track(steps: Sequence[int], description: str) -> Iterator[int]:
        for step in steps:
            seen.add(torch.get_num_threads())
            yield step

    evaluation_of(tmp_path / "run", Wanted(), split="test", seed=None, trust=(), track=track)
    assert seen == {number}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_float32_products_is_that_of_the_config(precision: str, tmp_path: Path) -> None:
    try:
        vaelab.train(
            vaelab.compose(["data=digits", "trainer=debug", f"trainer.float32_matmul_precision={precision}"]),
            folder=tmp_path / "run",
        )
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


def test_compiling_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(vaelab.ConfigError, match=r"compile=true: .* C\+\+ compiler"):
        vaelab.train(vaelab.compose([*QUICK, "compile=true"]), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["compile=true"],
        ["trainer.float32_matmul_precision=high"],
        ["trainer.precision=bf16-mixed", "channels_last=true", *CONV],
    ],
)
def test_on_a_gpu_a_run_learns_what_it_learns_on_the_cpu(options: list[str], tmp_path: Path) -> None:
    network = CONV if "encoder=conv" in options else []
    long = ["trainer.max_epochs=20"]
    cpu = vaelab.train(vaelab.compose([*QUICK, *network, *long]), folder=tmp_path / "cpu")
    gpu = vaelab.train(vaelab.compose([*QUICK, *options, *long, "trainer=gpu"]), folder=tmp_path / "gpu")

    assert gpu.metrics["test/elbo"] == pytest.approx(cpu.metrics["test/elbo"], abs=0.5)  # other noise


def test_a_small_network_takes_one_thread_and_a_large_one_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    small, large = ["data=digits"], ["data=digits", "encoder.hidden=[2048,2048]", "data.batch_size=512"]
    assert check(vaelab.compose(small)).suitable_threads() == 1
    assert check(vaelab.compose(large)).suitable_threads() == 4
    assert check(vaelab.compose([*small, "threads=3"])).suitable_threads() == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", ["vae", "factor_vae"])
def test_on_a_gpu_a_run_with_a_loss_scale_resumes_to_the_same_bits(model: str, tmp_path: Path) -> None:
    given = [*QUICK, f"model={model}", "trainer=gpu", "trainer.precision=16-mixed", "trainer.gradient_clip_val=1.0"]
    given += ["trainer.accumulate_grad_batches=3", "callbacks.checkpoints.every_n_steps=2"]
    undisturbed = vaelab.train(vaelab.compose([*given, "trainer.max_epochs=3"]), folder=tmp_path / "undisturbed")
    resumed = vaelab.train(vaelab.compose([*given, "trainer.max_epochs=2"]), folder=tmp_path / "resumed")
    vaelab.resume(resumed, ["trainer.max_epochs=3"])

    assert differences(undisturbed.folder, resumed.folder) == []
