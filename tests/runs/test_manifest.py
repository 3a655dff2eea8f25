import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vaelab.config.check import check
from vaelab.config.compose import compose
from vaelab.data import Memory, ScikitDigits
from vaelab.runs.documents import Git, Manifest
from vaelab.runs.manifest import circumstances, manifest


def test_the_number_of_threads_and_the_versions_are_recorded() -> None:
    recorded = manifest(ScikitDigits(), seed=3)
    assert recorded.seed == 3
    assert recorded.hardware["threads"] == torch.get_num_threads()
    assert recorded.packages["torch"] == torch.__version__.split("+")[0]


@pytest.mark.parametrize(
    ("overrides", "typed", "words"),
    [
        (["model=ae", "name='two words'"], ["train", "more"], ["model=ae", "name='two words'"]),
        (["seed=1", "hydra.run.dir=x", "hydra/launcher=ray", "sweep=seeds"], ["train", "-m"], ["seed=1"]),
        (["seed=1", "++hydra.sweep.dir=x", "~callbacks.pictures"], ["train"], ["seed=1", "~callbacks.pictures"]),
        ([], ["train"], []),
        ([], [], None),  # from Python: the overrides are not known
        (["seed=1"], ["train", "--config-dir", "mine", "seed=1"], None),
        (["seed=1", "hydra.searchpath=[mine]"], ["train"], None),
    ],
)
def test_the_command_that_repeats_a_run_has_what_is_its_own(
    overrides: list[str], typed: list[str], words: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["vaelab", *typed])
    found = manifest(ScikitDigits(), seed=0, overrides=overrides)
    assert found.repeat == ([] if words is None else ["vaelab", "train", *words])


def test_the_checksum_of_a_split_sees_one_pixel() -> None:
    one, other = ScikitDigits(validation=100), ScikitDigits(validation=100)
    test = other.splits.test
    assert test.index is not None
    assert isinstance(test.store, Memory)
    test.store.values[test.index[3], 0, 2, 2] ^= 1
    before, after = (manifest(data, seed=0).data for data in (one, other))
    assert {split for split in before if before[split] != after[split]} == {"test"}


def test_commit_and_uncommitted_changes_are_those_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert manifest(ScikitDigits(), seed=0).git is None
    git("init")
    Path("program.py").write_text("1")
    git("add", "program.py")
    git("commit", "-m", "begin")
    assert manifest(ScikitDigits(), seed=0).git == Git(git("rev-parse", "HEAD"), "")
    Path("program.py").write_text("2")
    assert manifest(ScikitDigits(), seed=0).git.diff == git("diff", "HEAD") != ""


def test_deterministic_kernels_are_the_default() -> None:
    config = compose(["data=digits", "trainer=cpu", "~callbacks.progress_bar"])
    assert config.trainer.deterministic is True
    before = torch.are_deterministic_algorithms_enabled()
    try:
        check(config).trainer([], [])
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def test_circumstances_are_what_two_manifests_say_and_is_not_the_same() -> None:
    then = Manifest(
        packages={"torch": "2.13", "numpy": "2.1"},
        data={"train": "a", "test": "b"},
        hardware={"threads": 1, "gpus": []},
        git=Git("0123456789abcdef", ""),
    )
    now = Manifest(
        packages={"torch": "2.14", "numpy": "2.1"},
        data={"train": "a", "test": "c"},
        hardware={"threads": 2, "gpus": []},
        git=Git("fedcba9876543210", "+"),
    )
    assert circumstances(then, then) == {}
    assert circumstances(then, now) == {
        "packages": ["torch 2.13 -> 2.14"],
        "data": ["test b -> c"],
        "hardware": ["threads 1 -> 2"],
        "code": ["commit 0123456789ab -> fedcba987654", "uncommitted changes"],
    }
    assert "code" not in circumstances(then, replace(now, git=None))
