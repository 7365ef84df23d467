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

TOP = 5
"""Classes whose probabilities are shown."""


def question_panels(question: Question, colours: np.ndarray) -> str:
    """A pixel's explanation by each network: what it depends on, what could be seen, and how sure the network is.

    Args:
        question: the pixel, and the networks' answers.
        colours: of the classes of all networks, uint8 of shape (classes, 3).
    """
    figures = "".join(_network(question, answer, colours) for answer in question.answers)
    return (
        f'<section class="fcn-why" aria-label="Why this pixel" style="{_aspect(question.seen)};'
        f'--columns:{len(question.answers)}">{figures}</section>'
    )


def _network(question: Question, answer: NetworkExplanation, colours: np.ndarray) -> str:
    explanation, segmenter = answer.explanation, answer.segmenter
    (width, height), name = question.size, escape(segmenter.name)
    label = escape(segmenter.labels[explanation.label])
    best = percent(float(explanation.probabilities[explanation.label]))
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
        ("Half of what counts is within", f"{half} px"),
        ("Can see", _field_text(answer)),
        ("Time", milliseconds(answer.seconds)),
    ]
    return (
        f"<figure><figcaption><strong>{name}: {label}</strong><span>{best} sure</span></figcaption>"
        f'<div class="fcn-ask-view" data-width="{width}" data-height="{height}"><img src="{heat}" '
        f'alt="The picture, bright where the answer {label} of {name} at x {question.x}, y {question.y} depends on it">'
        f'{field}<i class="fcn-cross" style="{place}"></i></div>'
        f"{_bars(explanation.probabilities, segmenter.labels, colours[segmenter.ids])}{fact_list(facts)}</figure>"
    )


def _field_text(answer: NetworkExplanation) -> str:
    reach, (height, width) = answer.explanation.reach, answer.explanation.network_size
    if reach is None:
        return "not known"
    return "the whole picture" if inf in reach else f"{reach[1]:.0f} × {reach[0]:.0f} px of {width} × {height}"


def inside_panels(segmenter: Segmenter, seen: Image.Image, steps: Sequence[RefinementStep], colours: np.ndarray) -> str:
    """The steps to a mask, one of which is shown; which one, radio buttons choose without the server.

    Args:
        segmenter: whose mask it is.
        seen: the picture, RGB, W x H.
        steps: their masks are (H, W), in the network's own ids.
        colours: of the classes of all networks that are shown together, uint8 of shape (classes, 3).
    """
    colours = colours[segmenter.ids]
    photo = data_uri(seen, "JPEG", quality=90)
    choices = "".join(
        f'<label><input type="radio" name="fcn-step" value="{index}"{" checked" if index == 0 else ""}>'
        f"{index + 1}. {TITLES[step.name]}</label>"
        for index, step in enumerate(steps)
    )
    stages = "".join(_stage(segmenter, step, index, colours) for index, step in enumerate(steps))
    return (
        f'<section class="fcn-inside" aria-label="Inside the network" style="--photo:url({photo});{_aspect(seen)}">'
        f"<fieldset><legend>{escape(segmenter.name)}, step by step</legend>{choices}</fieldset>{stages}</section>"
    )


TITLES = {
    "coarse": "As the network has it",
    "bilinear": "Plain bilinear",
    "upsampled": "Its own upsampling",
    "pool4": "Add pool4",
    "pool3": "Add pool3",
}

TEXTS = {
    "coarse": "The deepest layer knows what is there, but answers only once every {stride} pixels.",
    "bilinear": "Between those answers, plain bilinear interpolation: smooth, and no sharper.",
    "upsampled": "The same answers through the network’s own transposed convolutions, which begin as bilinear "
    "interpolation and can learn (CVPR, section 3.3).",
    "pool4": "Scores of an earlier layer are added, one every {stride} pixels: it has seen less, but knows better "
    "where (CVPR, section 4.2).",
    "pool3": "And those of a still earlier one, every {stride} pixels: this is the finished mask.",
}


def _stage(segmenter: Segmenter, step: RefinementStep, index: int, colours: np.ndarray) -> str:
    height, width, num_labels = step.scores_shape
    coarsest = round(segmenter.model.fcn.trunk.answer.position.scale)
    stride = {"pool4": 16, "pool3": 8}.get(step.name, coarsest)
    mask = data_uri(label_picture(step.mask, colours), "PNG")
    changed = data_uri(label_picture(np.where(step.changed, step.mask, UNLABELLED), colours), "PNG")
    share = percent(float(step.changed.mean()))
    title = TITLES[step.name]
    facts = [("Scores", f"{height} × {width} × {num_labels} classes"), ("Changed", share if index else "–")]
    change = (
        f'<figure><figcaption>What this step changed</figcaption><div class="fcn-layer fcn-dim"><img src="{changed}" '
        f'alt="The {share} of the pixels whose class this step changed, in their new colours"></div></figure>'
    )
    return (
        f'<div class="fcn-stage" data-step="{index}"><p>{escape(TEXTS[step.name].format(stride=stride))}</p>'
        f'<figure><figcaption>{title}</figcaption><div class="fcn-layer"><img src="{mask}" '
        f'alt="The mask of {escape(segmenter.name)} after step {index + 1}: {title}"></div></figure>'
        f"{change if index else ''}{fact_list(facts)}</div>"
    )


def answer_panel(square: Image.Image, probabilities: np.ndarray) -> str:
    """What the classifier says of a whole picture, once."""
    return (
        '<section class="fcn-answer" aria-label="One answer"><h2>A classifier: one answer</h2>'
        f'<div><img src="{data_uri(square, "JPEG", quality=90)}" alt="What the classifier sees, {WINDOW} by {WINDOW} '
        f'pixels">{_bars(probabilities, CLASSES)}</div></section>'
    )


def map_panel(answers: AnswerMap, index: int) -> str:
    """Where the classifier, convolutionalized, sees one of its classes."""
    heat = class_heat(answers, index)
    shown = data_uri(heat_overlay(answers.seen, heat), "JPEG", quality=90)
    (height, width), name = answers.shape, escape(CLASSES[index])
    probabilities = answers.probabilities[index]
    row, column = np.unravel_index(probabilities.argmax(), probabilities.shape)
    best = percent(float(probabilities.max()))
    middle = [
        (STRIDE * place + WINDOW / 2) / side for place, side in zip((column, row), answers.seen.size, strict=True)
    ]
    return (
        f'<section class="fcn-map" aria-label="A map of answers" style="{_aspect(answers.seen)}">'
        f"<h2>The same network, fully convolutional: {height} × {width} answers</h2>"
        f'<div class="fcn-ask-map"><img src="{shown}" alt="The picture, bright where a window shows {name}">'
        f'<i class="fcn-cross" style="left:{middle[0]:.4%};top:{middle[1]:.4%}"></i></div>'
        f"<p>Each square is the answer to the {WINDOW} × {WINDOW} pixels around it, {STRIDE} pixels from the next. "
        f"<strong>{name}</strong>: {best} where it is brightest, at the circle.</p></section>"
    )


def times_panel(answers: AnswerMap, crops_seconds: float, timed: int) -> str:
    """The time for a map of answers beside that for the same answers one by one, of which `timed` were measured."""
    count, longest = answers.shape[0] * answers.shape[1], max(answers.seconds, crops_seconds)
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td><i style="width:{seconds / longest:.2%}"></i></td>'
        f"<td>{milliseconds(seconds)}</td></tr>"
        for name, seconds in (("One pass", answers.seconds), (f"{count} crops", crops_seconds))
    )
    part = f" (the crops on the first {timed})" if timed < count else ""
    return (
        f'<table class="fcn-bars"><caption>The same {count} answers, measured on this server just now{part}: '
        f"{crops_seconds / answers.seconds:.1f} times quicker at once</caption>{rows}</table>"
    )


def _bars(probabilities: np.ndarray, labels: Sequence[str], colours: np.ndarray | None = None) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(labels[index])}</th>'
        f'<td><i style="width:{probabilities[index]:.2%}'
        f'{";background:" + hex_colour(colours[index]) if colours is not None else ""}"></i></td>'
        f"<td>{percent(float(probabilities[index]))}</td></tr>"
        for index in probabilities.argsort()[::-1][:TOP].tolist()
    )
    return f'<table class="fcn-bars"><caption>How sure of what</caption>{rows}</table>'


def _aspect(picture: Image.Image) -> str:
    return f"--aspect:{picture.width}/{picture.height}"
