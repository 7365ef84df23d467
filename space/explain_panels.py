"""What the explaining tabs show, as HTML; pictures travel inside it, as in `space.panels`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import inf

import numpy as np
from PIL import Image

from fcn_hf.palettes import heat_overlay, label_picture
from fcn_hf.refinement import RefinementStep
from space.classifier import CLASSES, STRIDE, WINDOW, AnswerMap, class_heat
from space.explain import NetworkExplanation, Question, heat_picture
from space.inference import Segmenter
from space.panels import data_uri, fact_list, hex_colour, milliseconds, percent
from space.pictures import UNLABELLED
from space.texts import ENGLISH, Language

TOP = 5
"""Classes whose probabilities are shown."""


def question_panels(question: Question, colours: np.ndarray, language: Language = ENGLISH) -> str:
    """A pixel's explanation by each network: what it depends on, what could be seen, and how sure the network is.

    Args:
        question: the pixel, and the networks' answers.
        colours: of the classes of all networks, uint8 of shape (classes, 3).
        language: of the texts.
    """
    figures = "".join(_network(question, answer, colours, language) for answer in question.answers)
    return (
        f'<section class="fcn-why" aria-label="{language("why_title")}" style="{_aspect(question.seen)};'
        f'--columns:{len(question.answers)}">{figures}</section>'
    )


def _network(question: Question, answer: NetworkExplanation, colours: np.ndarray, language: Language) -> str:
    explanation, segmenter = answer.explanation, answer.segmenter
    (width, height), name = question.size, escape(segmenter.name)
    label = escape(segmenter.labels[explanation.label])
    best = percent(float(explanation.probabilities[explanation.label]), language)
    heat = data_uri(heat_picture(question.seen, explanation), "JPEG", quality=90)
    place = f"left:{(question.x + 0.5) / width:.4%};top:{(question.y + 0.5) / height:.4%}"
    field = ""
    if answer.receptive_field:
        left, top, right, bottom = answer.receptive_field
        field = (
            f'<i class="fcn-field" style="left:{left / width:.4%};top:{top / height:.4%};'
            f'width:{(right - left) / width:.4%};height:{(bottom - top) / height:.4%}"></i>'
        )
    half = round(explanation.radius() * width / question.seen.width)
    facts = [
        (language("half_within"), f"{half} px"),
        (language("can_see"), _field_text(answer, language)),
        (language("time"), milliseconds(answer.seconds, language)),
    ]
    return (
        f"<figure><figcaption><strong>{name}: {label}</strong><span>{language('sure', share=best)}</span></figcaption>"
        f'<div class="fcn-ask-view" data-width="{width}" data-height="{height}"><img src="{heat}" '
        f'alt="{language("depends_on", label=label, name=name, x=question.x, y=question.y)}">'
        f'{field}<i class="fcn-cross" style="{place}"></i></div>'
        f"{_bars(explanation.probabilities, segmenter.labels, language, colours[segmenter.ids])}"
        f"{fact_list(facts)}</figure>"
    )


def _field_text(answer: NetworkExplanation, language: Language) -> str:
    reach, (height, width) = answer.explanation.reach, answer.explanation.network_size
    if reach is None:
        return language("not_known")
    if inf in reach:
        return language("whole_picture")
    return language("field", reach=f"{reach[1]:.0f} × {reach[0]:.0f}", size=f"{width} × {height}")


def inside_panels(
    segmenter: Segmenter,
    seen: Image.Image,
    steps: Sequence[RefinementStep],
    colours: np.ndarray,
    language: Language = ENGLISH,
) -> str:
    """The steps to a mask, one of which is shown; which one, radio buttons choose without the server.

    Args:
        segmenter: whose mask it is.
        seen: the picture, RGB, W x H.
        steps: their masks are (H, W), in the network's own ids.
        colours: of the classes of all networks that are shown together, uint8 of shape (classes, 3).
        language: of the texts.
    """
    colours = colours[segmenter.ids]
    photo = data_uri(seen, "JPEG", quality=90)
    choices = "".join(
        f'<label><input type="radio" name="fcn-step" value="{index}"{" checked" if index == 0 else ""}>'
        f"{index + 1}. {language(step.name)}</label>"
        for index, step in enumerate(steps)
    )
    stages = "".join(_stage(segmenter, step, index, colours, language) for index, step in enumerate(steps))
    return (
        f'<section class="fcn-inside" aria-label="{language("inside_title")}" '
        f'style="--photo:url({photo});{_aspect(seen)}">'
        f"<fieldset><legend>{language('step_by_step', name=escape(segmenter.name))}</legend>{choices}</fieldset>"
        f"{stages}</section>"
    )


def _stage(segmenter: Segmenter, step: RefinementStep, index: int, colours: np.ndarray, language: Language) -> str:
    height, width, num_labels = step.scores_shape
    coarsest = round(segmenter.model.fcn.trunk.answer.position.scale)
    stride = {"pool4": 16, "pool3": 8}.get(step.name, coarsest)
    mask = data_uri(label_picture(step.mask, colours), "PNG")
    changed = data_uri(label_picture(np.where(step.changed, step.mask, UNLABELLED), colours), "PNG")
    share = percent(float(step.changed.mean()), language)
    title, name = language(step.name), escape(segmenter.name)
    facts = [
        (language("scores"), f"{height} × {width} × {num_labels} {language('classes')}"),
        (language("changed"), share if index else "–"),
    ]
    change = (
        f'<figure><figcaption>{language("step_changed")}</figcaption><div class="fcn-layer fcn-dim">'
        f'<img src="{changed}" alt="{language("changed_alt", share=share)}"></div></figure>'
    )
    return (
        f'<div class="fcn-stage" data-step="{index}"><p>{language(f"{step.name}_text", stride=stride)}</p>'
        f'<figure><figcaption>{title}</figcaption><div class="fcn-layer"><img src="{mask}" '
        f'alt="{language("step_alt", name=name, step=index + 1, title=title)}"></div></figure>'
        f"{change if index else ''}{fact_list(facts)}</div>"
    )


def answer_panel(square: Image.Image, probabilities: np.ndarray, language: Language = ENGLISH) -> str:
    """What the classifier says of a whole picture, once."""
    return (
        f'<section class="fcn-answer" aria-label="{language("one_answer")}"><h2>{language("one_answer_title")}</h2>'
        f'<div><img src="{data_uri(square, "JPEG", quality=90)}" alt="{language("classifier_sees", side=WINDOW)}">'
        f"{_bars(probabilities, CLASSES, language)}</div></section>"
    )


def map_panel(answers: AnswerMap, index: int, language: Language = ENGLISH) -> str:
    """Where the classifier, convolutionalized, sees one of its classes."""
    heat = class_heat(answers, index)
    shown = data_uri(heat_overlay(answers.seen, heat), "JPEG", quality=90)
    (height, width), name = answers.shape, escape(CLASSES[index])
    probabilities = answers.probabilities[index]
    row, column = np.unravel_index(probabilities.argmax(), probabilities.shape)
    best = percent(float(probabilities.max()), language)
    middle = [
        (STRIDE * place + WINDOW / 2) / side for place, side in zip((column, row), answers.seen.size, strict=True)
    ]
    return (
        f'<section class="fcn-map" aria-label="{language("answer_map")}" style="{_aspect(answers.seen)}">'
        f"<h2>{language('answer_map_title', height=height, width=width)}</h2>"
        f'<div class="fcn-ask-map"><img src="{shown}" alt="{language("answer_map_alt", name=name)}">'
        f'<i class="fcn-cross" style="left:{middle[0]:.4%};top:{middle[1]:.4%}"></i></div>'
        f"<p>{language('answer_map_text', window=WINDOW, stride=STRIDE)} "
        f"<strong>{name}</strong>: {language('brightest', share=best)}</p></section>"
    )


def times_panel(answers: AnswerMap, crops_seconds: float, timed: int, language: Language = ENGLISH) -> str:
    """The time for a map of answers beside that for the same answers one by one, of which `timed` were measured."""
    count, longest = answers.shape[0] * answers.shape[1], max(answers.seconds, crops_seconds)
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td><i style="width:{seconds / longest:.2%}"></i></td>'
        f"<td>{milliseconds(seconds, language)}</td></tr>"
        for name, seconds in (
            (language("one_pass"), answers.seconds),
            (language("crops", count=count), crops_seconds),
        )
    )
    factor = language.number(f"{crops_seconds / answers.seconds:.1f}")
    caption = language("times_part" if timed < count else "times", count=count, timed=timed, factor=factor)
    return f'<table class="fcn-bars"><caption>{caption}</caption>{rows}</table>'


def _bars(
    probabilities: np.ndarray,
    labels: Sequence[str],
    language: Language,
    colours: np.ndarray | None = None,
) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(labels[index])}</th>'
        f'<td><i style="width:{probabilities[index]:.2%}'
        f'{";background:" + hex_colour(colours[index]) if colours is not None else ""}"></i></td>'
        f"<td>{percent(float(probabilities[index]), language)}</td></tr>"
        for index in probabilities.argsort()[::-1][:TOP].tolist()
    )
    return f'<table class="fcn-bars"><caption>{language("how_sure")}</caption>{rows}</table>'


def _aspect(picture: Image.Image) -> str:
    return f"--aspect:{picture.width}/{picture.height}"
