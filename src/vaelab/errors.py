"""Errors that a user can fix. The command line prints them without a traceback."""

import errno
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UserError(Exception):
    """An error whose message says what is wrong, where, and what would be right."""

    exit_code = 2  # the command line's


class ConfigError(UserError):
    """All mistakes of a config at once."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...]]]:
        """Make it picklable, so that it can be sent between processes."""
        return type(self), (self.mistakes,)


class DataError(UserError):
    """Data that are missing, damaged or unsuitable."""


class RunError(UserError):
    """A run folder that cannot be used in this way."""


class StorageError(RunError):
    """A disk that is full."""

    exit_code = 1


def unwritten(path: Path, error: OSError) -> RunError:
    """Return the error that a file cannot be written: a StorageError if the disk is full, else a RunError."""
    kind = StorageError if error.errno in NO_ROOM else RunError
    return kind(f"{path} cannot be written: {error.strerror or error}")


class DivergenceError(UserError):
    """A loss or a weight that is NaN or infinite."""

    exit_code = 3


class Pruned(Exception):  # noqa: N818 - not an error
    """Raised to end a run that was pruned, since others were better at the same epoch."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest of the known words, or else '; there are A, B, C'.

    Upper and lower case, and - and _, count as equal.

    >>> did_you_mean("vea", ["ae", "vae"])
    '; did you mean vae?'
    >>> did_you_mean("Fashion-MNIST", ["fashion_mnist", "mnist"])
    '; did you mean fashion_mnist?'
    """
    words = sorted(known)
    plain = {candidate.lower(): candidate for candidate in words}
    asked = word.lower().replace("-", "_")
    # Among near words prefer an anagram: swapped letters are the most frequent typo.
    near = get_close_matches(asked, plain, n=3, cutoff=0.6)
    if near:
        best = next((candidate for candidate in near if sorted(candidate) == sorted(asked)), near[0])
        return f"; did you mean {plain[best]}?"
    return f"; there are {', '.join(words)}" if words else "; there are none"
