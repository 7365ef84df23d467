"""What command lines print, and where."""

import re

from rich.console import Console

# Names of classes, files and models are anybody's text: none of it is markup.
console, stderr = (
    Console(stderr=to_stderr, markup=False, emoji=False, highlight=False, soft_wrap=True) for to_stderr in (False, True)
)


CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""By which a terminal is told what to do, and lines end."""


def printable(text: str) -> str:
    """Anybody's text in one line and without control characters, for terminals, cards and pictures."""
    return CONTROL_CHARACTERS.sub(" ", text).strip()


def complain(message: str) -> None:
    """Print one line to stderr."""
    stderr.print(printable(message), style="red")


def warn(message: str) -> None:
    """Print one line to stderr on what may not be as it is meant to be."""
    stderr.print(printable(message), style="yellow")
