"""What the address of the page asks for. The browser writes it, and does what needs no server: see page/link.js."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from space.kinds import Kind
from space.pictures import read_picture


@dataclass(frozen=True)
class Opening:
    """With what the page is to be opened.

    Args:
        kind: name of a kind of picture.
        path: one of its examples; None where it has none.
        pixel: (x, y) in that picture; None where none is asked for.
    """

    kind: str
    path: Path | None
    pixel: tuple[int, int] | None

    @classmethod
    def from_query(cls, query: Any, kinds: Mapping[str, Kind]) -> Opening | None:
        """Read a query such as `kind=street&example=2&x=240&y=180`: the first kind and its first example where it names
        none.

        Args:
            query: starlette's `QueryParams`. A key that is there twice counts as not there.
            kinds: by name.

        Returns:
            None where nothing is asked for, or a kind or an example that there isn't.
        """
        given = {key: query.get(key) for key in ("kind", "example", "x", "y") if len(query.getlist(key)) == 1}
        kind = kinds.get(given.get("kind", next(iter(kinds))))
        number = _number(given.get("example", "1"))
        if not given or kind is None or number is None:
            return None
        paths = kind.examples.paths
        if not paths:
            return cls(kind.name, None, None)
        if not 1 <= number <= len(paths):
            return None
        path = paths[number - 1]
        x, y = (_number(given.get(key, "")) for key in ("x", "y"))
        width, height = read_picture(path).size
        if x is None or y is None or x >= width or y >= height:
            return cls(kind.name, path, None)
        return cls(kind.name, path, (x, y))


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else None
