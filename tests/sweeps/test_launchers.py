"""Each launcher with its real engine."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from processes import command
from vaelab.cli.main import main
from vaelab.config.conf import CONF, options
from vaelab.runs.differences import differences
from vaelab.sweeps.folder import Job, SweepFolder
from vaelab.sweeps.launchers import Joblib, Ray, SubmititSlurm, _cores, divided, visible_devices

TINY = [
    *["data=digits", "data.batch_size=64", "trainer=cpu", "trainer.max_epochs=2", "encoder.hidden=[16]"],
    *["latent_dim=2", "seed=1,2", "threads=1", "--trust=moments", "+callbacks.moments._target_=moments.at"],
]
ENVIRONMENT = ["+callbacks.environment._target_=moments.environment"]


def sweep(folder: Path, *overrides: str, launcher: str, **environment: str) -> list[Job]:
    """The jobs of a sweep, all of which are done."""
    where = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}"]
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # the launchers' processes find moments there
    result = command("train", "-m", *TINY, *overrides, *where, cwd=folder.parent, **environment)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    jobs = SweepFolder.open(folder).jobs
    assert {job.state for job in jobs} == {"done"}
    return jobs


def given(job: Job, variable: str) -> str:
    """A variable of the environment in which a job was trained."""
    return str(json.loads((job.run.path / "environment.json").read_text())[variable])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    sweep(folder, "+callbacks.moments.moments=[]", launcher="basic")
    return folder


@pytest.mark.parametrize(
    ("visible", "jobs", "shares"),
    [
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("0,1,2", 2, ["0", "1"]),
        ("GPU-a,GPU-b", 3, ["GPU-a", "GPU-b", "GPU-a"]),
        ("", 2, ["", ""]),
        ("-1", 1, [""]),
    ],
)
def test_jobs_at_a_time_divide_the_visible_gpus(
    visible: str, jobs: int, shares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert divided(visible_devices(), jobs) == shares
    assert Joblib().workers() == (len(visible_devices()) or _cores())
    assert Joblib(n_jobs=3).workers() == 3


@pytest.mark.parametrize(
    ("launcher", "gpus", "expected"),
    [
        (Ray(), 0, (8, 0)),
        (Ray(), 2, (2, 1)),
        (Ray(n_jobs=2), 5, (2, 2)),
        (Ray(n_jobs=3), 1, (3, 0.3333)),
        (Ray(gpus=0.5), 2, (4, 0.5)),
        (Ray(gpus=0), 2, (8, 0)),
        (Ray(cpus=4), 4, (2, 2)),
    ],
)
def test_jobs_of_ray_divide_the_gpus_of_its_cluster(launcher: Ray, gpus: int, expected: tuple[int, float]) -> None:
    assert launcher._divided({"CPU": 8, "GPU": gpus}) == expected


@pytest.mark.slow
def test_each_job_of_joblib_is_given_its_share_of_the_gpus(tmp_path: Path) -> None:
    two = ["hydra.launcher.n_jobs=2", "+callbacks.moments.moments=[]", "trainer.max_epochs=1"]
    jobs = sweep(tmp_path / "sweep", *two, *ENVIRONMENT, launcher="joblib", CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert {given(job, "CUDA_VISIBLE_DEVICES") for job in jobs} == {"4,5", "6,7"}


@pytest.mark.slow
def test_ray_replaces_a_killed_job_and_gives_each_its_gpu(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the Ray of this program, which has two GPUs as far as it knows."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's is 15, behind all other tests
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        moments = ["+callbacks.moments.moments=[start30]", *ENVIRONMENT]
        with pytest.raises(SystemExit) as end:
            main(["train", "-m", *TINY, *moments, "hydra/launcher=ray", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
        assert end.value.code == 0
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    jobs = SweepFolder.open(tmp_path / "sweep").jobs
    assert len(list(tmp_path.glob("sweep/*/was_at_start30*"))) == 2
    assert {given(job, "CUDA_VISIBLE_DEVICES") for job in jobs} == {"0", "1"}
    for job in jobs:
        assert differences(undisturbed / job.folder, job.run.path) == []


@pytest.mark.slow
def test_a_job_that_slurm_preempts_or_whose_process_is_killed_continues(undisturbed: Path, tmp_path: Path) -> None:
    """SIGUSR2 is what submitit has Slurm send before it takes a machine away; its local engine does the same."""
    pytest.importorskip("submitit")
    preempted = ["+callbacks.moments.moments=[start30]", "+callbacks.moments.action=SIGUSR2,SIGKILL"]
    pairs = [*preempted, "hydra.sweeper.zip=[seed,callbacks.moments.action]"]
    jobs = sweep(tmp_path / "sweep", *pairs, launcher="submitit_local")
    assert "interrupted" in jobs[0].run.log.read_text()
    for job, before in zip(jobs, SweepFolder.open(undisturbed).jobs, strict=True):
        assert job.run.log.read_text().count("Autoencoder(") == 2
        assert differences(before.run.path, job.run.path) == []
    assert not list((tmp_path / "sweep").rglob("*.pkl"))


@pytest.mark.slow
def test_a_job_of_several_tasks_is_one_run(undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    tasks = ["hydra.launcher.tasks_per_node=2", "trainer.strategy=ddp", "trainer.devices=2", "seed=1"]
    (job,) = sweep(tmp_path / "sweep", *tasks, "+callbacks.moments.moments=[]", launcher="submitit_local")
    assert (job.run.path / "process_1").exists()
    alone = SweepFolder.open(undisturbed).jobs[0].metrics
    assert job.metrics == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_slurms_script_has_what_is_said_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    (tmp_path / "srun").touch(0o755)  # without which submitit takes it that there is no Slurm
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    extras: dict[str, Any] = {"setup": ["module load cuda"], "additional_parameters": {"mail-type": "END"}}
    launcher = SubmititSlurm(tasks_per_node=2, nodes=3, gpus_per_node=2, partition="long", **extras)
    executor = submitit.AutoExecutor(tmp_path, "slurm")
    executor.update_parameters(**launcher.parameters())
    script = executor._executor._make_submission_file_text("command", "1")
    for words in ("ntasks-per-node=2", "nodes=3", "gpus-per-node=2", "partition=long", "mem=8GB", "mail-type=END"):
        assert f"#SBATCH --{words}\n" in script
    assert "\nmodule load cuda\n" in script


@pytest.mark.parametrize(
    ("package", "launcher", "extra"), [("ray", "ray", "ray"), ("submitit", "submitit_slurm", "slurm")]
)
def test_a_missing_extra_is_said_with_its_name(
    package: str,
    launcher: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as end:
        main(["train", "-m", "seed=1,2", "data=digits", f"hydra/launcher={launcher}"])
    assert end.value.code == 2
    assert f'pip install "vaelab[{extra}]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_launcher_of_conf_is_there_and_its_defaults_are_those_of_its_class() -> None:
    from omegaconf import OmegaConf

    from vaelab.config.parts import check_part

    assert options("hydra/launcher") == ["basic", "joblib", "ray", "submitit_local", "submitit_slurm"]
    for name in options("hydra/launcher"):
        node = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "launcher" / f"{name}.yaml"))
        assert isinstance(node, dict)
        if name.partition("_")[0] in ("ray", "submitit") and find_spec(name.partition("_")[0]) is None:
            continue
        launcher = check_part("hydra.launcher", {str(key): value for key, value in node.items()})
        assert launcher == type(launcher)()
