"""The explaining tabs and the API's `/explain` and `/classify`: what stands where, and which event fills it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from fcn_hf.errors import FCNError
from fcn_hf.palettes import heat_overlay
from space.classifier import CLASSES, STRIDE, WINDOW, answer_map, class_heat, crops_seconds, one_answer
from space.devices import on_gpu
from space.explain import NetworkExplanation, ask, finest_fcn, heat_picture, look_inside
from space.explain_panels import answer_panel, inside_panels, map_panel, question_panels, times_panel
from space.kinds import Kind
from space.layout import I18N, say_on_failure
from space.panels import message, refusal
from space.pictures import read_picture
from space.texts import LANGUAGES
from space.uploads import NOT_UPLOADED, limited

REFRESH = "(picture) => { window.fcnRefresh(picture?.path); }"
"""What the browser does after a comparison: the tab that is seen, if it is one of these, asks again; of the same
picture only if its answer depends on the networks or the colours."""


@dataclass(frozen=True)
class Classified:
    """What the classifier's tab shows, by which its next answer tells what has changed.

    Args:
        path: of the picture; None without one.
        index: of the class whose map it is.
        times: as HTML; they take seconds to measure.
    """

    path: str | None = None
    index: int | None = None
    times: str = ""


class Explanations:
    """What the events call. Everything a request needs arrives as an argument; only models are shared.

    Args:
        kind: gives the kind of a name, or raises `FCNError`.
    """

    def __init__(self, kind: Callable[[str], Kind]):
        self.kind = kind

    def why(
        self, name: str, upload: dict[str, Any] | None, distinct: bool, x: Any, y: Any, code: str = "en"
    ) -> tuple[str, Any, Any]:
        """The explanation of one pixel as HTML, and what the fields of x and y are to hold: the nearest pixel where the
        picture is smaller, else what is in them, as the visitor may have typed on."""
        unchanged = (gr.skip(), gr.skip())
        if upload is None:
            return message(LANGUAGES[code]("choose_for_tab")), *unchanged
        try:
            kind, picture = self.kind(name), read_picture(upload["path"])
            asked = (whole(x), whole(y))
            pixel = [min(max(value, 0), side - 1) for value, side in zip(asked, picture.size, strict=True)]
            question = ask(kind, picture, *pixel)
        except FCNError as error:
            return refusal(error, LANGUAGES[code]), *unchanged
        x, y = (gr.skip() if value == before else value for value, before in zip(pixel, asked, strict=True))
        return question_panels(question, kind.palette(distinct), LANGUAGES[code]), x, y

    def inside(self, name: str, upload: dict[str, Any] | None, distinct: bool, code: str = "en") -> str:
        """The steps to the mask of the finest FCN, as HTML."""
        try:
            kind = self.kind(name)
            segmenter = finest_fcn(kind)
            if upload is None or segmenter is None:
                return message(LANGUAGES[code]("choose_for_tab" if segmenter else "no_fcn"))
            seen, steps = look_inside(segmenter, read_picture(upload["path"]))
            return inside_panels(segmenter, seen, steps, kind.palette(distinct), LANGUAGES[code])
        except FCNError as error:
            return refusal(error, LANGUAGES[code])

    def classified(
        self, upload: dict[str, Any] | None, chosen: Any, code: str, last: Classified
    ) -> tuple[str, Any, str, str, Classified]:
        """The classifier's one answer, what the choice of a class is to hold, the map of that class, and the times, as
        HTML; and what they are.

        All of it is shown anew, as a refusal by a full queue may have taken its place. The class is the one that the
        visitor chose or, for another picture, the classifier's.
        """
        language = LANGUAGES[code]
        if upload is None:
            return message(language("choose_for_tab")), None, "", "", Classified()
        try:
            picture = read_picture(upload["path"])
            square, probabilities = one_answer(picture)
            answers = answer_map(picture)
        except FCNError as error:
            return refusal(error, language), None, "", "", Classified()
        same = upload["path"] == last.path
        # What is chosen may be left from the last picture, or be chosen after this one was refused.
        known = isinstance(chosen, int) and chosen in range(len(CLASSES))
        kept = known and (same or chosen != last.index)
        index = chosen if kept else int(probabilities.argmax())
        times = last.times if same else times_panel(answers, *crops_seconds(answers), language)
        shown = Classified(upload["path"], index, times)
        # The visitor may have chosen on.
        choice = gr.skip() if kept else index
        return answer_panel(square, probabilities, language), choice, map_panel(answers, index, language), times, shown

    def explain(
        self, image: dict[str, Any] | None, kind: str, x: Any, y: Any
    ) -> tuple[list[tuple[Image.Image, str]], list[dict[str, Any]]]:
        """Say why every network of one kind of picture gives the pixel x, y (from the left and top, from 0) its class.

        Returns pictures that are bright where the class depends on them, and, per network, its name, model, class,
        probabilities by class (0..1), receptive field [left, top, right, bottom] in the picture's pixels (null for
        models that aren't FCNs), radius in pixels that holds half of what it depends on, and seconds.
        """
        if image is None:
            raise gr.Error(NOT_UPLOADED, print_exception=False)
        try:
            question = ask(self.kind(kind), read_picture(image["path"]), whole(x), whole(y))
        except FCNError as error:
            raise gr.Error(str(error), print_exception=False) from error
        pictures = [(heat_picture(question.seen, a.explanation), a.segmenter.name) for a in question.answers]
        scale = question.size[0] / question.seen.width
        return pictures, [explanation_summary(answer, scale) for answer in question.answers]

    def classify(self, image: dict[str, Any] | None, class_name: Any) -> tuple[Image.Image, dict[str, Any]]:
        """Say where an ImageNet classifier, convolutionalized, sees one of its 1000 classes (by name; without one, the
        class that it gives to the whole picture).

        Returns a picture that is bright where the class is probable, and the five most probable classes of the whole
        picture, the class, the map of its probabilities (0..1, by rows; windows of `window` pixels, `stride` pixels
        apart, in a picture of `size` [width, height]), and the seconds for the map and for the same answers by crops
        (from `crops_timed` of them).
        """
        if image is None:
            raise gr.Error(NOT_UPLOADED, print_exception=False)
        try:
            index = None if class_name in (None, "") else class_id(class_name)
            picture = read_picture(image["path"])
            _, probabilities = one_answer(picture)
            answers = answer_map(picture)
        except FCNError as error:
            raise gr.Error(str(error), print_exception=False) from error
        index = int(probabilities.argmax()) if index is None else index
        by_crops, timed = crops_seconds(answers)
        return heat_overlay(answers.seen, class_heat(answers, index)), {
            "top": {CLASSES[best]: float(probabilities[best]) for best in probabilities.argsort()[::-1][:5]},
            "class": CLASSES[index],
            "map": answers.probabilities[index].tolist(),
            "window": WINDOW,
            "stride": STRIDE,
            "size": answers.seen.size,
            "seconds": answers.seconds,
            "seconds_by_crops": by_crops,
            "crops_timed": timed,
        }


def explanation_summary(answer: NetworkExplanation, scale: float) -> dict[str, Any]:
    """What `/explain` says of one network; `scale` is the picture's pixels by those that networks see."""
    explanation, segmenter = answer.explanation, answer.segmenter
    return {
        "name": segmenter.name,
        "model": segmenter.source,
        "class": segmenter.labels[explanation.label],
        "probabilities": dict(zip(segmenter.labels, explanation.probabilities.tolist(), strict=True)),
        "receptive_field": answer.receptive_field,
        "half_within": round(explanation.radius() * scale),
        "seconds": round(answer.seconds, 5),
    }


def whole(value: Any) -> int:
    """A coordinate as a client sent it.

    Raises:
        FCNError: it isn't a whole number.
    """
    if isinstance(value, bool) or not (isinstance(value, int) or isinstance(value, float) and value.is_integer()):
        raise FCNError(f"x and y are whole numbers, counted from the picture's left and top; not {str(value)[:40]!r}.")
    return int(value)


def class_id(name: Any) -> int:
    """The id of an ImageNet class.

    Raises:
        FCNError: there is none of this name.
    """
    if name in CLASSES:
        return CLASSES.index(name)
    close = difflib.get_close_matches(str(name)[:40], CLASSES, 3)
    raise FCNError(f"ImageNet has no class {str(name)[:40]!r}; like it: {', '.join(close) or 'none'}.")


def explain_tabs(
    handlers: Explanations,
    kind: gr.Radio,
    picture: gr.Image,
    distinct: gr.Checkbox,
    pixel: tuple[int, int],
    networks: dict[str, Any],
    code: gr.State,
) -> tuple[gr.Number, gr.Number]:
    """The explaining tabs, to be called inside `gr.Tabs`, about the page's kind and picture, in its colours.

    Args:
        pixel: x and y of the first question.
        networks: settings of all events that make networks work.
        code: of the visitor's language.

    Returns:
        The fields of x and y.
    """
    hidden: dict[str, Any] = {
        "preprocess": False,
        "trigger_mode": "always_last",
        "api_visibility": "private",
        **networks,
    }
    recoloured = ["fcn-refresh", "fcn-recolour"]

    with gr.Tab(I18N("why"), id="why", elem_classes="fcn-tab") as why_tab:
        gr.HTML(I18N("why_text"), apply_default_css=False)
        with gr.Row(elem_id="fcn-ask"):
            x = gr.Number(pixel[0], label=I18N("x"), precision=0, elem_id="fcn-x", min_width=120)
            y = gr.Number(pixel[1], label=I18N("y"), precision=0, elem_id="fcn-y", min_width=120)
            button = gr.Button(I18N("ask"), variant="primary", elem_classes=recoloured, min_width=160)
        why = gr.HTML(apply_default_css=False)
    asked = gr.on(
        [why_tab.select, button.click, x.submit, y.submit],
        limited(on_gpu(handlers.why)),
        [kind, picture, distinct, x, y, code],
        [why, x, y],
        show_progress_on=why,
        **hidden,
    )

    with gr.Tab(I18N("inside"), id="inside", elem_classes="fcn-tab") as inside_tab:
        gr.HTML(I18N("inside_text"), apply_default_css=False)
        again = gr.Button(I18N("look_again"), visible="hidden", elem_classes=recoloured)
        inside = gr.HTML(apply_default_css=False)
    looked = gr.on(
        [inside_tab.select, again.click],
        limited(on_gpu(handlers.inside)),
        [kind, picture, distinct, code],
        inside,
        **hidden,
    )

    with gr.Tab(I18N("classifier"), id="classifier", elem_classes="fcn-tab") as classifier_tab:
        gr.HTML(I18N("classifier_text"), apply_default_css=False)
        again = gr.Button(I18N("classify_again"), visible="hidden", elem_classes="fcn-refresh")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                answer = gr.HTML(apply_default_css=False)
                times = gr.HTML(apply_default_css=False)
            with gr.Column(scale=3, min_width=280):
                choice = gr.Dropdown(
                    [(name, index) for index, name in enumerate(CLASSES)],
                    value=None,
                    label=I18N("class_choice"),
                    elem_id="fcn-class-choice",
                )
                class_map = gr.HTML(apply_default_css=False)
    shown = gr.State(Classified())
    # One event, as two would let the map of an older picture's class land after a newer picture was refused.
    classified = gr.on(
        [classifier_tab.select, again.click, choice.input],
        limited(handlers.classified),
        [picture, choice, code, shown],
        [answer, choice, class_map, times, shown],
        show_progress_on=[answer, class_map],
        **hidden,
    )

    for event, outputs in (
        (asked, [why]),
        (looked, [inside]),
        (classified, [answer, class_map, times]),
    ):
        say_on_failure(event, "not_answered", outputs)
    return x, y


def explain_api(handlers: Explanations, kinds: list[tuple[str, str]], networks: dict[str, Any]) -> None:
    """The named endpoints, to be called inside the page's blocks; they are no part of what is seen."""
    with gr.Group(visible=False):
        gr.Button().click(
            limited(on_gpu(handlers.explain)),
            [
                gr.Image(label="image", type="filepath"),
                gr.Radio(kinds, value=kinds[0][1], label="kind"),
                gr.Number(label="x", precision=0),
                gr.Number(label="y", precision=0),
            ],
            [gr.Gallery(label="dependence", format="png"), gr.JSON(label="explanations")],
            preprocess=False,
            api_name="explain",
            **networks,
        )
        gr.Button().click(
            limited(handlers.classify),
            [gr.Image(label="image", type="filepath"), gr.Textbox("", label="class_name")],
            [gr.Image(label="map", format="png"), gr.JSON(label="answers")],
            preprocess=False,
            api_name="classify",
            **networks,
        )
