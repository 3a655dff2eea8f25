import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import vaelab
from processes import finish, run, start
from vaelab.config import experiment
from vaelab.errors import RunError
from vaelab.runs.documents import Metrics
from vaelab.runs.folder import RunFolder

TINY = [
    "data=digits",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "~callbacks.progress_bar",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "run"
    assert run("train", *TINY, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """The original, to be tampered with."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture
def another_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(experiment, "FLOP_PER_THREAD", 1.0)  # so that the small network takes all there are
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield threads + 1
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_run_is_reproduced_to_the_bit(original: Path, tmp_path: Path) -> None:
    output, again = tmp_path / "output", tmp_path / "again"
    before = {path: path.stat().st_mtime_ns for path in original.rglob("*")}
    assert run("reproduce", original, "--output", again, output=output) == 0
    assert f"identical: {again} equals {original} bit by bit" in " ".join(output.read_text().split())
    assert (again / "metrics.json").read_bytes() == (original / "metrics.json").read_bytes()
    assert (again / "config.yaml").read_bytes() == (original / "config.yaml").read_bytes()
    overrides = [json.loads((folder / "manifest.json").read_text())["overrides"] for folder in (original, again)]
    assert overrides[0] == overrides[1] != []
    assert {path: path.stat().st_mtime_ns for path in original.rglob("*")} == before


def test_a_figure_that_was_tampered_with_is_reported_with_its_amounts(copy: Path, tmp_path: Path) -> None:
    metrics = RunFolder(copy).metrics
    RunFolder(copy).write_metrics(Metrics(metrics | {"test/kl": metrics["test/kl"] * 2}))
    output = tmp_path / "output"
    assert run("reproduce", copy, "--output", tmp_path / "again", output=output) == 1
    (line,) = [line for line in output.read_text().splitlines() if "test/kl" in line]
    assert line.split()[-2:] == [f"{metrics['test/kl']:.3g}", "0.5"]
    assert "packages, data, hardware and code are the same" in output.read_text()


def test_another_number_of_threads_is_reported(original: Path, tmp_path: Path, another_number_of_threads: int) -> None:
    reproduction = vaelab.reproduce(original, folder=tmp_path / "again")
    threads = RunFolder(original).manifest.hardware["threads"]
    assert reproduction.circumstances["hardware"] == [f"threads {threads} -> {another_number_of_threads}"]


@pytest.mark.slow
def test_data_that_changed_are_reported_with_what_came_of_it(raw_sets: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(raw_sets, tmp_path / "data"))
    config = vaelab.compose(["data=mnist", f"data.root={root}", "data.validation=50", *TINY[1:]])
    trained = vaelab.train(config, folder=tmp_path / "run")
    images = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000] + bytes(1000))

    reproduction = vaelab.reproduce(trained, folder=tmp_path / "again")

    assert not reproduction.identical
    metrics = {difference.place[1] for difference in reproduction.differences if difference.place[0] == "metrics"}
    assert {"test/elbo", "test/mse"} <= metrics <= set(trained.metrics)
    assert {difference.place[0] for difference in reproduction.differences} == {"metrics", "scalars", "pictures"}
    (changed,) = reproduction.circumstances["data"]
    assert changed.startswith("test ")


@pytest.mark.slow
def test_a_job_of_a_sweep_is_reproduced(tmp_path: Path) -> None:
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    assert run("train", "-m", *TINY, "trainer.max_epochs=1", "latent_dim=2,3", sweep) == 0
    jobs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert len(jobs) == 2
    for number, job in enumerate(jobs):
        assert vaelab.reproduce(job, folder=tmp_path / f"again {number}").identical


@pytest.mark.slow
def test_a_job_in_two_processes_is_reproduced_as_often_as_a_program_likes(tmp_path: Path) -> None:
    two = ["trainer.strategy=ddp", "trainer.devices=2", "trainer.max_epochs=1"]
    assert run("train", "-m", *TINY, *two, f"hydra.sweep.dir={tmp_path / 'sweep'}") == 0
    names = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    before = [os.environ.get(name) for name in names], torch.get_num_threads()
    for number in range(2):
        assert vaelab.reproduce(tmp_path / "sweep" / "0", folder=tmp_path / f"again {number}").identical
    assert ([os.environ.get(name) for name in names], torch.get_num_threads()) == before
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_run_that_was_killed_is_reproduced_once_it_was_resumed(tmp_path: Path) -> None:
    folder, output = tmp_path / "run", tmp_path / "output"
    process = start("train", *TINY, "trainer.max_epochs=40", f"hydra.run.dir={folder}")
    while process.is_alive() and not (folder / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.001)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    assert run("reproduce", folder, output=output) == 2
    assert "is not done" in output.read_text()
    assert f"vaelab resume {folder}" in " ".join(output.read_text().split())
    assert run("resume", folder) == 0
    assert vaelab.reproduce(folder, folder=tmp_path / "again").identical


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert run("reproduce", tmp_path, output=output) == 2
    assert "not a run folder" in output.read_text()


def test_a_folder_that_is_taken_is_refused_before_anything_is_trained(original: Path) -> None:
    with pytest.raises(RunError, match="never overwrites"):
        vaelab.reproduce(original, folder=original)
