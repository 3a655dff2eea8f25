import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from vaelab.config.compose import compose
from vaelab.data.bundled import ScikitDigits
from vaelab.errors import RunError, StorageError
from vaelab.runs.folder import RunFolder, portable
from vaelab.runs.manifest import manifest

CONFIG = compose(["data=digits"])


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
    assert folder.status.error == "something"
    folder.update_status("running")
    assert set(folder.status.at) == {"failed", "running"}
    assert (folder.status.error, folder.status.traceback) == ("", "")


def test_a_damaged_status_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(RunError, match=r"status\.json"):
        _ = RunFolder(tmp_path).done


def claim(path: Path, *, exact: bool = False) -> RunFolder:
    with RunFolder.claim(path, CONFIG, exact=exact) as claimed:
        return claimed


def test_claiming_a_taken_folder_takes_one_beside_it_or_refuses(tmp_path: Path) -> None:
    assert [claim(tmp_path / "run").path.name for _ in range(3)] == ["run", "run-2", "run-3"]
    with pytest.raises(RunError, match="never overwrites"):
        claim(tmp_path / "run", exact=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2", "run-3"]


def test_a_claimed_folder_is_there_with_its_config_and_locked(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run", CONFIG) as folder:
        assert RunFolder.open(tmp_path / "run").config == portable(CONFIG)
        with pytest.raises(RunError, match="in use"), RunFolder(tmp_path / "run").locked():
            pass
        folder.update_status("running")
    assert RunFolder(tmp_path / "run").status.state == "running"


def test_an_empty_folder_is_filled_as_also_one_in_which_a_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "train.log").touch()
    (empty / ".config.yaml.123").write_text("half of")
    number = empty.stat().st_ino
    monkeypatch.chdir(empty)
    assert claim(Path(), exact=True).config == portable(CONFIG)
    assert empty.stat().st_ino == number
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine").touch()
    with pytest.raises(RunError, match="never overwrites"):
        claim(tmp_path / "notes", exact=True)


def test_a_folder_that_was_renamed_or_replaced_is_not_written_to(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run", CONFIG) as folder:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        for make_another in (False, True):
            if make_another:
                (tmp_path / "run").mkdir()
            with pytest.raises(StorageError, match="removed or renamed"):
                folder.update_status("running")
        assert not list((tmp_path / "run").iterdir())


def test_a_bit_that_flips_is_found_or_changes_nothing(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run", CONFIG, manifest(ScikitDigits(), seed=3, overrides=["seed=3"])) as folder:
        folder.update_status("failed", error="something", traceback="somewhere")
    readers = {"config.yaml": "config", "status.json": "status", "manifest.json": "manifest"}
    draw = random.Random(0)
    found = 0
    for name, attribute in readers.items():
        path = tmp_path / "run" / name
        whole, meant = path.read_bytes(), repr(getattr(folder, attribute))
        for place in draw.sample(range(len(whole)), 60):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            try:
                same = repr(getattr(folder, attribute)) == meant
            except RunError as error:
                same = name in str(error)
                found += 1
            assert same, bytes(damaged)
        path.write_bytes(whole)
    assert found > 100


@pytest.mark.parametrize("name", ["config.yaml", "status.json"])
def test_an_edit_is_meant_where_the_checksum_is_removed(name: str, tmp_path: Path) -> None:
    folder = claim(tmp_path / "run")
    folder.update_status("failed")
    path = folder.path / name
    edited = path.read_text().replace("failed", "interrupted").replace("latent_dim: 20", "latent_dim: 21")
    path.write_text(edited)
    with pytest.raises(RunError, match="was edited or is damaged"):
        _ = folder.config, folder.status
    path.write_text(re.sub(r',\n *"checksum".*|\n# checksum.*', "", edited))
    assert (folder.config.latent_dim, folder.status.state) in ((21, "failed"), (20, "interrupted"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("root: ${oc.env:HOME}", "has an interpolation"),
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

    def at_once(_: int) -> Path:
        instant.wait()
        return claim(tmp_path / "deep" / "run").path

    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(at_once, range(8)))
    assert {path.name for path in claimed} == {"run", *(f"run-{number}" for number in range(2, 9))}
