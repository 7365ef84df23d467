"""Anybody's text, such as names of classes and files, made fit for one line."""

import re

CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""By which a terminal is told what to do, and lines end."""


def printable(text: str) -> str:
    """The text in one line and without control characters, for terminals, cards and pictures."""
    return CONTROL_CHARACTERS.sub(" ", text).strip()
