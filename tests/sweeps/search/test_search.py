"""Searches in real processes, with the real Optuna."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from moments import kill_before_write

from edits import edit_json
from processes import finish, free_port, run, start
from vaelab.cli.main import main
from vaelab.errors import RunError
from vaelab.runs.differences import differences
from vaelab.sweeps.folder import SweepFolder
from vaelab.sweeps.search.study import opened

RANDOM = ["hydra/sweeper/sampler=random"]
QUICK = ["data=digits", "trainer=debug", "encoder.hidden=[8]", "decoder.hidden=[8]", "hydra/sweeper=optuna"]
SPACE = ["optimizer.lr=tag(log,interval(1e-4,1e-2))", "latent_dim=range(2,9)"]


def search(*overrides: str) -> int:
    """The exit code of a search in this process."""
    with pytest.raises(SystemExit) as end:
        main(["train", "-m", *QUICK, *overrides])
    assert isinstance(end.value.code, int)
    return end.value.code


def record(folder: Path) -> dict[str, Any]:
    found = SweepFolder.open(folder).record.search
    assert found is not None
    return asdict(found)


def reached(folder: Path) -> list[tuple[dict[str, Any], float]]:
    return [(dict(job.parameters), job.metrics["val/loss"]) for job in SweepFolder.open(folder).jobs]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "nsga2"])
def test_each_sampler_trains_what_it_proposes_and_names_the_best(sampler: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    chosen = [f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=3", f"hydra.sweep.dir={folder}"]
    assert search(*SPACE, *chosen) == 0
    trials = reached(folder)
    assert len(trials) == 3
    for parameters, _ in trials:
        assert 1e-4 <= parameters["optimizer.lr"] <= 1e-2
        assert parameters["latent_dim"] in range(2, 9)
    (best,) = record(folder)["best"]
    assert (best["parameters"], best["values"]["val/loss"]) == min(trials, key=lambda trial: trial[1])
    for job in SweepFolder.open(folder).jobs:
        assert job.run.config.optimizer.lr == job.parameters["optimizer.lr"]


@pytest.mark.slow
def test_two_metrics_have_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    metrics = ["hydra.sweeper.metric=[val/reconstruction,val/kl]", "hydra/sweeper/sampler=nsga2"]
    assert (
        search(
            "objective.kl_weight=interval(0.1,4)",
            *SPACE,
            *metrics,
            f"hydra.sweep.dir={folder}",
            "hydra.sweeper.n_trials=5",
        )
        == 0
    )
    points = {
        job.number: (job.metrics["val/reconstruction"], job.metrics["val/kl"]) for job in SweepFolder.open(folder).jobs
    }
    front = {
        one
        for one, (a, b) in points.items()
        if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in points.values())
    }
    assert {best["job"] for best in record(folder)["best"]} == front
    assert f"none is better in everything than these {len(front)}" in capsys.readouterr().out


@pytest.mark.slow
def test_what_was_tried_is_not_trained_again(tmp_path: Path) -> None:
    """Twelve draws of two values, of which Optuna is told twelve."""
    folder = tmp_path / "sweep"
    assert (
        search(
            "latent_dim=2,3",
            "optimizer.lr=1e-3,1e-3",
            "hydra.sweeper.n_trials=12",
            "hydra/sweeper/sampler=random",
            f"hydra.sweep.dir={folder}",
        )
        == 0
    )
    assert len(list(folder.glob("*/config.yaml"))) == 2
    counts = record(folder)["trials"]
    assert counts["trained"] == 2
    assert counts["repeated"] == counts["all"] - 2
    values = sqlite3.connect(folder / "study.db").execute("select value from trial_values").fetchall()
    assert len(values) == counts["all"]
    assert {value for (value,) in values} == {value for _, value in reached(folder)}


@pytest.mark.slow
def test_a_hopeless_trial_is_pruned_and_counts_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One learning rate in three learns nothing."""
    folder = tmp_path / "sweep"
    epochs = ["trainer.max_epochs=3", "trainer.max_steps=-1", "trainer.limit_train_batches=10"]
    pruner = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2"]
    axis = ["optimizer.lr=1e-2,1e-7,5e-3", *RANDOM, "hydra.sweeper.n_trials=9", f"hydra.sweep.dir={folder}"]
    assert search(*axis, "hydra.sweeper.seed=1", *epochs, *pruner) == 0
    jobs = SweepFolder.open(folder).jobs
    assert [job.parameters["optimizer.lr"] for job in jobs][2] == 1e-7
    assert [job.state for job in jobs] == ["done", "done", "pruned"]
    assert jobs[2].run.best_checkpoint().is_file()
    assert record(folder)["trials"]["pruned"] == 1
    assert "pruned" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["resume", str(folder)])
    assert end.value.code == 0
    assert [job.state for job in SweepFolder.open(folder).jobs] == ["done", "done", "pruned"]


@pytest.mark.slow
def test_a_search_goes_on_to_more_trials(tmp_path: Path) -> None:
    folder, at_once = tmp_path / "sweep", tmp_path / "at_once"
    assert search(*SPACE, "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={folder}") == 0
    with pytest.raises(SystemExit) as end:
        main(["resume", str(folder), "hydra.sweeper.n_trials=4"])
    assert end.value.code == 0
    assert search(*SPACE, "hydra.sweeper.n_trials=4", f"hydra.sweep.dir={at_once}") == 0
    assert reached(folder) == reached(at_once)


@pytest.mark.slow
def test_a_failed_trial_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    axis = ["optimizer.lr=1e30,1e-3", *RANDOM, "hydra.sweeper.n_trials=6", f"hydra.sweep.dir={folder}"]
    assert search(*axis, "trainer.max_steps=10", "trainer.limit_train_batches=10") == 1
    jobs = {job.parameters["optimizer.lr"]: job for job in SweepFolder.open(folder).jobs}
    assert {rate: job.state for rate, job in jobs.items()} == {1e30: "failed", 1e-3: "done"}
    assert record(folder)["best"][0]["job"] == jobs[1e-3].number
    assert "(lr=1e+30) failed" in capsys.readouterr().err


@pytest.mark.slow
def test_parameters_that_do_not_go_together_fail_as_a_trial(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each end is sound, beside the first values of the others; one combination is not. No job has failed: exit 0."""
    folder = tmp_path / "sweep"
    axes = ["callbacks=default,early_stopping", "data.validation=200,0", *RANDOM, "hydra.sweeper.n_trials=40"]
    assert search(*axes, "hydra.sweeper.metric=test/loss", f"hydra.sweep.dir={folder}") == 0
    trials = record(folder)["trials"]
    assert (trials["trained"], trials["failed"]) == (3, 1)
    assert len(SweepFolder.open(folder).jobs) == 3
    assert "(callbacks=early_stopping, validation=0) cannot be run" in capfd.readouterr().err


def test_a_choice_that_goes_with_none_of_the_first_values_is_said_before_the_first_job(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    axes = ["objective=elbo,reconstruction", "posterior=gaussian,deterministic"]
    assert search(*axes, f"hydra.sweep.dir={folder}") == 2
    assert not folder.exists()


FULL = ["+callbacks.moments.action='full disk'"]
MOMENTS = ["--trust=moments", "+callbacks.moments._target_=moments.at"]


@pytest.mark.slow
def test_a_search_killed_in_every_trial_is_the_undisturbed_one(tmp_path: Path) -> None:
    folder, undisturbed = tmp_path / "sweep", tmp_path / "undisturbed"
    command = ["train", "-m", *QUICK, *SPACE, "hydra.sweeper.n_trials=2", *MOMENTS]
    assert run(*command, "+callbacks.moments.moments=[]", f"hydra.sweep.dir={undisturbed}") == 0
    assert run(*command, "+callbacks.moments.moments=[val0,test]", f"hydra.sweep.dir={folder}") == 0
    assert len(list(folder.glob("*/was_at_*"))) == 4
    assert reached(folder) == reached(undisturbed)
    assert record(folder)["trials"] == record(undisturbed)["trials"]


@pytest.mark.slow
def test_a_search_killed_before_any_of_its_writes_is_the_undisturbed_one(tmp_path: Path) -> None:
    """Each time later than before; each command does what is left to do."""
    folder, undisturbed = tmp_path / "sweep", tmp_path / "undisturbed"
    arguments = ["train", "-m", *QUICK, *SPACE, "hydra.sweeper.n_trials=2", "logger=[]", "callbacks.pictures=null"]
    assert run(*arguments, f"hydra.sweep.dir={undisturbed}") == 0
    code, at, kills = -9, 5, 0
    while code == -9:
        resume = ["resume", folder] if folder.exists() else [*arguments, f"hydra.sweep.dir={folder}"]
        code = run(*resume, first=partial(kill_before_write, at))
        at, kills = at + 11, kills + (code == -9)
    assert code == 0
    assert kills > 2
    assert reached(folder) == reached(undisturbed)
    assert record(folder)["trials"] == record(undisturbed)["trials"]


@pytest.mark.slow
def test_a_full_disk_stops_a_search_which_with_room_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    wide = [*SPACE, "encoder.hidden=[512]", "hydra.sweeper.n_trials=2", *MOMENTS, *FULL]
    command = ["train", "-m", *QUICK, *wide]
    undisturbed, starved, output = tmp_path / "undisturbed", tmp_path / "starved", tmp_path / "output"
    never = "+callbacks.moments.moments=[]"
    assert run(*command, never, f"hydra.sweep.dir={undisturbed}", output=output) == 0, output.read_text()
    full = "+callbacks.moments.moments=[start1]"
    assert run(*command, full, f"hydra.sweep.dir={starved}", output=output) == 1
    assert "make room" in output.read_text()
    assert "Traceback" not in output.read_text()
    assert [job.state for job in SweepFolder.open(starved).jobs] == ["interrupted"]
    for _ in range(2):  # each of the two runs once
        code = run("resume", starved, "--trust=moments", output=output)
    assert code == 0, output.read_text()
    assert reached(starved) == reached(undisturbed)
    for one, other in zip(*(SweepFolder.open(path).jobs for path in (undisturbed, starved)), strict=True):
        assert differences(one.run.path, other.run.path) == []


def test_a_search_in_use_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SweepFolder.open(finished).locked(), pytest.raises(SystemExit) as end:
        main(["resume", str(finished)])
    assert end.value.code == 2
    assert "is in use" in capsys.readouterr().err


@pytest.mark.slow
def test_several_trials_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra/sweeper/pruner=median"]
    assert run("train", "-m", *QUICK, *SPACE, *parallel, "hydra.sweeper.n_trials=5", f"hydra.sweep.dir={folder}") == 0
    assert [job.state for job in SweepFolder.open(folder).jobs] == ["done"] * 5
    assert record(folder)["trials"] == {"all": 5, "trained": 5, "pruned": 0, "failed": 0, "repeated": 0}


def refused(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert search(*overrides) == 2
    errors = capsys.readouterr().err
    assert all(line.startswith("error: ") for line in errors.splitlines())
    return errors


MISTAKES = {
    "hydra.sweeper.metric=val/los": ["no job reports it", "did you mean val/loss?"],
    "hydra.sweeper.metric=loss": ["hydra.sweeper.metric=loss", "should match pattern"],
    "hydra.sweeper.n_trials=0": ["hydra.sweeper.n_trials=0", "greater than 0"],
    "hydra.sweeper.n_trails=3": ["n_trails", "did you mean n_trials?"],
    "hydra.sweeper.direction=down": ["hydra.sweeper.direction=down", "minimize"],
    "hydra.sweeper.direction=[minimize,maximize]": ["1 metrics, and 2 directions"],
    "data.validation=0": ["data.validation=0"],
    "trainer.limit_val_batches=0": ["trainer.limit_val_batches=0"],
    "hydra/sweeper/sampler=grid": ["hydra/sweeper/sampler=grid", "there are"],
    "hydra.sweeper.zip=[latent_dim]": ["zip"],
    "hydra/sweeper/sampler=tp": ["did you mean tpe?"],
    "latent_dim=int(interval(-3,8))": ["latent_dim=-3"],
    "latent_dim=interval(2,8)": ["latent_dim=2.0", "integer"],
    "optimizer.lr=interval(2,1)": ["interval(1,2)"],
    "optimizer.lr=tag(log,interval(0,1))": ["above 0"],
    "seed=1,2": ["luckiest"],
    "latnt_dim=range(2,8)": ["did you mean latent_dim?"],
    "hydra.sweep.subdir=same": ["one folder"],
    "hydra.sweeper.metric=[val/kl,val/loss] hydra/sweeper/pruner=median": ["pruned by one metric"],
    "hydra.sweeper.storage=nonsense hydra.sweeper.study_name=x": ["not the URL of a database"],
    "hydra.sweeper.storage=oracle://host/x hydra.sweeper.study_name=x": ["sqlite, postgresql, mysql"],
    "hydra.sweeper.storage=mysql://host/x hydra.sweeper.study_name=x": ["driver is not installed", "MySQLdb"],
    "hydra.sweeper.storage=postgresql://a:b@host/x hydra.sweeper.study_name=x": ["~/.pgpass", "a:***@host"],
    "hydra.sweeper.storage=postgresql://127.0.0.1:1/x hydra.sweeper.study_name=x": ["127.0.0.1:1", "refused"],
    "hydra.sweeper.storage=sqlite:////nowhere/x.db hydra.sweeper.study_name=x": ["unable to open"],
    "hydra.sweeper.storage=sqlite:///x.db": ["study_name"],
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_a_mistake_is_found_before_the_first_job_and_writes_nothing(
    overrides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    errors = refused(capsys, *SPACE, *overrides.split())
    assert all(words in errors for words in MISTAKES[overrides]), errors
    assert not list(tmp_path.iterdir())


def test_choices_only_are_not_for_cma_es(capsys: pytest.CaptureFixture[str]) -> None:
    assert "choices only" in refused(capsys, "optimizer=adam,sgd", "hydra/sweeper/sampler=cmaes")


def test_nothing_to_search_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing to search" in refused(capsys, "latent_dim=3")


def test_without_the_extra_it_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from vaelab.config import parts

    monkeypatch.setattr(parts, "find_spec", lambda package: None)
    assert 'pip install "vaelab[optuna]"' in refused(capsys, *SPACE)


def test_an_interval_without_a_search_says_what_searches_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "-m", "data=digits", *SPACE])
    assert end.value.code == 2
    assert "hydra/sweeper=optuna searches an interval" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    assert search(*SPACE, "hydra.sweeper.n_trials=1", f"hydra.sweep.dir={folder}") == 0
    return folder


def test_a_folder_that_is_a_search_is_left_to_resume(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`vaelab resume {finished}` continues it" in refused(capsys, *SPACE, f"++hydra.sweep.dir={finished}")


@pytest.fixture
def foreign(finished: Path, tmp_path: Path) -> Path:
    """Somebody else's search of which one trial is left to do."""
    return shutil.copytree(finished, tmp_path / "foreign")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("name=${oc.env:HOME}", "where that is meant, type that override"),
        ("+x._target_=os.system", "there is no x|the config has no x"),
        ("hydra.callbacks.x=1", "a folder has no say in it"),
    ],
)
def test_a_foreign_search_is_composed_of_values_and_choices_only(
    extra: str, words: str, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_json(foreign / "sweep.json", lambda record: record["overrides"].append(extra))
    with pytest.raises(SystemExit) as end:
        main(["resume", str(foreign), "hydra.sweeper.n_trials=2"])
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert any(word in errors for word in words.split("|")), errors
    assert len(SweepFolder.open(foreign).jobs) == 1


def test_what_a_folder_may_not_say_is_admitted_where_it_is_typed_again(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAELAB_TEST_NAME", "mine")
    name = r"name=$\{oc.env:VAELAB_TEST_NAME\}"
    connection = sqlite3.connect(foreign / "study.db")
    text = json.dumps(json.loads(connection.execute("select value_json from study_user_attributes").fetchone()[0]))
    changed = json.loads(text)
    changed["overrides"].append(name)
    connection.execute("update study_user_attributes set value_json=?", [json.dumps(changed)])
    connection.commit()
    edit_json(foreign / "sweep.json", lambda record: record["overrides"].append(name))
    with pytest.raises(SystemExit) as end:
        main(["resume", str(foreign), "hydra.sweeper.n_trials=2", name])
    assert end.value.code == 0
    assert SweepFolder.open(foreign).jobs[-1].run.config.name == "mine"


def test_a_damaged_study_is_said(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (foreign / "study.db").write_bytes(b"no database at all, " * 100)
    with pytest.raises(SystemExit) as end:
        main(["resume", str(foreign), "hydra.sweeper.n_trials=2"])
    assert end.value.code == 2
    assert "study.db: it cannot be used" in capsys.readouterr().err


def test_a_storage_without_a_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RunError, match=r"vaelab\[postgresql\]"):
        opened("postgresql+psycopg://host/x")


@pytest.mark.slow
def test_two_sweeps_share_a_study(tmp_path: Path) -> None:
    storage = [f"hydra.sweeper.storage=sqlite:///{tmp_path / 'shared.db'}", "hydra.sweeper.study_name=both"]
    axes = ["latent_dim=2,3", *RANDOM, *storage]
    one, other = tmp_path / "one", tmp_path / "other"
    assert search(*axes, "hydra.sweeper.n_trials=1", f"hydra.sweep.dir={one}") == 0
    assert search(*axes, "hydra.sweeper.n_trials=9", f"hydra.sweep.dir={other}") == 0
    tried = [job.parameters["latent_dim"] for folder in (one, other) for job in SweepFolder.open(folder).jobs]
    assert sorted(tried) == [2, 3]
    assert not (one / "study.db").exists()
    assert record(other)["best"][0]["values"]["val/loss"] == min(v for f in (one, other) for _, v in reached(f))


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of one's own, on this machine."""
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    programs = next((Path(path).parent for path in found if path), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    root = os.geteuid() == 0  # as which it does not run
    if root and (subprocess.run(["id", "postgres"], capture_output=True).returncode or not shutil.which("runuser")):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path(tempfile.mkdtemp())
    port = free_port()
    if root:
        shutil.chown(folder, "postgres")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    run_it = [*user, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(
        [*user, str(programs / "initdb"), "-D", str(folder / "data"), "-U", "vaelab", "-A", "trust"], **quiet
    )
    subprocess.run([*run_it, "-o", options, "-l", str(folder / "log"), "start"], **quiet)
    try:
        yield f"postgresql://vaelab@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*run_it, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_two_sweeps_at_once_share_a_study_in_postgresql(postgresql: str, tmp_path: Path) -> None:
    """As two machines would."""
    shared = [f"hydra.sweeper.storage={postgresql}", "hydra.sweeper.study_name=both", "hydra.sweeper.n_trials=3"]
    command = ["train", "-m", *QUICK, *SPACE, *shared, "hydra/sweeper/pruner=median"]
    one, other, output = tmp_path / "one", tmp_path / "other", tmp_path / "output"
    outputs = [tmp_path / "output_of_one", tmp_path / "output_of_other"]
    processes = [
        start(*command, f"hydra.sweep.dir={folder}", output=output)
        for folder, output in zip((one, other), outputs, strict=True)
    ]
    codes = [finish(process) for process in processes]
    assert codes == [0, 0], [output.read_text() for output in outputs]
    trials = sorted(job.trial for folder in (one, other) for job in SweepFolder.open(folder).jobs)  # type: ignore[type-var]
    assert trials == list(range(6))
    best = [record(folder)["best"][0]["values"]["val/loss"] for folder in (one, other)]
    assert min(best) == min(value for folder in (one, other) for _, value in reached(folder))
    assert run(*command, "latent_dim=range(2,5)", f"hydra.sweep.dir={tmp_path / 'third'}", output=output) == 2
    assert "is of another search" in output.read_text()
    assert run("resume", one, output=output) == 2
    assert "say where it is kept" in output.read_text()
    more = ["hydra.sweeper.n_trials=4", f"hydra.sweeper.storage={postgresql}"]
    assert run("resume", one, *more, output=output) == 0, output.read_text()
    assert SweepFolder.open(one).jobs[-1].trial == 6


@pytest.mark.slow
def test_a_search_by_a_metric_of_the_config_minimizes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    generation = ["metrics=generation", "metrics.generation.features=pixels", "metrics.generation.images=120"]
    chosen = ["hydra.sweeper.metric=generation/kid", "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={folder}"]
    assert search("latent_dim=range(2,9)", *generation, *chosen) == 0
    values = [job.metrics["generation/kid"] for job in SweepFolder.open(folder).jobs]
    assert len(values) == 2
    (best,) = record(folder)["best"]
    assert best["values"] == {"generation/kid": min(values)}

    assert search("latent_dim=range(2,9)", *chosen[:2], f"hydra.sweep.dir={tmp_path / 'other'}") == 2
    assert "hydra.sweeper.metric=generation/kid: no job reports it" in " ".join(capsys.readouterr().err.split())
