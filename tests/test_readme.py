"""Every command and program that the README shows, run."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"(?:In `([^`]+)`:\n\n)?```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for _, language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    if line.strip()
]
INLINE = re.findall(r"`(vaelab train [^`]*experiment=[^`]*)`", README)
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README has a reader write."""
    for name, _, text in BLOCKS:
        if name:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in [*COMMANDS, *INLINE] if "vaelab train" in line])
def test_a_command_of_the_readme_runs(command: str, folder: Path, raw_sets: Path) -> None:
    settings, _, arguments = command.rpartition("vaelab ")
    words = shlex.split(arguments)
    if not {"--help", "--show"} & set(words):
        words += SHORT
        if "mnist_5k" not in command and "quickstart" not in command:
            words += [f"data.root={raw_sets}", "data.validation=50"]
    environment = os.environ | dict(word.split("=", 1) for word in shlex.split(settings))
    result = subprocess.run(
        [sys.executable, "-m", "vaelab", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_program_of_the_readme_runs(folder: Path) -> None:
    (program,) = (text for name, language, text in BLOCKS if language == "python" and not name)
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "(prior): StandardNormal(latent_dim=8)" in result.stdout


@pytest.mark.slow
def test_tensorboard_serves_what_a_run_has_logged(folder: Path) -> None:
    assert "tensorboard --logdir outputs" in COMMANDS
    train = [sys.executable, "-m", "vaelab", "train", "data=digits", *SHORT]
    subprocess.run(train, cwd=folder, check=True, capture_output=True, timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
    for _ in range(120):
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                answer = response.read().decode()
        except OSError:
            pass
        if word in answer:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"{address} never said {word}: {answer}")
