"""Edits of the documents of a run or sweep folder that are meant: without the checksum that says otherwise."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Have `edit` change what a document holds, in place."""
    content = json.loads(path.read_text())
    del content["checksum"]
    edit(content)
    path.write_text(json.dumps(content))


def edit_text(path: Path, old: str, new: str) -> None:
    """Put other words into a config.yaml."""
    text = path.read_text()
    assert old in text
    path.write_text(re.sub("\n# checksum .*", "", text.replace(old, new)))
