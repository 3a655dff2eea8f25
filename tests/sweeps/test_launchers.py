"""Each launcher with its real engine."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from processes import command
from vaelab.cli.main import main
from vaelab.config.conf import CONF, options
from vaelab.runs.differences import differences
from vaelab.sweeps.folder import SweepFolder

TINY = [
    *["data=digits", "data.batch_size=64", "trainer=cpu", "trainer.max_epochs=2", "encoder.hidden=[16]"],
    *["latent_dim=2", "seed=1,2", "threads=1", "--trust=moments", "+callbacks.moments._target_=moments.at"],
]


def sweep(folder: Path, *overrides: str, launcher: str) -> None:
    where = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}"]
    path = os.pathsep.join(sys.path)  # the launchers' processes find moments there
    result = command("train", "-m", *TINY, *overrides, *where, cwd=folder.parent, PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert [job.state for job in SweepFolder.open(folder).jobs] == ["done", "done"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    sweep(folder, "+callbacks.moments.moments=[]", launcher="basic")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ray", "submitit_local"])
def test_a_killed_worker_is_replaced_and_its_job_ends_in_the_bits_of_an_undisturbed_one(
    launcher: str, undisturbed: Path, tmp_path: Path
) -> None:
    if find_spec(launcher.partition("_")[0]) is None:
        pytest.skip(f"{launcher} is an extra that is not installed here")
    folder = tmp_path / "sweep"
    sweep(folder, "+callbacks.moments.moments=[start30]", launcher=launcher)
    assert len(list(folder.glob("*/was_at_start30*"))) == 2
    for job in SweepFolder.open(folder).jobs:
        assert differences(undisturbed / job.folder, job.run.path) == []
    assert not list(folder.rglob("*.pkl"))


@pytest.mark.slow
def test_a_job_that_slurm_preempts_is_queued_again_and_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    """SIGUSR2 is what submitit has Slurm send before it takes a machine away; its local engine does the same."""
    pytest.importorskip("submitit")
    preempted = ["+callbacks.moments.moments=[start30]", "+callbacks.moments.action=SIGUSR2"]
    sweep(tmp_path / "sweep", *preempted, launcher="submitit_local")
    for job in SweepFolder.open(tmp_path / "sweep").jobs:
        assert "interrupted" in job.run.log.read_text()
        assert job.run.log.read_text().count("Autoencoder(") == 2
        assert differences(undisturbed / job.folder, job.run.path) == []


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
