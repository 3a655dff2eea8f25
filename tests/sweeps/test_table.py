from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from vaelab.runs.documents import Metrics, Progress
from vaelab.sweeps.folder import Entry, Job, Record, SweepFolder
from vaelab.sweeps.table import failures, summary, watched


def job(folder: Path, number: int, parameters: Mapping[str, object], state: str = "done", **metrics: float) -> Job:
    made = Job(folder, str(number), number, parameters, [])
    made.run.path.mkdir(exist_ok=True)
    made.run.update_status(state, **({"error": "ValueError: no"} if state == "failed" else {}))
    made.run.write_metrics(Metrics({f"test/{name}": value for name, value in metrics.items()}))
    return made


def rendered(jobs: list[Job]) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(jobs))
    return [line.split() for line in capture.get().splitlines()]


def test_the_mean_the_standard_deviation_and_n_are_those_over_seeds(tmp_path: Path) -> None:
    values = {0.5: [1.0, 2.0, 6.0], 4: [7.0, 7.0, 7.0]}
    jobs = [
        job(tmp_path, 10 * row + seed, {"objective.kl_weight": weight, "seed": seed}, elbo=values[weight][seed])
        for row, weight in enumerate(values)
        for seed in range(3)
    ]
    assert rendered(jobs) == [
        ["kl_weight", "n", "test/elbo"],
        ["0.5", "3", "3", "±", "2.6"],  # sqrt((4 + 1 + 9) / 2) = 2.65
        ["4", "3", "7", "±", "0"],
    ]


def test_a_seed_that_failed_is_not_counted(tmp_path: Path) -> None:
    jobs = [job(tmp_path, 0, {"seed": 1}, "failed"), job(tmp_path, 1, {"seed": 2}, elbo=-3.25)]
    assert rendered(jobs) == [["n", "test/elbo"], ["1", "of", "2", "-3.25"]]
    (line,) = failures(jobs)
    assert line.startswith("job 0 (seed=1) failed: ValueError: no; ")


def test_without_seeds_there_is_a_row_a_job_and_what_a_job_has_not_is_empty(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, 0, {"model": "ae"}, mse=0.5),
        job(tmp_path, 1, {"model": "vae"}, mse=0.25, elbo=-100.0),
        job(tmp_path, 2, {"model": "iwae"}, "interrupted"),
    ]
    assert rendered(jobs) == [
        ["model", "state", "test/elbo", "test/mse"],
        ["ae", "done", "0.5"],
        ["vae", "done", "-100", "0.25"],
        ["iwae", "interrupted"],
    ]


def test_the_live_table_shows_what_runs_and_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(tmp_path, 0, {"seed": 1}, "running"), job(tmp_path, 1, {"seed": 2}, "failed")]
    jobs[0].run.update_progress(Progress(5, 20, 55, {"train/loss": 30.5, "val/loss": 31.25, "val/kl": 2.5}))
    entries = [Entry(number.number, number.folder, dict(number.parameters), []) for number in jobs]
    sweep = SweepFolder(tmp_path, Record("vae", [], [], {}, {"name": "basic"}, entries))
    jobs[1].run.update_status("failed", error="ValueError: no [/tmp/x] [bold]")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "screen").open("w") as screen:
        monkeypatch.setattr("sys.stdout", screen)
        with watched(sweep, {0: jobs[0]}) as say:
            assert say(jobs[1]) == "1/2 job 1 (seed=2) failed: ValueError: no [/tmp/x] [bold]"
    shown = (tmp_path / "screen").read_text()
    assert all(
        words in shown
        for words in ("1 failed, 1 running", "epoch 5/20", "val/loss 31.25", "ValueError: no [/tmp/x] [bold]")
    )
