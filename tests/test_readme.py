"""Every command and program that the README shows, run."""

import functools
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from processes import command, free_port
from vaelab.cli.main import main

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    if line.strip()
]
INLINE = re.findall(r"`(vaelab train [^`]*experiment=[^`]*)`", (PROJECT / "docs" / "start.md").read_text())
# What makes a command of the README quick, and leaves its words what they are.
SMALLER = {"mnist_5k": "digits", "seed=1,2,3": "seed=1,2", "0.5,1,4": "0.5,4", "n_trials=8": "n_trials=2"}
SHORT = ["trainer.max_epochs=1", *(f"trainer.limit_{part}_batches=1" for part in ("train", "val", "test"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data of one's own, which the README trains on."""
    own = tmp_path / "my_data"
    own.mkdir()
    np.save(own / "images.npy", np.random.default_rng(0).integers(0, 256, (1500, 28, 28), dtype=np.uint8))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in [*COMMANDS, *INLINE] if "vaelab train" in line])
def test_a_command_of_the_readme_runs(line: str, folder: Path, raw_sets: Path) -> None:
    smaller = functools.reduce(lambda text, pair: text.replace(*pair), SMALLER.items(), line)
    words = shlex.split(smaller.removeprefix("vaelab "))
    if not {"--help", "--show"} & set(words):
        words += SHORT
        if not any(word in line for word in ("mnist_5k", "quickstart", "data=array")):
            words += [f"data.root={raw_sets}", "data.validation=50"]
    result = command(*words, cwd=folder)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_what_the_readme_does_with_a_run_and_a_sweep_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = ["data=digits", "data.binarize=dynamic", "latent_dim=3", *SHORT, "callbacks.progress_bar=null"]
    ended("train", *small, "hydra.run.dir=RUN")
    ended("train", "-m", *small, "seed=1,2", "hydra.sweep.dir=SWEEP")
    commands = [shlex.split(line)[1:] for line in COMMANDS if {"RUN", "SWEEP"} & set(line.split())]
    assert len(commands) > 8

    for words in commands:
        short = {"5000": "5", "10000": "150", "max_epochs=60": "max_epochs=2"}
        ended(*(functools.reduce(lambda text, pair: text.replace(*pair), short.items(), word) for word in words))

    (metrics,) = (tmp_path / "RUN" / "evaluation").glob("*.json")
    assert "test/nll_5" in metrics.read_text()
    drawn = {path.stem for path in (tmp_path / "RUN" / "figures").iterdir()}
    assert {"reconstruct", "sample", "interpolate", "traverse", "embed"} < drawn


def ended(*words: str) -> None:
    """Run a command to its good end."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code, words


@pytest.mark.slow
def test_the_program_of_the_readme_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = (text for language, text in BLOCKS if language == "python")
    monkeypatch.chdir(folder)
    exec(program, {})
    assert "(prior): StandardNormal(latent_dim=8)" in capsys.readouterr().out


@pytest.mark.slow
def test_tensorboard_serves_what_a_run_has_logged(folder: Path) -> None:
    assert "tensorboard --logdir outputs" in COMMANDS
    assert command("train", "data=digits", *SHORT, cwd=folder).returncode == 0
    port = free_port()
    tensorboard = [sys.executable, "-m", "tensorboard.main", "--logdir", "outputs", "--port", str(port)]
    with subprocess.Popen([*tensorboard, "--load_fast=false"], cwd=folder, stderr=subprocess.DEVNULL) as server:
        try:
            tags = _eventually(f"http://127.0.0.1:{port}/data/plugin/scalars/tags", "train/loss")
            assert all(name in tags for name in ("train/kl", "val/elbo", "test/mse"))
            assert "samples" in _eventually(f"http://127.0.0.1:{port}/data/plugin/images/tags", "reconstructions")
        finally:
            server.terminate()


def test_the_set_up_scripts_of_the_readme_exist_and_ci_runs_the_tests() -> None:
    scripts = [shlex.split(command)[1] for command in COMMANDS if command.startswith("bash ")]
    assert scripts == ["scripts/quickstart.sh", "scripts/test.sh"]
    assert all((PROJECT / script).is_file() for script in scripts)
    assert "bash scripts/test.sh" in (PROJECT / ".ci" / "run").read_text()


def _eventually(address: str, word: str) -> str:
    """What a server answers once it has read so far as to say `word`."""
    answer = ""
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                answer = response.read().decode()
        except OSError:
            pass
        if word in answer:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"{address} never said {word}: {answer}")
