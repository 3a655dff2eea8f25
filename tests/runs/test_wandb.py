"""Weights & Biases: a run there for each run here, and the same one when it is resumed."""

from pathlib import Path

import pytest

import vaelab

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # W&B's dependencies'

QUICK = ["data=digits", "trainer=debug", "callbacks.progress_bar=null", "logger=wandb", "logger.wandb.offline=true"]


def ids(folder: Path) -> set[str]:
    """The ids under which W&B has kept what was logged in a run folder."""
    return {path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")}


def test_two_runs_of_one_program_are_two_there_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    import wandb

    runs = [vaelab.train(vaelab.compose([*QUICK, f"seed={n}"]), folder=tmp_path / str(n)).folder for n in (1, 2)]
    assert wandb.run is None
    first, second = (ids(folder) for folder in runs)
    assert len(first) == len(second) == 1
    assert first != second
    (runs[0] / "status.json").write_text('{"state": "interrupted"}')
    vaelab.resume(runs[0])
    assert ids(runs[0]) == first
    (runs[0] / "status.json").write_text('{"state": "interrupted"}')
    (runs[0] / "wandb_id").write_text("../../x")
    with pytest.raises(vaelab.RunError, match="8 hexadecimal digits"):
        vaelab.resume(runs[0])
