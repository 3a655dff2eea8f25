"""Every command and program of docs/using.md, run in its order."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaelab.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "using.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "callbacks.progress_bar=null"]


@pytest.mark.slow
def test_the_commands_and_the_program_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photographs = tmp_path / "photos"
    photographs.mkdir()
    for number in range(4):
        Image.fromarray(np.full((360, 480, 3), (240, 230, 200 + number), np.uint8)).save(photographs / f"{number}.jpg")
    said = {}

    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "vaelab"
        with pytest.raises(SystemExit) as end:
            main(arguments + (SHORT if arguments[0] == "train" else []))
        assert not end.value.code, (command, capsys.readouterr().err)
        said[command] = capsys.readouterr()
        if arguments[0] != "train":
            written = [tmp_path / line for line in said[command].out.splitlines()]
            assert written
            assert all(path.is_file() for path in written)

    (shown,) = (text for language, text in BLOCKS if language == "text")
    (own,) = (said[command].err for command in COMMANDS if "photos" in command)
    assert own.splitlines()[:2] == shown.splitlines()[:2]
    (program,) = (text for language, text in BLOCKS if language == "python")
    names: dict[str, Any] = {}
    for line in program.splitlines():
        exec(line, names)
        shape = re.match(r"(\w+) = .*  # \(([\d, ]+)\)", line)
        if shape:
            assert tuple(names[shape[1]].shape) == tuple(int(size) for size in shape[2].split(",") if size.strip()), (
                line
            )
    assert names["picture"].shape == (280, 280, 3)


def test_each_command_of_the_page_has_its_pictures_and_they_are_small():
    pictures = re.findall(r"!\[[^]]+\]\((\S+)\)", PAGE)

    assert {f"images/using_{name}.png" for name in re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)} <= set(pictures)
    assert all((DOCS / picture).stat().st_size < 100_000 for picture in pictures)
