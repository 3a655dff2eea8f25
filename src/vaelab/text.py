"""Clean text that somebody else may have written, so that it cannot control a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def clean(text: str, most: int | None = None) -> str:
    r"""Replace control characters, and cut the text to `most` characters.

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
    r"""Clean a text and join its lines.

    >>> one_line("a\nb")
    'a b'
    """
    return clean(" ".join(text.split()), most)


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> "Console":
    """Return a console that prints text literally: "[b]" is not markup, ":x:" not an emoji."""
    from rich.console import Console

    return Console(stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
