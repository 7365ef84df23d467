"""Both languages say the same things, and write numbers in their own way."""

import asyncio
import re
import struct
from string import Formatter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from space import classifier, downloads, many, pictures, typed_models, uploads, waiting
from space.explain_ui import whole
from space.panels import milliseconds, percent, quantity
from space.texts import ENGLISH, LANGUAGES, LONG_TEXTS, accepted_language, translations
from space.uploads import MAX_FILES

PORTUGUESE = LANGUAGES["pt"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The maker of paths of files: `files(content or picture, name)`."""
    monkeypatch.setattr(pictures, "MAX_PIXELS", 400)

    def made(content, name="a.png"):
        path = tmp_path / name
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path)
        return path

    return made


def refused_pictures(files):
    cut = files(Image.effect_noise((20, 20), 90), "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:-20])
    grey = Image.new("L", (20, 20), 9)
    yield "tem pixels demais", pictures.read_picture, files(Image.new("L", (21, 20)), "large.png")
    yield "são aceitos até", pictures.read_picture, files(bomb(), "bomb.bmp")
    yield "formato PDF", pictures.read_picture, files(b"%PDF", "b.png")
    yield "está danificada", pictures.read_picture, files(b"no picture", "c.png")
    yield "cortado", pictures.read_picture, cut
    yield "(está vazia)", pictures.read_picture, files(b"", "d.png")
    yield "ponto flutuante", pictures.read_picture, files(Image.fromarray(np.ones((4, 4), np.float32)), "e.tiff")
    truths = {
        "A verdade está danificada, ou": files(b"no picture", "f.png"),
        "arquivo TIFF": files(grey, "g.tiff"),
        "modo RGB": files(grey.convert("RGB"), "h.png"),
        "19 x 20 pixels, e a imagem, 20 x 20": files(grey.crop((0, 0, 19, 20)), "i.png"),
        "os valores 9, mas": files(grey, "j.png"),
    }
    for said, path in truths.items():
        yield said, lambda path: pictures.read_truth(path, (20, 20), 3), path


def bomb():
    """A file whose head says that it has more pixels than Pillow itself takes."""
    return b"BM" + struct.pack("<8xIIII", 54, 40, 30_000, 30_000) + b"\1\0\x18\0" + bytes(24)


def refused_models():
    typed = typed_models.TypedModels(at_home=True).kind
    yield "Digite de um a 4", typed, ""
    yield "São 5 modelos", typed, "a/b,a/c,a/d,a/e,a/f"
    yield "uma pasta desta máquina", typed, "./nowhere"
    yield "como no Hub.", typed_models.TypedModels(at_home=False).kind, "./nowhere"
    yield "a esquerda e do topo", whole, 1.5
    yield "estreita demais", classifier.resized, Image.new("RGB", (2000, 100))


def test_what_a_visitor_can_be_refused_for_is_said_in_portuguese(files):
    """Sentences as they are raised."""
    heard = []
    for expected, refuse, value in (*refused_pictures(files), *refused_models()):
        with pytest.raises(ValueError) as refusal:
            refuse(value)
        heard.append((expected, str(refusal.value)))
    request = SimpleNamespace(headers={"accept-language": "en"})
    full = waiting.AttendedQueue(False, 1, 1, 0, None).push(SimpleNamespace(fn_index=1), request, None)
    heard += [
        ("Envie uma imagem", uploads.NOT_UPLOADED),
        ("no máximo 50", uploads.TOO_MANY_FILES),
        ("Inicie a câmera", uploads.NOT_A_FRAME),
        ("Este pedido não pôde", uploads.NOT_ANSWERED),
        ("mais de 60 segundos", uploads.TOO_LONG),
        ("A fila está cheia", asyncio.run(full)[1]),
        ("Escolha primeiro", downloads.NO_PICTURE),
        ("Não há mapa de rótulos", downloads.NO_LABEL_MAP),
        ("Nada está pronto", many.NOTHING_DONE),
        ("não estão instalados", classifier.MISSING),
    ]
    for expected, english in heard:
        assert expected in PORTUGUESE.sentence(english), english
        assert ENGLISH.sentence(english) == english
    assert PORTUGUESE.sentence("Something else: 1,500.") == "Something else: 1,500."


def test_translations_of_sentences_have_the_same_places():
    for english, portuguese in PORTUGUESE.sentences.items():
        places = [{field for _, field, _, _ in Formatter().parse(each)} - {None} for each in (english, portuguese)]
        assert places[1] <= places[0], english


def test_what_is_too_long_to_be_looked_for_stays_as_it_is():
    with_places = [template for template in PORTUGUESE.sentences if "{" in template]
    for template in with_places:
        assert PORTUGUESE.sentence(re.sub(r"{\w+}", "x", template)) != re.sub(r"{\w+}", "x", template)
        hostile = re.sub(r"{\w+}", "x" * 600, template)
        assert PORTUGUESE.sentence(hostile) == hostile


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
