"""Folders of sweeps and searches made to do harm: each is refused in words or harmless, and none stops the others."""

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edits import edit_json
from vaelab.cli.main import main
from vaelab.report.report import collect
from vaelab.sweeps.folder import SweepFolder

QUICK = ["data=digits", "trainer=debug", "encoder.hidden=[8]", "decoder.hidden=[8]", "logger=[]"]
QUICK += ["callbacks.pictures=null", "callbacks.progress_bar=null"]
SECRET = "a secret of the environment"
ENV = r"$\{oc.env:VAELAB_TEST_SECRET\}"
Harm = Callable[[Path], object]


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search and a grid of our own, done."""
    folder = tmp_path_factory.mktemp("honest")
    searched = ["hydra/sweeper=optuna", "latent_dim=range(2,9)", "hydra.sweeper.n_trials=2"]
    for name, overrides in {"search": searched, "grid": ["latent_dim=2,3"]}.items():
        with pytest.raises(SystemExit) as end:
            main(["train", "-m", *QUICK, *overrides, f"hydra.sweep.dir={folder / name}"])
        assert end.value.code == 0
    return folder


@pytest.fixture
def place(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of both, beside what is not to be read or changed."""
    shutil.copytree(honest, tmp_path / "here")
    (tmp_path / "here" / "elsewhere").mkdir()
    for name in ("log", "config.yaml", "study.db"):
        (tmp_path / "here" / "elsewhere" / name).write_text("not to be read or changed")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("VAELAB_TEST_SECRET", SECRET)
    return tmp_path / "here"


def resumed(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    """What resuming a sweep ends with and says, given that nothing beside it has changed and no secret is in it."""

    def outside() -> dict[str, bytes]:
        found = sorted(path for path in folder.parent.rglob("*") if folder not in path.parents)
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}

    before = outside()
    with pytest.raises(SystemExit) as end:
        main(["resume", str(folder), *overrides])
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert outside() == before
    assert SECRET not in said
    assert not any(SECRET in path.read_text() for path in folder.rglob("*.yaml") if path.is_file())
    assert "\x1b" not in said
    assert isinstance(end.value.code, int)
    return end.value.code, said


def record(**changes: Any) -> Harm:
    return lambda folder: edit_json(folder / "sweep.json", lambda content: content.update(changes))


def of_search(**changes: Any) -> Harm:
    return lambda folder: edit_json(folder / "sweep.json", lambda content: content["search"].update(changes))


def of_job(**changes: Any) -> Harm:
    return lambda folder: edit_json(folder / "sweep.json", lambda content: content["jobs"][1].update(changes))


def write(name: str, content: str | bytes) -> Harm:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def link(name: str, to: str) -> Harm:
    """A link in the sweep's folder to the folder `elsewhere` or what is, or would be, in it."""

    def harm(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(folder.parent / "elsewhere" / to)

    return harm


def instead(name: str, make: Callable[[Path], object]) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return harm


def sql(*statements: str) -> Harm:
    def harm(folder: Path) -> None:
        connection = sqlite3.connect(folder / "study.db")
        connection.executescript(";".join(statements))
        connection.close()

    return harm


STORAGE = f"hydra.sweeper.storage=postgresql://{ENV}@127.0.0.1:9/x"
NO_SAY, INTERPOLATED, SHARED = "a folder has no say in it", "it holds an interpolation", "say where it is kept"
OVERRIDES: dict[str, tuple[list[str], str]] = {
    "a database of its own": ([f"+{STORAGE}", "++hydra.sweeper.study_name=x"], SHARED),
    "a database, forced": ([f"++{STORAGE}", "++hydra.sweeper.study_name=x"], SHARED),
    "a database, plain": ([STORAGE, "hydra.sweeper.study_name=x"], SHARED),
    "a file anywhere": (
        ["++hydra.sweeper.storage=sqlite:///elsewhere/evil.db", "++hydra.sweeper.study_name=x"],
        SHARED,
    ),
    "a secret for a name": ([f"name={ENV}"], INTERPOLATED),
    "a secret for a name, forced": ([f"++name={ENV}"], INTERPOLATED),
    "a secret in quotes": (["name='${oc.env:VAELAB_TEST_SECRET}'"], INTERPOLATED),
    "a secret in a list": ([f"encoder.hidden=[{ENV}]"], INTERPOLATED),
    "a secret in a dict": ([f"+callbacks.x={{a:[{{b:{ENV}}}]}}"], INTERPOLATED),
    "a secret among choices": ([f"optimizer.lr=1e-3,{ENV}"], INTERPOLATED),
    "a secret among quoted choices": (["optimizer.lr=choice(1e-3,'${oc.env:VAELAB_TEST_SECRET}')"], INTERPOLATED),
    "a secret among what is searched besides": ([f"+hydra.sweeper.params={{name:{ENV}}}"], INTERPOLATED),
    "a resolver in a resolver": ([r"name=$\{oc.decode:$\{oc.env:VAELAB_TEST_SECRET\}\}"], INTERPOLATED),
    "a folder to search": (["hydra.searchpath=[elsewhere]"], NO_SAY),
    "a callback of Hydra's": (["+hydra.callbacks.x={_target_:os.system,command:x}"], NO_SAY),
    "Hydra's logging": (["hydra/job_logging=default"], NO_SAY),
    "variables of the environment": (["+hydra.job.env_set.PYTHONPATH=elsewhere"], NO_SAY),
    "a logger in Hydra's node": (["+logger@hydra.sweep=csv"], NO_SAY),
    "an option that is a path": (["model=../../elsewhere/config"], "there is no model"),
    "an option that is a path from the top": (["data=/etc/passwd"], "there is no data"),
    "an option of a list that is a path": (["logger=[csv,../elsewhere/config]"], "there is no logger"),
    "a sweeper of its own": (["+hydra.sweeper._target_=os.system"], NO_SAY),
    "a sampler of its own": (["++hydra.sweeper.sampler._target_=os.system"], "not a part that vaelab ships"),
    "a part of its own": (["++encoder._target_=os.system"], "not a part that vaelab ships"),
    "no override": (["\x1b[2J"], "not an override"),
    "a subfolder elsewhere": ([f"++hydra.sweep.subdir=../elsewhere/{ENV}"], ""),
    "a subfolder elsewhere, plain": (["hydra.sweep.subdir=../elsewhere"], ""),
    "another folder": (["++hydra.sweep.dir=elsewhere", "++hydra.run.dir=elsewhere"], ""),
    "another launcher": (["hydra/launcher=ray", "++hydra.launcher.address=ray://127.0.0.1:9"], ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERRIDES)
def test_the_overrides_of_a_foreign_search_say_nothing_but_what_to_search(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, words = OVERRIDES[name]
    edit_json(place / "search" / "sweep.json", lambda content: content["overrides"].extend(overrides))
    code, said = resumed(place / "search", capsys)
    assert code == (2 if words else 0), said
    assert words in said


@pytest.mark.slow
def test_a_job_that_a_foreign_search_proposes_is_made_in_its_folder(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = OVERRIDES["a subfolder elsewhere"][0]
    edit_json(place / "search" / "sweep.json", lambda content: content["overrides"].extend(overrides))
    assert resumed(place / "search", capsys, "hydra.sweeper.n_trials=6")[0] == 0
    assert len(SweepFolder.open(place / "search").jobs) > 2  # a trial that repeats another has none


UNREADABLE, OUTSIDE, LINK = "sweep.json cannot be read", "is not in the sweep's", "is a link or not a regular file"
FOLDERS: dict[str, tuple[Harm, str]] = {
    "no identity": (of_search(identity=None), UNREADABLE),
    "a search that is a number": (record(search=5), UNREADABLE),
    "no metric": (of_search(metrics=[]), UNREADABLE),
    "metrics that are a number": (of_search(metrics=5), UNREADABLE),
    "counts that are texts": (of_search(trials={"all": "x"}), UNREADABLE),
    "a best that is none": (of_search(best=5), UNREADABLE),
    "a best without values": (of_search(best=[{"trial": 0}]), UNREADABLE),
    "trials below none": (of_search(n_trials=-1), UNREADABLE),
    "more trials than can be counted": (of_search(n_trials=10**400), "a number of 401 digits"),
    "jobs that are a text": (record(jobs="x"), UNREADABLE),
    "overrides that are numbers": (record(overrides=[1]), UNREADABLE),
    "a key too many": (record(cheksum="x"), UNREADABLE),
    "a trial below none": (of_job(trial=-1), UNREADABLE),
    "parameters that are a list": (of_job(parameters=[]), UNREADABLE),
    "a folder with a NUL": (of_job(folder="a\0b"), "it has no config.yaml"),
    "a folder above": (of_job(folder="../elsewhere"), OUTSIDE),
    "a folder from the top": (of_job(folder="/tmp"), OUTSIDE),
    "the sweep's own folder": (of_job(folder="."), OUTSIDE),
    "a folder that is not there": (of_job(folder="x"), "it has no config.yaml"),
    "no JSON": (write("sweep.json", "{"), UNREADABLE),
    "bytes": (write("sweep.json", bytes(range(256))), UNREADABLE),
    "an endless nesting": (write("sweep.json", "[" * 100_000), UNREADABLE),
    "40 MB": (record(command=["x" * (40 << 20)]), "larger than 16 MB"),
    "another name by one bit": (
        lambda f: (f / "sweep.json").write_text((f / "sweep.json").read_text().replace('"vae"', '"vad"')),
        "was edited or is damaged",
    ),
    "a log elsewhere": (link("sweep.log", "log"), LINK),
    "a study elsewhere": (link("study.db", "study.db"), LINK),
    "a study to be made elsewhere": (link("study.db", "new.db"), LINK),
    "a stop elsewhere": (link(".stop", "log"), LINK),
    "a scratch folder elsewhere": (link(".submitit", ""), LINK),
    "a record elsewhere": (link("sweep.json", "log"), "it is a link"),
    "a folder of links": (link("other", ""), LINK),
    "a pipe for a study": (instead("study.db", os.mkfifo), LINK),
    "a pipe for a log": (instead("sweep.log", os.mkfifo), LINK),
    "a pipe for a record": (instead("sweep.json", os.mkfifo), "not a sweep folder|it has no config"),
    "a folder for a study": (instead("study.db", Path.mkdir), "is a folder"),
    "a folder for a log": (instead("sweep.log", Path.mkdir), "is a folder"),
    "a folder for a stop": (instead(".stop", Path.mkdir), "is a folder"),
    "a file for the scratch folder": (instead(".submitit", Path.touch), "is a file"),
    "a name with escapes": (instead("\x1b[2J", Path.touch), "control characters"),
    "an empty study": (write("study.db", ""), "is damaged"),
    "a study that is text": (write("study.db", "x" * 5000), "it cannot be used"),
    "no study": (lambda folder: (folder / "study.db").unlink(), "is damaged"),
    "distributions that are none": (sql("update trial_params set distribution_json='x'"), "is damaged"),
    "distributions of another kind": (
        sql('update trial_params set distribution_json=\'{"name":"X","attributes":{}}\''),
        "is damaged",
    ),
    "other ends of a range": (
        sql("update trial_params set distribution_json=replace(distribution_json,'8','9')"),
        "is damaged",
    ),
    "parameters that are texts": (sql("update trial_params set param_value='x'"), "is damaged"),
    "parameters out of range": (sql("update trial_params set param_value=1e300"), "is damaged"),
    "parameters that are not searched": (sql("update trial_params set param_name='name'"), "is damaged"),
    "values that are texts": (sql("update trial_values set value='x'"), "is damaged"),
    "no values": (sql("delete from trial_values"), "is damaged"),
    "states that there are not": (sql("update trials set state='X'"), "is damaged"),
    "trials that are missing": (sql("delete from trials"), "is damaged"),
    "notes that are no JSON": (sql("update study_user_attributes set value_json='x'"), "is damaged"),
    "notes on another search": (sql("update study_user_attributes set value_json='[1]'"), "is of another search"),
    "a trial that repeats itself": (
        sql("insert into trial_user_attributes values (99, 1, 'same_as', '0')"),
        "is damaged",
    ),
    "a folder of a trial with escapes": (
        sql("update trial_user_attributes set value_json='\"\\u001b[2J\"' where key='run'"),
        "is damaged",
    ),
    "a direction that there is not": (sql("update study_directions set direction='X'"), "is damaged"),
    "no tables": (sql("drop table trials"), "cannot be used|is damaged"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_of_a_search_is_refused(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = FOLDERS[name]
    harm(place / "search")
    code, said = resumed(place / "search", capsys)
    assert code == 2, said
    assert any(word in said for word in words.split("|")), said


JOBS: dict[str, Harm] = {
    "metrics of 400 digits": write("metrics.json", '{"test/elbo": ' + "9" * 400 + "}"),
    "metrics of 5000 digits": write("metrics.json", '{"test/elbo": ' + "9" * 5000 + "}"),
    "metrics that are texts": write("metrics.json", '{"test/elbo": "x"}'),
    "metrics that are true": write("metrics.json", '{"test/elbo": true}'),
    "metrics that are a list": write("metrics.json", "[]"),
    "a state that there is not": write("status.json", '{"state": "\\u001b[2J"}'),
    "a status that is a list": write("status.json", "[]"),
    "a status with more in it": write("status.json", '{"state": "done", "x": 1}'),
    "a huge status": write("status.json", " " * (17 << 20)),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_cannot_be_read_is_said_and_the_others_go_on(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    JOBS[name](place / "grid" / "0_latent_dim=2")
    code, said = resumed(place / "grid", capsys)
    assert code == 1
    assert "job 0 (latent_dim=2) is unreadable: " in said
    assert [job.state for job in SweepFolder.open(place / "grid").jobs] == ["unreadable", "done"]
    runs = collect([place / "grid"]).runs
    assert [run.state for run in runs] == ["unreadable", "done"]
    assert runs[0].error


TEXTS = [
    "\x1b]0;x\x07\x1b[2J",
    "[/b]",
    "[link=http://127.0.0.1:9]x[/link]",
    "[bold]x",
    ":x:",
    "a\nb",
    "\r\x9b2J",
    "x" * 9999,
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_text(text: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_job(parameters={"latent_dim": text, text: 1})(place / "grid")
    code, said = resumed(place / "grid", capsys)
    assert code == 0
    shown = " ".join(said.split()) if len(text) < 50 else ""
    plain = text if text.isprintable() and shown else "latent_dim"
    assert plain in shown or not shown
    assert not any(letter in said for letter in "\x1b\x07\r\x9b")


def test_a_foreign_sweep_appends_no_line_of_its_own_to_a_log(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_job(parameters={"latent_dim": "3\nimport os; os.system('touch x')\n#"})(place / "grid")
    (place / "grid" / "1_latent_dim=3" / "status.json").write_text('{"state": "interrupted"}')
    before = len((place / "grid" / "sweep.log").read_text().splitlines())
    assert resumed(place / "grid", capsys)[0] == 0
    assert len((place / "grid" / "sweep.log").read_text().splitlines()) == before + 1


def test_a_foreign_search_connects_to_nobody(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"postgresql://{ENV}@127.0.0.1:{server.getsockname()[1]}/x"
        more = [f"++hydra.sweeper.storage={url}", "++hydra.sweeper.study_name=x"]
        edit_json(place / "search" / "sweep.json", lambda content: content["overrides"].extend(more))
        assert resumed(place / "search", capsys)[0] == 2
        with pytest.raises(BlockingIOError):
            server.accept()


def test_one_hostile_run_does_not_break_a_report_and_time_is_linear(place: Path) -> None:
    config = place / "grid" / "0_latent_dim=2" / "config.yaml"
    text = config.read_text().split("# checksum")[0]
    (place / "grid" / "1_latent_dim=3" / "config.yaml").write_text(text.replace("seed: 0", f"seed: {'9' * 400}"))
    config.write_text(text + "".join(f"x{number}: {number}\n" for number in range(20_000)))
    report = collect([place / "grid"])
    assert [run.state for run in report.runs] == ["done", "unreadable"]
    assert len(report.runs[0].hyperparameters) > 20_000
    assert report.parameters == ["latent_dim"]
    assert json.dumps([run.error for run in report.runs])


def test_the_corpus_is_no_smaller_than_it_was_meant_to_be() -> None:
    assert len(OVERRIDES) + len(FOLDERS) + len(JOBS) + len(TEXTS) >= 100
