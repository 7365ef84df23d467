"""What command lines print, and where."""

from rich.console import Console

from .text import printable

# Names of classes, files and models are anybody's text: none of it is markup.
console, stderr = (
    Console(stderr=to_stderr, markup=False, emoji=False, highlight=False, soft_wrap=True) for to_stderr in (False, True)
)


def complain(message: str) -> None:
    """Print one line to stderr."""
    stderr.print(printable(message), style="red")


def warn(message: str) -> None:
    """Print one line to stderr on what may not be as it is meant to be."""
    stderr.print(printable(message), style="yellow")
