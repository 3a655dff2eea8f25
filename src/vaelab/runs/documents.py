"""Read and write the documents of run and sweep folders: text that anybody may have written.

Documents that a run depends on carry a checksum, so that an edit, or a bit that flipped on the disk, is noticed. To
keep an intended edit, remove the checksum.
"""

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ValidationError

from vaelab.config.values import adapter
from vaelab.errors import RunError
from vaelab.files import replacing
from vaelab.text import clean, one_line

MAX_BYTES = 16 << 20  # of a document; the largest are manifests with the diff of uncommitted code
MAX_INTEGER = 2**63
CHECKSUM = "checksum"
EDITED = "its checksum does not match, so it was edited or is damaged; to keep an edit,"
_LAST_LINE = re.compile(rf"^# {CHECKSUM} (\S+)\n?\Z", re.MULTILINE)

State = Literal["waiting", "running", "done", "pruned", "interrupted", "failed", "unreadable"]
Document = TypeVar("Document")


def number(value: Any) -> float:
    """Convert a number of a document, or the name of one that JSON does not have.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
        raise ValueError(f"{json.dumps(value):.50} is not a number")
    return float(value)


Number = Annotated[float, BeforeValidator(number)]


@dataclass(frozen=True)
class Progress:
    """How far a run has been trained, after each epoch.

    Args:
        epoch: epochs completed.
        epochs: that it will have; None where the config does not limit them.
        step: steps of the model's optimizer.
        terms: the newest values, "train/loss", "val/loss", ...
    """

    epoch: int
    epochs: int | None
    step: int
    terms: Mapping[str, Number]


@dataclass(frozen=True)
class Status:
    """The state of a run: status.json.

    Args:
        state: running also where the process was killed; waiting and unreadable are never written.
        error: why it failed, or was interrupted by a disk.
        traceback: of that error.
        progress: None before the first epoch has ended.
        at: a state -> when it was last reached.
    """

    state: State = "waiting"
    error: str = ""
    traceback: str = ""
    progress: Progress | None = None
    at: Mapping[State, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Status":
        """Read a file; the state is waiting where there is none.

        Raises:
            RunError: it is not a status that vaelab writes.
        """
        content = read_json(path)
        times = {key.removesuffix("_at"): content.pop(key) for key in list(content) if key.endswith("_at")}
        return typed(cls, {**content, "at": times}, path) if content or times else cls()

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        content = asdict(self)
        times = {f"{state}_at": time for state, time in content.pop("at").items()}
        write_json(path, {key: value for key, value in content.items() if value} | times, sealed=True)

    def then(self, state: State, *, error: str = "", traceback: str = "") -> "Status":
        """Return the next status, with the current time."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return replace(self, state=state, error=error, traceback=traceback, at={**self.at, state: now})


@dataclass(frozen=True)
class Git:
    """The git commit of the folder that a run was started in, and the diff of uncommitted changes."""

    commit: str
    diff: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a run's numbers may depend on besides its config: manifest.json.

    Args:
        overrides: that the config was composed with.
        command: that started the run.
        repeat: a command that makes this run alone; () where it would take more than what was typed.
        folder: in which the command ran.
        seed: that of the config.
        git: None outside of a git repository.
        packages: name -> version.
        data: split -> checksum of its images.
        hardware: processor, threads, devices.
    """

    overrides: Sequence[str] = ()
    command: Sequence[str] = ()
    repeat: Sequence[str] = ()
    folder: str = ""
    seed: int | None = None
    git: Git | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Manifest | None":
        """Read a file; None where there is none.

        Raises:
            RunError: it is not a manifest that vaelab writes.
        """
        content = read_json(path)
        return typed(cls, content, path) if content else None

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        write_json(path, asdict(self), sealed=True)


class Metrics(dict[str, float]):
    """The final numbers of a run by name, NaN and infinity included: metrics.json."""

    @classmethod
    def read(cls, path: Path) -> "Metrics":
        """Read a file; empty where there is none.

        Raises:
            RunError: it holds anything but numbers.
        """
        return cls(typed(dict[str, Number], read_json(path), path))

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        write_json(path, self)


def read_json(path: Path) -> dict[str, Any]:
    """Read a document, with its texts cleaned; empty where there is none.

    Raises:
        RunError: it is a link, not a file, too large, not JSON, or its checksum does not match.
    """
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        content = json.loads(read_text(path), parse_int=_integer)
        if not isinstance(content, dict):
            raise ValueError("it should be an object of names and values")
        said = content.pop(CHECKSUM, None)
        if said not in (None, _digest(_canonical(content))):
            raise ValueError(f'{EDITED} remove "{CHECKSUM}" from it')
        return cleaned(content)  # type: ignore[no-any-return]
    except (ValueError, RecursionError, OSError) as error:
        raise RunError(f"{path} cannot be read: {one_line(str(error), 300)}") from error


def write_json(path: Path, content: Mapping[str, Any], *, sealed: bool = False) -> None:
    """Replace a document as a whole, `sealed` with a checksum if a run depends on it."""
    finite = _finite(content)
    seal = {CHECKSUM: _digest(_canonical(finite))} if sealed else {}
    write_text(path, json.dumps({**finite, **seal}, indent=2) + "\n")


def read_text(path: Path) -> str:
    """Read the text of a document.

    Raises:
        ValueError: it is a link, not a regular file, too large or not text.
        OSError: it cannot be read.
    """
    if path.is_symlink():
        raise ValueError("it is a link")
    # Opening a pipe would block.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        if about.st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        return file.read()


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it into place."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def signed(text: str) -> str:
    """Append the checksum of a text of lines as a comment; `unsigned` removes it."""
    return f"{text}# {CHECKSUM} {_digest(text)}\n"


def unsigned(text: str) -> str:
    """Check and remove the checksum of a text; a text without one is returned as it is.

    Raises:
        ValueError: the checksum does not match.
    """
    found = _LAST_LINE.search(text)
    if found is None and f"# {CHECKSUM}" not in text:
        return text
    content = text[: found.start()] if found else text
    if found is None or found[1] != _digest(content):
        raise ValueError(f"{EDITED} remove the line # {CHECKSUM}")
    return content


def typed(kind: type[Document], content: Mapping[str, Any], path: Path) -> Document:
    """Convert the content of a document to a dataclass or another annotated type.

    Raises:
        RunError: a key is unknown, or a value has another type.
    """
    unknown = sorted(set(content) - set(getattr(kind, "__dataclass_fields__", content)))
    try:
        if unknown:
            raise ValueError(f"it should not hold {one_line(unknown[0], 50)}")
        document: Document = adapter(kind).validate_json(json.dumps(content), strict=True)  # type: ignore[arg-type]
        return document
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = one_line(".".join(map(str, first["loc"])), 100)
        raise RunError(f"{path} cannot be read: {where}: {first['msg']}") from error
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def cleaned(content: Any) -> Any:
    """Replace control characters in all texts."""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, dict):
        return {clean(key): cleaned(value) for key, value in content.items()}
    return [cleaned(value) for value in content] if isinstance(content, list) else content


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -MAX_INTEGER <= int(digits) < MAX_INTEGER:
        raise ValueError(f"it has a number of {len(digits.lstrip('-'))} digits")
    return int(digits)


def _finite(content: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by their names."""
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
