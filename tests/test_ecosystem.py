"""Every command and the program of docs/ecosystem.md, run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from vaelab.cli.main import main

PAGE = (Path(__file__).parents[1] / "docs" / "ecosystem.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
SHORT = ["trainer=debug", "trainer.max_steps=-1", "callbacks.progress_bar=null", "encoder.hidden=[8]"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's, of a Trainer that is not ours
def test_the_commands_and_the_program_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, command in enumerate(COMMANDS):
        with pytest.raises(SystemExit) as end:
            main([*shlex.split(command)[1:], *SHORT, f"hydra.run.dir={number}"])
        assert not end.value.code, command
    assert len(list((tmp_path / "2" / "checkpoints").glob("epoch=*.ckpt"))) == 2
    (program,) = (text for language, text in BLOCKS if language == "python")
    names: dict[str, Any] = {}
    exec(program.replace("max_epochs=1", "max_epochs=1, limit_train_batches=2, enable_progress_bar=False"), names)
    assert names["images"].shape == (16, 1, 8, 8)
