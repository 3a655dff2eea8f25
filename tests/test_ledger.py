"""The ledger of papers: `vaelab ledger`, the page that is made from its run folders, and a row that is run again."""

import json
from pathlib import Path
from statistics import mean, stdev

import ledger
import pytest

import vaelab
from vaelab.cli.main import main
from vaelab.sweeps.folder import SweepFolder
from vaelab.sweeps.ledger import paper_of, rows

SMALL = ["data=digits", "data.validation=200", "trainer.max_epochs=1"]


def test_the_page_is_what_the_script_makes_of_the_results() -> None:
    assert (ledger.DOCS / "ledger.md").read_text() == ledger.page()


def test_every_result_is_of_a_row_as_its_experiment_has_it() -> None:
    results = {path.stem: json.loads(path.read_text()) for path in ledger.RESULTS.glob("*.json")}

    assert set(results) <= set(rows())
    assert all(row["overrides"] == [] for row in results.values())
    assert all(row["metric"] == paper_of(name).metric for name, row in results.items())
    assert all(run["commit"].isalnum() for row in results.values() for run in row["runs"])  # no uncommitted changes


@pytest.mark.slow
def test_one_command_trains_evaluates_and_goes_on_with_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "ledger" / "pytorch_vae"

    _ended(0, "pytorch_vae", "seed=1", *SMALL)
    first = (folder / "seed_1" / "metrics.json").stat().st_mtime_ns
    _ended(0, "pytorch_vae", "seed=1,2", *SMALL)
    row = ledger.read_row("pytorch_vae", SweepFolder.open(folder))

    assert (folder / "seed_1" / "metrics.json").stat().st_mtime_ns == first
    assert [run["seed"] for run in row["runs"]] == [1, 2]
    losses = [json.loads((folder / f"seed_{seed}" / "metrics.json").read_text())["test/loss"] for seed in (1, 2)]
    assert [run["value"] for run in row["runs"]] == losses
    assert row["overrides"] == sorted(SMALL)
    assert f"test/loss {mean(losses):.6g} ± {stdev(losses):.2g} (2 seeds)" in capfd.readouterr().out

    _ended(2, "pytorch_vae", "seed=2", *SMALL[:2], "trainer.max_epochs=2")
    assert "seed_2 has another config: give another folder with --output" in capfd.readouterr().err


def test_a_row_that_does_not_exist_is_a_mistake_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _ended(2, "burda_2015_iwae_6")
    error = capsys.readouterr().err
    assert "no such row of the ledger; did you mean burda_2015_iwae_5" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_short_row_is_within_three_standard_deviations_of_what_is_recorded(tmp_path: Path) -> None:
    recorded = json.loads((ledger.RESULTS / "small_iwae.json").read_text())
    values = [run["value"] for run in recorded["runs"]]
    assert len(values) > 5
    silent = ["callbacks.progress_bar=null", "logger=[]"]
    config = vaelab.compose(["experiment=papers/small_iwae", "seed=1", *silent])

    found = vaelab.evaluate(vaelab.train(config, folder=tmp_path / "run"), samples=100)

    assert found[f"test/{recorded['metric']}"] == pytest.approx(mean(values), abs=3 * stdev(values))


def _ended(code: int, *words: str) -> None:
    """Run `vaelab ledger` to its end."""
    with pytest.raises(SystemExit) as end:
        main(["ledger", *words])
    assert (end.value.code or 0) == code
