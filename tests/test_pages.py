"""Pages of docs/ say what there is, and their programs and commands run."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import vaelab
from vaelab.cli.main import main
from vaelab.config.check import check
from vaelab.config.conf import options

DOCS = Path(__file__).parents[1] / "docs"
SMALL = ["data=digits", "trainer=debug", "~callbacks.progress_bar"]


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(file named above it, language, text) of each block of code."""
    return re.findall(r"(?:In `([^`]+)`[^`]*:\n\n)?```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_every_preset_and_every_loss_is_on_the_page_of_models() -> None:
    named = set(re.findall(r"`(\w+)`", (DOCS / "models.md").read_text()))

    assert set(options("model")) | set(options("loss")) <= named


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]:
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
        assert not missing, f"{page.name}: {missing}"


@pytest.mark.parametrize("page", ["terms.md", "models.md"])
def test_the_commands_of_a_page_are_valid(page: str) -> None:
    commands = [line for _, language, text in blocks(page) if language == "bash" for line in text.splitlines()]
    assert commands
    for line in commands:
        check(vaelab.compose(["data=digits", *shlex.split(line)[2:]]))


@pytest.mark.slow
def test_parts_from_another_package_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, _, text in blocks("own_part.md"):
        if name:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((path.read_text() if path.exists() else "") + text)
    commands = [line for _, language, text in blocks("own_part.md") if language == "bash" for line in text.splitlines()]
    assert len(commands) == 4
    for number, line in enumerate(commands):
        words = shlex.split(line.removeprefix("PYTHONPATH=. "))

        with pytest.raises(SystemExit) as end:
            main([*words[1:], *SMALL, f"hydra.run.dir=run{number}"])

        assert not end.value.code, line
        assert (tmp_path / f"run{number}" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["parts.md", "start.md"])
def test_the_program_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [text for _, language, text in blocks(page) if language == "python"]
    monkeypatch.chdir(tmp_path)

    names: dict[str, object] = {}
    exec(program.replace('"data=mnist_5k"', '"data=mnist_5k", "trainer.max_epochs=1"'), names)

    assert isinstance(names["run"], vaelab.Run)


def test_the_program_about_labels_runs(tmp_path: Path) -> None:
    (program,) = [text for name, language, text in blocks("models.md") if language == "python" and not name]
    config = vaelab.compose(["model=conditional_vae", *SMALL])
    names = {
        "run": vaelab.train(config, folder=tmp_path / "run"),
        "images": torch.rand(5, 1, 8, 8),
        "labels": torch.arange(5),
        "other_labels": torch.arange(5) + 1,
    }

    exec(program, names | {"vaelab": vaelab, "torch": torch}, names)

    evaluated = vaelab.evaluate(tmp_path / "run")
    assert evaluated["test/elbo"] == json.loads((tmp_path / "run" / "metrics.json").read_text())["test/elbo"]
    assert names["digits"].shape == (8, 1, 8, 8)  # type: ignore[attr-defined]
    assert names["same_hand"].shape == (5, 1, 8, 8)  # type: ignore[attr-defined]
