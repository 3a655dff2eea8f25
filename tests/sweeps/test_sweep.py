"""Sweeps in real processes: killed, stopped, gone on with, compared to the bit."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import vaelab
from edits import edit_json, edit_text
from processes import SILENCE, finish, run, start
from vaelab.cli.main import main
from vaelab.config.conf import options
from vaelab.config.overrides import parse
from vaelab.runs.differences import differences
from vaelab.runs.folder import RunFolder
from vaelab.sweeps.folder import SweepFolder
from vaelab.sweeps.grid import compose_grid
from vaelab.sweeps.sweep import _launcher_of, _record

TINY = [
    "data=digits",
    "data.batch_size=64",  # 22 batches an epoch
    "data.binarize=dynamic",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=7",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "--trust=moments",
    "+callbacks.moments._target_=moments.at",
]
UNDISTURBED = "+callbacks.moments.moments=[]"
PARALLEL = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
ONE_WORKER = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]


def holders(folder: Path) -> set[int]:
    """The processes that have a file in the folder open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if folder in link.readlink().parents:
                found.add(int(link.parts[2]))
    return found


def states(folder: Path) -> list[str]:
    return [job.state for job in SweepFolder.open(folder).jobs]


def sweep(folder: Path, *overrides: str, output: Path = SILENCE) -> int:
    return run("train", "-m", *TINY, "seed=1,2,3", f"hydra.sweep.dir={folder}", *overrides, output=output)


def resume(folder: Path, *overrides: str, output: Path = SILENCE) -> int:
    return run("resume", folder, *overrides, "--trust=moments", output=output)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    assert sweep(folder, UNDISTURBED) == 0
    return folder


def assert_same_bits(one: Path, other: Path, *, jobs: int = 3) -> None:
    assert states(other) == ["done"] * jobs
    for job in SweepFolder.open(other).jobs:
        assert differences(one / job.folder, other / job.folder) == []


@pytest.mark.slow
def test_jobs_whose_processes_are_killed_continue_and_end_in_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    assert sweep(folder, "+callbacks.moments.moments=[start30,test]", "seed=1,2", *PARALLEL) == 0
    assert len(list(folder.glob("*/was_at_*"))) == 4
    assert_same_bits(undisturbed, folder, jobs=2)


@pytest.mark.slow
def test_jobs_in_two_processes_each_have_the_numbers_of_those_in_one(undisturbed: Path, tmp_path: Path) -> None:
    assert sweep(tmp_path / "sweep", "trainer.strategy=ddp", "trainer.devices=2", "seed=1,2", UNDISTURBED) == 0
    assert states(tmp_path / "sweep") == ["done"] * 2
    for job in SweepFolder.open(tmp_path / "sweep").jobs:
        assert (job.run.path / "process_1").exists()
        assert job.run.metrics == pytest.approx(RunFolder(undisturbed / job.folder).metrics, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_a_job_whose_process_dies_again_and_again_fails_and_the_others_do_not(tmp_path: Path) -> None:
    output = tmp_path / "output"
    moments = "+callbacks.moments.moments=[],[start1,start2,start3,end3]"
    assert sweep(tmp_path / "sweep", moments, "seed=1", output=output) == 1
    assert states(tmp_path / "sweep") == ["done", "failed"]
    assert "its process died 3 times" in output.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_stop_with_the_sweep_and_the_sweep_goes_on(
    number: signal.Signals, undisturbed: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "sweep", tmp_path / "output"
    long = ["trainer.max_epochs=3", UNDISTURBED]
    process = start(*["train", "-m", *TINY, "seed=1,2,3", f"hydra.sweep.dir={folder}", *long, *PARALLEL], output=output)
    while process.is_alive() and not any(": epoch 0" in log.read_text() for log in folder.glob("*/train.log")):
        time.sleep(0.005)
    assert process.pid is not None
    workers = holders(folder) - {process.pid}
    assert workers
    os.kill(process.pid, number)
    assert finish(process) == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "running" not in states(folder)
        assert f"vaelab resume {folder}" in output.read_text()
        assert "Traceback" not in output.read_text()
    assert resume(folder, "hydra/launcher=basic") == 0  # waits for what still runs
    assert_same_bits(undisturbed, folder)
    assert holders(folder) == set()


@pytest.mark.slow
def test_a_failed_job_stops_no_other_and_says_where_its_traceback_is(tmp_path: Path) -> None:
    folder, output = tmp_path / "sweep", tmp_path / "output"
    axis = ["optimizer.lr=1e30,1e-3", "seed=1,2", "trainer.max_epochs=1", UNDISTURBED]
    assert sweep(folder, *axis, output=output) == 1
    assert states(folder) == ["failed", "done", "failed", "done"]
    failed = SweepFolder.open(folder).jobs[0].run
    assert "nan" in failed.status.error
    assert failed.status.traceback.startswith("Traceback")
    assert "Traceback" in failed.log.read_text()
    said = output.read_text()
    assert "Traceback" not in said
    assert said.count("error: ") == 2
    assert "job 0 (seed=1, lr=1e+30) failed: DivergenceError" in said
    assert "0 of 2" in said


@pytest.mark.slow
def test_a_job_leaves_no_trace_in_the_next(tmp_path: Path) -> None:
    """One that fails in half precision and need not be deterministic, before ours."""
    folder, alone = tmp_path / "sweep", tmp_path / "alone"
    axes = {
        "trainer.precision": "bf16-mixed,32-true",
        "trainer.deterministic": "false,true",
        "optimizer.lr": "1e30,1e-3",
    }
    pairs = [*(f"{key}={values}" for key, values in axes.items()), f"hydra.sweeper.zip=[{','.join(axes)}]"]
    assert sweep(folder, *pairs, "seed=1", UNDISTURBED) == 1
    assert states(folder) == ["failed", "done"]
    assert run("train", *TINY, UNDISTURBED, "seed=1", "optimizer.lr=1e-3", f"hydra.run.dir={alone}") == 0
    assert differences(alone, SweepFolder.open(folder).jobs[-1].run.path) == []


@pytest.mark.slow
def test_jobs_have_their_launchers_threads_in_their_configs_or_those_that_were_given(tmp_path: Path) -> None:
    """So that they end in the same bits wherever they go on."""
    folder, threads = tmp_path / "sweep", ["threads=null,2", "seed=1", "trainer.max_epochs=1"]
    assert sweep(folder, UNDISTURBED, *threads, *ONE_WORKER, "hydra.launcher.threads=3") == 0
    jobs = [job.run for job in SweepFolder.open(folder).jobs]
    assert [job.config.threads for job in jobs] == [3, 2]
    assert [job.manifest.hardware["threads"] for job in jobs] == [3, 2]


@pytest.mark.parametrize("key", ["hydra.sweep.dir", "++hydra.sweep.dir"])
def test_a_folder_that_is_a_sweep_is_left_to_resume(key: str, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert run("train", "-m", "data=digits", "seed=1,2,3", f"{key}={undisturbed}", output=output) == 2
    assert f"is a sweep already: `vaelab resume {undisturbed}` continues it" in output.read_text()


def test_a_sweep_in_use_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    with SweepFolder.open(undisturbed).locked():
        assert resume(undisturbed, output=tmp_path / "output") == 2
    assert "in use" in (tmp_path / "output").read_text()


def test_a_sweep_that_is_done_is_left_as_it_is(undisturbed: Path, tmp_path: Path) -> None:
    runs = [path for path in undisturbed.rglob("*") if path.parent != undisturbed]
    before = {path: path.stat().st_mtime_ns for path in runs}
    assert resume(undisturbed, output=tmp_path / "output") == 0
    assert "±" in (tmp_path / "output").read_text()
    assert {path: path.stat().st_mtime_ns for path in runs} == before


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert all(line.startswith("error: ") for line in errors.splitlines())
    return errors


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody else's sweep that has not begun."""
    monkeypatch.chdir(tmp_path)
    grid = compose_grid(["data=digits", "trainer=debug", "seed=1,2"])
    record = _record(["seed=1,2"], grid, ["0", "1"])
    return SweepFolder.create(tmp_path / "sweep", record, [job.config for job in grid], exact=True).path


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("vaelab.models.likelihoods.Bernoulli", "os.system", "not a part that vaelab ships"),
        ("latent_dim: 20", "latent_dim: ${oc.env:HOME}", "interpolation"),
        ("latent_dim: 20", "latent_dim: -1", "greater than 0"),
    ],
)
def test_a_foreign_sweep_is_checked_before_its_first_job(
    old: str, new: str, words: str, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_text(foreign / "1" / "config.yaml", old, new)
    assert words in refused(capsys, "resume", str(foreign))
    assert states(foreign) == ["waiting", "waiting"]


def test_the_overrides_of_a_foreign_sweep_are_never_composed(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(record: dict[str, Any]) -> None:
        for job in record["jobs"]:
            job["overrides"] = ["+hydra.callbacks.x._target_=os.system", "nonsense"]
        record["overrides"] = ["nonsense"]

    edit_json(foreign / "sweep.json", edit)
    main_returns_with_0("resume", str(foreign))
    assert states(foreign) == ["done", "done"]
    assert "nonsense" in RunFolder(foreign / "0").manifest.overrides


def main_returns_with_0(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ({"name": "../../x"}, "an unknown launcher, ../../x"),
        ({}, "an unknown launcher, None"),
        ({"name": "joblib", "n_jobs": 0}, "hydra.launcher.n_jobs=0"),
        ({"name": "submitit_slurm", "partition": "x\nrm -rf"}, "hydra.launcher.partition"),
    ],
)
def test_a_foreign_launcher_is_checked(
    launcher: dict[str, object], words: str, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_json(foreign / "sweep.json", lambda record: record.update(launcher=launcher))
    assert words in refused(capsys, "resume", str(foreign))


def test_the_address_of_a_cluster_is_never_taken_from_a_folder(foreign: Path) -> None:
    ray = {"name": "ray", "address": "ray://somewhere:10001", "cpus": 3}
    edit_json(foreign / "sweep.json", lambda record: record.update(launcher=ray))
    folder = SweepFolder.open(foreign)
    launcher = _launcher_of(folder, parse([], []), [])
    assert (launcher.address, launcher.cpus) == (None, 3)  # type: ignore[attr-defined]
    launcher = _launcher_of(folder, parse(["++hydra.launcher.address=auto", "hydra.launcher.cpus=1"], []), [])
    assert (launcher.address, launcher.cpus) == ("auto", 1)  # type: ignore[attr-defined]


def test_what_a_cluster_executes_is_never_taken_from_a_folder(foreign: Path) -> None:
    pytest.importorskip("submitit")
    slurm = {"name": "submitit_slurm", "setup": ["rm -rf ~"], "additional_parameters": {"prolog": "x"}, "mem_gb": 3}
    edit_json(foreign / "sweep.json", lambda record: record.update(launcher=slurm))
    launcher = _launcher_of(SweepFolder.open(foreign), parse([], []), [])
    assert (list(launcher.setup), dict(launcher.additional_parameters), launcher.mem_gb) == ([], {}, 3)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", options("sweep"))
def test_a_named_sweep_trains_for_two_batches_a_job(name: str, tmp_path: Path) -> None:
    """Here, without the processes of a sweep, which README's `sweep=seeds` has."""
    jobs = compose_grid([f"sweep={name}", "data=digits", "trainer=debug", "callbacks.progress_bar=null"])
    assert len(jobs) > 1
    assert all(len(job.combination.parameters) == 1 for job in jobs)
    for number, job in enumerate(jobs):
        assert vaelab.train(job.config, folder=tmp_path / str(number)).metrics["steps"] == 2


MISTAKES: dict[str, list[str]] = {
    "seed=range(1,1)": ["seed=range(1,1)", "no value"],
    "seed=": ["seed="],
    "seed=1,2 latnt_dim=3": ["latnt_dim", "did you mean latent_dim?"],
    "latent_dim=2,-3 model=ae,vea": ["latent_dim=-3", "did you mean vae?"],
    "seed=1,2 hydra/launcher=joblb": ["hydra/launcher=joblb", "did you mean joblib?"],
    "seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=0": ["hydra.launcher.n_jobs=0"],
    "seed=1,2 hydra.launcher.n_jobs=2": ["n_jobs"],
    "seed=1,2 hydra.sweep.subdir=same": ["several jobs", "same"],
    "seed=1 hydra.sweep.subdir=../../x": ["hydra.sweep.subdir: ../../x is not within the sweep's folder"],
    "seed=1,2 hydra.sweep.subdir=/tmp/x_${hydra.job.num}": ["hydra.sweep.subdir: /tmp/x_0 is not within"],
    "seed=1 hydra.sweep.subdir=.": ["hydra.sweep.subdir: . is not within"],
    "latent_dim=choice()": ["latent_dim=choice(): not an override"],
    "latent_dim=interval(0,1)": ["latent_dim=interval(0,1): a grid needs single values"],
    "latent_dim=glob(*)": ["latent_dim=glob(*): there is no value in it"],
    "seed=1,2 hydra.launcher._target_=os.system": ["not a part that vaelab ships"],
    "seed=1,2 hydra.launcher._target_=vaelab.models.networks.MLPEncoder": ["not a part that fits there"],
    "seed=1,2 data.root=no_such_folder data=mnist": ["no_such_folder"],
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_a_mistake_is_found_before_the_first_job_and_writes_nothing(
    overrides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    errors = refused(capsys, "train", "-m", *overrides.split())
    assert all(words in errors for words in MISTAKES[overrides]), errors
    assert not list(tmp_path.iterdir())


def test_several_values_without_m_and_a_named_sweep_without_it_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "needs -m" in refused(capsys, "train", "model=ae,vae")
    assert "needs -m" in refused(capsys, "train", "sweep=kl_weight")


@pytest.mark.parametrize("command", ["evaluate"])
def test_a_sweep_folder_given_where_a_run_is_wanted_says_so(
    command: str, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is a sweep" in refused(capsys, command, str(foreign))


def test_a_folder_that_is_neither_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a run folder" in refused(capsys, "resume", str(tmp_path))


def test_a_run_is_not_resumed_with_overrides(
    small_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "resumed with the config that it was started with" in refused(
        capsys, "resume", str(small_run("vae")), "latent_dim=3"
    )
