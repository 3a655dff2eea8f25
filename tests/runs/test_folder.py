from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from vaelab.errors import RunError
from vaelab.runs.folder import RunFolder


def test_a_locked_folder_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked(), pytest.raises(RunError, match="in use"), RunFolder(tmp_path).locked():
        pass
    with RunFolder(tmp_path).locked():
        pass


def test_a_lock_leaves_nothing_but_the_log(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


def test_fragments_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    kept = [tmp_path / ".notes.md.bak", tmp_path / "status.json", folder.checkpoints / "last.ckpt"]
    for path in [*kept, tmp_path / ".status.json.123", folder.checkpoints / ".last.ckpt.123"]:
        path.touch()
    folder.remove_fragments()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_an_error_that_is_past_leaves_the_status(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update_status("failed", error="something", traceback="somewhere")
    folder.update_status("running")
    status = folder.read_json("status")
    assert {"failed_at", "running_at"} < set(status)
    assert not {"error", "traceback"} & set(status)


def test_a_damaged_status_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(RunError, match=r"status\.json"):
        _ = RunFolder(tmp_path).done


def test_claiming_a_taken_folder_takes_one_beside_it_or_refuses(tmp_path: Path) -> None:
    first = RunFolder.claim(tmp_path / "run")
    (first.path / "config.yaml").touch()
    assert RunFolder.claim(tmp_path / "run").path == tmp_path / "run-2"
    with pytest.raises(RunError, match="never overwrites"):
        RunFolder.claim(tmp_path / "run", exact=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("root: ${oc.env:HOME}", "holds an interpolation"),
        ("- a\n- b", "is not a config"),
        ("a: [1,", "cannot be read"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_config_that_no_run_has_written_is_refused(config: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(RunError, match=words):
        _ = RunFolder.open(tmp_path).config


def test_runs_of_one_instant_get_a_folder_each(tmp_path: Path) -> None:
    instant = Barrier(8)

    def claim(_: int) -> Path:
        instant.wait()
        return RunFolder.claim(tmp_path / "deep" / "run").path

    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(claim, range(8)))
    assert {path.name for path in claimed} == {"run", *(f"run-{number}" for number in range(2, 9))}


def test_a_folder_that_is_taken_gets_a_neighbour(tmp_path: Path) -> None:
    names = [RunFolder.claim(tmp_path / "run").path.name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]  # also where the first has not written anything yet
    assert RunFolder.claim(tmp_path / "run", exact=True).path == tmp_path / "run"  # made by Hydra, say
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(RunError, match="never overwrites"):
        RunFolder.claim(tmp_path / "run", exact=True)
