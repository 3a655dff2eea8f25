"""docs/models.md says what there is, and its programs run."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import vaelab
from processes import command
from vaelab.config.conf import options

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
BLOCKS = re.findall(r"(?:In `([^`]+)`[^`]*:\n\n)?```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_every_preset_and_every_loss_is_on_the_page() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))

    assert set(options("model")) | set(options("loss")) <= named
    assert all((Path(__file__).parents[1] / "docs" / link).exists() for link in re.findall(r"\]\((\S+)\)", PAGE))


@pytest.mark.slow
def test_parts_from_another_package_train(tmp_path: Path) -> None:
    for name, _, text in BLOCKS:
        if name:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert all(len(text.splitlines()) <= 60 for name, _, text in BLOCKS if name)
    (block,) = [text for _, language, text in BLOCKS if language == "bash" and "--trust" in text]
    for number, line in enumerate(block.splitlines()):
        settings, _, arguments = line.partition("vaelab ")
        words = [*shlex.split(arguments), "data=digits", "trainer=debug", f"hydra.run.dir=run{number}"]

        result = command(*words, cwd=tmp_path, **dict(word.split("=", 1) for word in shlex.split(settings)))

        assert result.returncode == 0, result.stderr
        assert (tmp_path / f"run{number}" / "metrics.json").is_file()


def test_the_program_about_labels_runs(tmp_path: Path) -> None:
    (program,) = [text for name, language, text in BLOCKS if language == "python" and not name]
    config = vaelab.compose(["model=conditional_vae", "data=digits", "trainer=debug", "~callbacks.progress_bar"])
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
