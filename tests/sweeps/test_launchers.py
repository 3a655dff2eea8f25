"""Each launcher with its real engine."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from vaelab.cli import main
from vaelab.experiment.compose import CONF, options
from vaelab.experiment.differences import differences
from vaelab.sweeps.folder import SweepFolder

MOMENTS = Path(__file__).parents[1] / "experiment"
TINY = ["data=digits", "data.batch_size=64", "trainer=cpu", "encoder.hidden=[16]", "latent_dim=2", "seed=1,2"]


def vaelab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(MOMENTS), *sys.path])
    command = [sys.executable, "-m", "vaelab", *map(str, arguments), "--trust", "moments"]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ray", "submitit_local"])
def test_a_killed_worker_is_replaced_and_its_job_ends_in_the_bits_of_an_undisturbed_one(
    launcher: str, tmp_path: Path
) -> None:
    if find_spec(launcher.partition("_")[0]) is None:
        pytest.skip(f"{launcher} is an extra that is not installed here")
    moments = ["+callbacks.moments._target_=moments.at", "trainer.max_epochs=3"]
    one, other = tmp_path / "one", tmp_path / "other"
    result = vaelab(
        "train",
        "-m",
        *TINY,
        *moments,
        "+callbacks.moments.moments=[]",
        "hydra/launcher=basic",
        f"hydra.sweep.dir={one}",
    )
    assert result.returncode == 0, result.stderr
    killed = ["+callbacks.moments.moments=[start30]", f"hydra/launcher={launcher}", f"hydra.sweep.dir={other}"]
    result = vaelab("train", "-m", *TINY, *moments, *killed)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert len(list(other.glob("*/was_at_start30*"))) == 2
    for job in SweepFolder.open(other).jobs:
        assert job.state == "done"
        assert differences(one / job.folder, job.run.path) == []
    assert not list(other.rglob("*.pkl"))


@pytest.mark.slow
def test_a_job_that_slurm_preempts_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    """SIGUSR2 is what submitit has Slurm send before it takes a machine away; its local engine does the same."""
    from vaelab.sweeps.launchers import SubmititLocal

    pytest.importorskip("submitit")
    arguments = [*TINY, "trainer.max_epochs=60", "hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path / 's'}"]
    command = [sys.executable, "-m", "vaelab", "train", "-m", *arguments]
    assert SubmititLocal().n_jobs == 2
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        logs: list[Path] = []
        while len(logs) < 2 and process.poll() is None:
            time.sleep(0.1)
            logs = [log for log in (tmp_path / "s").glob("*/train.log") if ": epoch 1," in log.read_text()]
        for task in _children_with("submitit.core._submit"):
            os.kill(task, signal.SIGUSR2)
        assert process.wait(timeout=400) == 0
    jobs = SweepFolder.open(tmp_path / "s").jobs
    assert [job.state for job in jobs] == ["done", "done"]
    assert all("interrupted" in job.run.log.read_text() for job in jobs)
    assert all(job.run.log.read_text().count("Autoencoder(") == 2 for job in jobs)


def _children_with(words: str) -> list[int]:
    """The processes whose command line has these words in it, and this test's folder in their past."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if words in (path / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                found.append(int(path.name))
        except OSError:
            continue  # it has ended
    return found


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

    from vaelab.experiment.check import check_part

    assert options("hydra/launcher") == ["basic", "joblib", "ray", "submitit_local", "submitit_slurm"]
    for name in options("hydra/launcher"):
        node = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "launcher" / f"{name}.yaml"))
        assert isinstance(node, dict)
        if name.partition("_")[0] in ("ray", "submitit") and find_spec(name.partition("_")[0]) is None:
            continue
        launcher = check_part("hydra.launcher", {str(key): value for key, value in node.items()})
        assert launcher == type(launcher)()
