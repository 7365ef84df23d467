"""What the page says, in each of its languages: `page/en` and `page/pt` hold all of it.

Answers of the API and names of classes are in English everywhere. Sentences on what is wrong with a request are raised
in English and translated where the page shows them: `page/pt/sentences.json` has those that a visitor can meet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

PAGE = Path(__file__).parent / "page"

LONGEST_SENTENCE = 500
"""Characters; a longer one holds text from outside, and looking for its translation would take seconds."""

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
        sentences: English ones on what is wrong -> this language's, with `{name}` for what is filled in.
        decimal: between the integer and the fractional part of its numbers.
        thousands: between groups of three digits.
    """

    code: str
    words: Mapping[str, str]
    sentences: Mapping[str, str]
    decimal: str
    thousands: str

    @classmethod
    def from_folder(cls, code: str, decimal: str, thousands: str) -> Language:
        """Read the `words.json` of a language and, but for English, its `sentences.json`."""
        words, sentences = (
            MappingProxyType(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
            for path in (PAGE / code / "words.json", PAGE / code / "sentences.json")
        )
        return cls(code, words, sentences, decimal, thousands)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, filled in."""
        return self.words[key].format(**values)

    def sentence(self, english: str) -> str:
        """What is wrong, said in this language; as it is where there is no translation, or it is longer than
        `LONGEST_SENTENCE`. What is filled in may be a sentence or a number in turn."""
        if len(english) > LONGEST_SENTENCE:
            return english
        for template, translated in self.sentences.items():
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(template))
            if found := re.fullmatch(pattern, english, re.DOTALL):
                return translated.format(**{name: self.sentence(value) for name, value in found.groupdict().items()})
        return self.number(english) if re.fullmatch(r"\d[\d.,]*", english) else english

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


def request_language(request: Any) -> Language:
    """The `accepted_language` of a request, gradio's or starlette's; English without one."""
    return accepted_language(request.headers.get("accept-language", "")) if request else ENGLISH


def translations() -> dict[str, dict[str, str]]:
    """All texts that don't depend on a request, by language and key, as `gr.I18n` takes them."""
    return {
        code: {**language.words, **{f"{name}_text": language.long_text(name) for name in LONG_TEXTS}}
        for code, language in LANGUAGES.items()
    }


def _template(path: Path) -> Template:
    return Template(path.read_text(encoding="utf-8"))
