"""Both languages say the same things, and write numbers in their own way."""

import re
from string import Formatter

import pytest

from space.panels import milliseconds, percent, quantity
from space.texts import ENGLISH, LANGUAGES, LONG_TEXTS, accepted_language, translations
from space.uploads import MAX_FILES

PORTUGUESE = LANGUAGES["pt"]


def test_both_languages_have_the_same_texts_with_the_same_places():
    assert ENGLISH.words.keys() == PORTUGUESE.words.keys()
    for key, text in ENGLISH.words.items():
        places = [{field for _, field, _, _ in Formatter().parse(each)} for each in (text, PORTUGUESE.words[key])]
        assert places[0] == places[1], key
        # They stand in attributes, and Gradio's translation takes braces for places of its own.
        assert not set('"<>') & set(text + PORTUGUESE.words[key]), key


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_long_texts_have_the_same_elements(name):
    english, portuguese = (language.long_text(name) for language in (ENGLISH, PORTUGUESE))
    tags, ids = r"</?(?!strong|code)[a-z0-9-]+", r'\s(?:id|class|href|d|style)="[^"]*"'
    for pattern in (tags, ids):
        assert re.findall(pattern, english) == re.findall(pattern, portuguese)
    assert english != portuguese and not set("{}") & set(english + portuguese)
    assert "<code>" not in english or re.findall(r"\d{3,}", english) == re.findall(r"\d{3,}", portuguese)


def test_every_label_has_a_text_in_every_language():
    english, portuguese = translations().values()
    assert str(MAX_FILES) in english["many_files"] and str(MAX_FILES) in portuguese["many_files"]
    assert english.keys() == portuguese.keys() >= {"kind", "why", "why_text", "explanation_text"}


def test_numbers_are_written_as_the_language_writes_them():
    assert percent(0.6234, PORTUGUESE) == "62,3 %" and percent(0.6234) == "62.3 %"
    assert milliseconds(1.5, PORTUGUESE) == "1.500 ms" and milliseconds(0.0123, PORTUGUESE) == "12,3 ms"
    assert quantity(2_612_345, PORTUGUESE) == "2,6 M"


@pytest.mark.parametrize(
    ("header", "code"),
    [("pt-BR,pt;q=0.9,en;q=0.8", "pt"), ("pt", "pt"), ("en-US,en;q=0.9,pt;q=0.8", "en"), ("fr-FR", "en"), ("", "en")],
)
def test_the_language_is_the_browsers_first_or_english(header, code):
    assert accepted_language(header).code == code
