"""Text that somebody else may have written: a terminal shows it and obeys none of it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def clean(text: str, most: int | None = None) -> str:
    r"""The text, at most so much of it, with a sign in place of each character that a terminal or a browser would obey.

    >>> clean("a\x1b[2Jb\r\n") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}\n"
    True
    """
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def one_line(text: str, most: int | None = None) -> str:
    r"""The same in one line.

    >>> one_line("a\nb")
    'a b'
    """
    return clean(" ".join(text.split()), most)


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> "Console":
    """A console that takes text as text: "[b]" is no markup, ":x:" no emoji, a number no number."""
    from rich.console import Console

    return Console(stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
