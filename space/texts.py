"""What the page says, in each of its languages: `page/en` and `page/pt` hold all of it.

Answers of the API, names of classes and sentences on what is wrong with a request are in English everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType

PAGE = Path(__file__).parent / "page"

LONG_TEXTS = (
    "header",
    "hint",
    "tools",
    "many",
    "live",
    "live_hint",
    "why",
    "inside",
    "classifier",
    "explanation",
)
"""HTML files of each language. `$name` in them is a file of `page/shared`, in which `$key` is one of the words."""


@dataclass(frozen=True)
class Language:
    """One language of the page.

    Args:
        code: as browsers ask for it, "en"; names its folder.
        words: the short texts by key, with `{}` for what is filled in.
        decimal: between the integer and the fractional part of its numbers.
        thousands: between groups of three digits.
    """

    code: str
    words: Mapping[str, str]
    decimal: str
    thousands: str

    @classmethod
    def from_folder(cls, code: str, decimal: str, thousands: str) -> Language:
        """Read the `words.json` of a language."""
        words = json.loads((PAGE / code / "words.json").read_text(encoding="utf-8"))
        return cls(code, MappingProxyType(words), decimal, thousands)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, filled in."""
        return self.words[key].format(**values)

    def number(self, english: str) -> str:
        """A number as this language writes it, 1,500.5 in English."""
        return english.translate(str.maketrans(".,", self.decimal + self.thousands))

    def long_text(self, name: str) -> str:
        """One of `LONG_TEXTS`, as HTML."""
        shared = {path.stem: _template(path).substitute(self.words) for path in (PAGE / "shared").iterdir()}
        return _template(PAGE / self.code / f"{name}.html").substitute(shared)


ENGLISH = Language.from_folder("en", ".", ",")
LANGUAGES = {language.code: language for language in (ENGLISH, Language.from_folder("pt", ",", "."))}


def accepted_language(header: str) -> Language:
    """The language of a browser by its `Accept-Language`: the first one of its list, or English where the page hasn't
    that."""
    return LANGUAGES.get(header.strip().lower()[:2], ENGLISH)


def translations() -> dict[str, dict[str, str]]:
    """All texts that don't depend on a request, by language and key, as `gr.I18n` takes them."""
    return {
        code: {**language.words, **{f"{name}_text": language.long_text(name) for name in LONG_TEXTS}}
        for code, language in LANGUAGES.items()
    }


def _template(path: Path) -> Template:
    return Template(path.read_text(encoding="utf-8"))
