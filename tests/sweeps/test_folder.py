import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig

import vaelab
from vaelab.errors import RunError
from vaelab.runs import documents
from vaelab.runs.folder import RunFolder
from vaelab.sweeps.folder import Entry, Job, Record, SweepFolder
from vaelab.sweeps.sweep import run


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return vaelab.compose(["data=digits"])


def record(*folders: str) -> Record:
    jobs = [Entry(number, folder, {"seed": number}, [f"seed={number}"]) for number, folder in enumerate(folders)]
    return Record("vae", ["vaelab"], ["seed=0,1"], {"seed": [0, 1]}, {"name": "basic"}, jobs)


def test_a_sweep_appears_as_a_whole_with_a_config_for_each_job(config: DictConfig, tmp_path: Path) -> None:
    SweepFolder.create(tmp_path / "a" / "sweep", record("0", "1/x"), [config, config], exact=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["sweep"]
    folder = SweepFolder.open(tmp_path / "a" / "sweep")
    assert folder.record == record("0", "1/x")
    assert [job.run.config for job in folder.jobs] == [config, config]
    assert [(job.number, job.state, job.metrics, job.label) for job in folder.jobs] == [
        (0, "waiting", {}, "seed=0"),
        (1, "waiting", {}, "seed=1"),
    ]


def test_a_folder_that_is_taken_is_left_alone(config: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "notes").touch()
    assert SweepFolder.create(tmp_path / "sweep", record("0"), [config], exact=False).path == tmp_path / "sweep-2"
    with pytest.raises(RunError, match="is there already"):
        SweepFolder.create(tmp_path / "sweep", record("0"), [config], exact=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "sweep-2"]
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["notes"]


@pytest.mark.skipif(os.name != "posix" or (os.geteuid() == 0 and not Path("/proc").exists()), reason="needs /proc")
def test_a_folder_that_cannot_be_made_is_said(config: DictConfig) -> None:
    with pytest.raises(RunError, match="cannot be made"):
        SweepFolder.create("/proc/sweep", record("0"), [config], exact=True)


def test_a_states_truth_is_the_jobs_own_folder(config: DictConfig, tmp_path: Path) -> None:
    folder = SweepFolder.create(tmp_path / "sweep", record("0", "1"), [config, config], exact=True)
    folder.jobs[1].run.update_status("failed", error="ValueError: no")
    assert [(job.state, job.error) for job in folder.jobs] == [("waiting", ""), ("failed", "ValueError: no")]


def test_a_job_can_come_later(config: DictConfig, tmp_path: Path) -> None:
    folder = SweepFolder.create(tmp_path / "sweep", record(), [], exact=True)
    job = folder.add(config, {"seed": 5}, ["seed=5"], "0_seed=5")
    assert SweepFolder.open(folder.path).jobs == [job]
    assert RunFolder.open(folder.path / "0_seed=5").config == config


def test_a_sweep_in_use_is_refused(config: DictConfig, tmp_path: Path) -> None:
    folder = SweepFolder.create(tmp_path / "sweep", record("0"), [config], exact=True)
    with folder.locked(), pytest.raises(RunError, match="in use"), SweepFolder.open(folder.path).locked():
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ("\N{SNOWMAN}", "cannot be read"),
        (json.dumps({**vars(record()), "jobs": [vars(record("../other").jobs[0])]}), "is not in the sweep's"),
        (json.dumps({**vars(record()), "jobs": [vars(record("/etc").jobs[0])]}), "is not in the sweep's"),
        (json.dumps({**vars(record()), "jobs": [vars(record("link").jobs[0])]}), "is not in the sweep's"),
        (json.dumps({**vars(record()), "jobs": [vars(record(".").jobs[0])]}), "is not in the sweep's"),
    ],
)
def test_a_sweep_that_none_of_ours_has_written_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "sweep" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "sweep" / "sweep.json").write_text(text)
    with pytest.raises(RunError, match=words):
        SweepFolder.open(tmp_path / "sweep")


def test_what_is_no_sweep_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a sweep folder"):
        SweepFolder.open(tmp_path)


def test_a_sweep_of_a_thousand_jobs_reads_each_job_as_often_as_one_of_ten(
    config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are the documents that are opened while its jobs end, one after the other."""

    class Ends:
        remote = False

        def threads_per_job(self) -> int:
            return 1

        def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
            for job in jobs:
                job.run.update_status("done")
                yield job

    opened: list[Path] = []
    monkeypatch.setattr(documents, "read_text", lambda path: opened.append(path) or path.read_text())

    def reads(jobs: int) -> float:
        names = [str(number) for number in range(jobs)]
        folder = SweepFolder.create(tmp_path / f"sweep{jobs}", record(), [], exact=True)
        folder.record.jobs += record(*names).jobs
        for name in names:
            (folder.path / name).mkdir()
        opened.clear()
        written = (folder.path / "sweep.json").stat().st_mtime_ns
        run(folder, Ends(), folder.jobs)
        assert (folder.path / "sweep.json").stat().st_mtime_ns == written
        return len(opened) / jobs

    assert reads(1000) == reads(10) > 0
