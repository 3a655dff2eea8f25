"""Runs whose processes are started from outside: real ones, by torchrun and by the variables that others set."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import vaelab
from processes import finish, free_port, start
from vaelab.cli.main import main
from vaelab.runs.launch import Launch
from vaelab.training.monitoring import IMAGES_PER_SECOND

TINY = [
    "data=digits",
    "data.batch_size=349",  # the last batch of an epoch has one image, so one of two processes has none
    "data.binarize=dynamic",
    "logger=csv",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "trainer.max_epochs=4",
    "trainer.log_every_n_steps=1",
    "callbacks.checkpoints.every_n_steps=2",
    "~callbacks.progress_bar",
]
TWO = ["trainer=ddp", "trainer.accelerator=cpu"]
NODES = [*TWO, "trainer.num_nodes=2", "trainer.devices=1"]


def by_hand(rank: int, port: int) -> dict[str, str]:
    return {"NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def like_srun(rank: int, port: int) -> dict[str, str]:
    """What srun --nodes=2 --ntasks-per-node=1 sets, of which Lightning reads a part and we another."""
    counts = dict.fromkeys(["SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_NNODES"], "2")
    ranks = dict.fromkeys(["SLURM_PROCID", "SLURM_NODEID"], str(rank)) | {"SLURM_LOCALID": "0"}
    of_the_job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "vae", "SLURM_NODELIST": "127.0.0.1"}
    return counts | ranks | of_the_job | {"SLURM_NTASKS_PER_NODE": "1", "MASTER_PORT": str(port)}


def start_two(
    arguments: Sequence[str],
    outputs: Path,
    *,
    places: Sequence[Path] = (),
    environment: Callable[[int, int], dict[str, str]] = by_hand,
) -> list[tuple[BaseProcess, Path]]:
    """Two processes that are to be one run, and what each prints."""
    port = free_port()
    return [
        (start(*arguments, cwd=place, output=output, environment=environment(rank, port)), output)
        for rank, place in enumerate(places or [outputs, outputs])
        for output in [outputs / f"output_{rank}"]
    ]


def finish_two(processes: Sequence[tuple[BaseProcess, Path]]) -> tuple[list[int], list[str]]:
    """Exit codes and what was printed."""
    return [finish(process) for process, _ in processes], [output.read_text() for _, output in processes]


def run_two(*arguments: Any, **options: Any) -> tuple[list[int], list[str]]:
    return finish_two(start_two(*arguments, **options))


def launch(command: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    """A launcher in an interpreter of its own, as are the processes that it starts."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def torchrun(*options: str, command: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    return launch(["--monitor-interval=0.1", *options, "-m", "vaelab", *command], cwd)


def ended(*launchers: subprocess.Popen[str]) -> tuple[list[int], list[str]]:
    """Exit codes and what was printed."""
    printed = [launcher.communicate()[0] for launcher in launchers]
    return [launcher.returncode for launcher in launchers], printed


def happening(*moments: str, action: str, rank: int = 0) -> list[str]:
    """Overrides by which something happens to one process at chosen moments."""
    return [
        "--trust=moments",
        "+callbacks.moments._target_=moments.at",
        f"+callbacks.moments.moments=[{','.join(moments)}]",
        f"+callbacks.moments.action={action}",
        f"+callbacks.moments.rank={rank}",
    ]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run in one process."""
    return vaelab.train(vaelab.compose([*TINY, "trainer=cpu"]), folder=tmp_path_factory.mktemp("one") / "run").folder


@pytest.mark.slow
def test_two_processes_share_an_evaluation_and_its_numbers_are_those_of_one(tmp_path: Path) -> None:
    """Of weights that stay as they are, since those that are trained differ by rounding."""
    given = ["data=mnist_5k", "data.validation=2500", "data.test=1500", "trainer.limit_train_batches=1", "logger=csv"]
    given += ["optimizer=sgd", "optimizer.lr=0", "trainer.max_epochs=1", "~callbacks.progress_bar", "threads=1"]
    one = vaelab.train(vaelab.compose([*given, "trainer=cpu"]), folder=tmp_path / "one")
    codes, printed = run_two(["train", *given, *NODES, f"hydra.run.dir={tmp_path / 'two'}"], tmp_path)
    assert codes == [0, 0], printed

    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    evaluated = {name: value for name, value in one.metrics.items() if name.startswith(("val/", "test/"))}
    assert len(evaluated) > 8
    assert {name: metrics[name] for name in evaluated} == evaluated
    logs = [(tmp_path / name / "csv" / "metrics.csv").read_text().splitlines() for name in ("one", "two")]
    active = [[row["val/active_units"] for row in csv.DictReader(log)] for log in logs]
    assert active[0] == active[1] != []


def assert_like(folder: Path, one: Path) -> None:
    """The rows of two logs are those of the same steps, to 1e-5."""
    logs = [list(csv.DictReader((path / "csv" / "metrics.csv").read_text().splitlines())) for path in (folder, one)]
    assert len(logs[0]) == len(logs[1]) > 15
    for row, expected in zip(*logs, strict=True):
        for name in expected.keys() - {IMAGES_PER_SECOND}:
            value, number = (float(cells[name] or "nan") for cells in (row, expected))
            assert value == pytest.approx(number, rel=1e-5, abs=1e-5, nan_ok=True), (name, row["step"])
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_the_processes_of_torchrun_make_one_folder_and_what_stops_one_of_them_stops_all(
    tmp_path: Path, one: Path
) -> None:
    """The folder has the time in its name, so that each process would choose another."""
    command = ["train", *TINY, *TWO, *happening("start9", action="SIGTERM", rank=1)]
    [code], [printed] = ended(torchrun("--nproc-per-node=2", command=command, cwd=tmp_path))
    assert code == 1
    assert "exitcode  : 143" in printed
    [folder] = (tmp_path / "outputs" / "runs").iterdir()
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert len(list(tmp_path.rglob("manifest.json"))) == 1

    command = ["resume", str(folder), "--trust=moments"]
    [code], [printed] = ended(torchrun("--nproc-per-node=2", command=command, cwd=tmp_path))
    assert code == 0
    assert printed.count("test/loss") == 1
    assert_like(folder, one)


@pytest.mark.slow
def test_processes_that_torchrun_has_restarted_meet_where_nothing_is_left_of_those_before(tmp_path: Path) -> None:
    """Else torch.distributed now and then connects to a process that has ended: it finds its address there."""
    (tmp_path / "meeting.py").write_text(
        "import os, torch.distributed, vaelab\n"
        "from vaelab.runs.launch import Launch\n"
        "launch = Launch.of(vaelab.compose())\n"
        "again = os.environ['TORCHELASTIC_RESTART_COUNT'] == '1'\n"
        "store, _, _ = next(torch.distributed.rendezvous('env://'))\n"
        "assert not again or not store.check(['address'])\n"
        "torch.distributed.init_process_group('gloo')\n"
        "torch.distributed.barrier()\n"
        "store.set('address', '')\n"
        "torch.distributed.barrier()\n"
        "os._exit(0 if again else 1)\n"
    )
    [code], [printed] = ended(launch(["--nproc-per-node=2", "--max-restarts=1", "meeting.py"], tmp_path))
    assert code == 0, printed


@pytest.mark.slow
def test_two_nodes_of_torchrun_are_one_run_and_restart_as_one(tmp_path: Path, one: Path) -> None:
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    command = ["train", *TINY, *NODES, "hydra.run.dir=run", *happening("start9", action="SIGKILL")]
    options = [*meeting, "--max-restarts=1"]
    nodes = [torchrun(*options, f"--node-rank={rank}", command=command, cwd=tmp_path) for rank in (0, 1)]
    codes, printed = ended(*nodes)
    assert codes == [0, 0], printed
    assert_like(tmp_path / "run", one)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [by_hand, like_srun])
def test_two_machines_resume_after_all_processes_were_killed(
    environment: Callable[[int, int], dict[str, str]], tmp_path: Path, one: Path
) -> None:
    command = ["train", *TINY, *NODES, "hydra.run.dir=run", *happening("start9", action="hang")]
    processes = start_two(command, tmp_path, environment=environment)
    while all(process.is_alive() for process, _ in processes) and not (tmp_path / "run" / "was_at_start9_0").exists():
        time.sleep(0.05)
    for process, _ in processes:
        process.kill()
    assert finish_two(processes)[0] == [-signal.SIGKILL, -signal.SIGKILL]

    command = ["resume", "run", "--trust=moments"]
    codes, printed = run_two(command, tmp_path, environment=environment)
    assert codes == [0, 0], printed
    assert "test/loss" in printed[0]
    assert printed[1] == ""
    assert_like(tmp_path / "run", one)


@pytest.mark.slow
def test_a_machine_starts_the_processes_of_its_other_devices_itself(tmp_path: Path, one: Path) -> None:
    command = ["train", *TINY, *TWO, "trainer.num_nodes=2", "trainer.devices=2", "hydra.run.dir=run"]
    codes, printed = run_two([*command, *happening(action="hang")], tmp_path)
    assert codes == [0, 0], printed
    assert len(list((tmp_path / "run").glob("process_*"))) == 4
    assert_like(tmp_path / "run", one)


@pytest.mark.slow
def test_a_requeued_job_goes_on_and_another_config_does_not_get_its_folder(tmp_path: Path, one: Path) -> None:
    def requeued(rank: int, port: int) -> dict[str, str]:
        return like_srun(rank, port) | {"SLURM_RESTART_COUNT": "1"}

    command = ["train", *TINY, *NODES, "hydra.run.dir=run", *happening("start9", action="SIGUSR1", rank=1)]
    assert run_two(command, tmp_path, environment=like_srun)[0] == [143, 143]
    codes, printed = run_two([*command, "seed=1"], tmp_path, environment=requeued)
    assert codes == [2, 2]
    assert "run is there already" in printed[0]
    assert printed[1] == ""
    assert run_two(command, tmp_path, environment=requeued)[0] == [0, 0]
    assert_like(tmp_path / "run", one)


@pytest.mark.slow
def test_a_nan_in_one_process_ends_all_with_3(tmp_path: Path) -> None:
    command = ["train", *TINY, *NODES, *happening("start9", action="poison", rank=1)]
    codes, printed = run_two(command, tmp_path)
    assert codes == [3, 3]
    assert printed[0].count("error:") == 1
    assert printed[1] == ""


@pytest.mark.slow
def test_data_that_one_machine_has_not_is_said_once_before_anything_is_written(raw_sets: Path, tmp_path: Path) -> None:
    data = ["data=mnist", "data.root=.", "data.validation=100", "data.batch_size=50"]
    codes, printed = run_two(["train", *NODES, *data, "hydra.run.dir=run"], tmp_path, places=[raw_sets, tmp_path])
    assert codes == [2, 2]
    assert f"error: process 1 of 2 on {socket.gethostname()}: " in printed[0]
    assert printed[1] == ""
    assert not (raw_sets / "run").exists()


@pytest.mark.slow
def test_other_processes_than_the_config_wants_are_one_clear_message(tmp_path: Path) -> None:
    command = ["train", *TINY, "trainer=cpu"]
    _, [printed] = ended(torchrun("--nproc-per-node=2", command=command, cwd=tmp_path))
    assert printed.count("error: trainer.devices=1 x trainer.num_nodes=1 should be 2") == 1
    assert "exitcode  : 2" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({}, NODES, "missing: NODE_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"NODE_RANK": "1"}, NODES, "missing: MASTER_ADDR, MASTER_PORT"),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}, ["-m", "seed=1,2"], "a sweep is one"),
    ],
)
def test_what_cannot_be_one_run_is_refused_before_anything_is_written(
    environment: dict[str, str],
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        main(["train", *TINY, *arguments])
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in by_hand(0, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vaelab.runs.launch.MEETING", 0.1)
    with pytest.raises(vaelab.errors.RunError, match="process 1 of 2 did not start"):
        Launch.of(vaelab.compose([*TINY, *NODES])).await_others()
