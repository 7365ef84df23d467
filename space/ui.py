"""The page: what stands where, and which event fills it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from fcn_hf.errors import FCNError
from fcn_hf.palettes import label_picture, overlay
from space.comparison import Comparison, compare
from space.devices import on_gpu
from space.disagreement import disagreement
from space.downloads import Downloads, label_map_button, summary, zip_button
from space.explain_ui import REFRESH, Explanations, explain_api, explain_tabs
from space.inference import ModelError
from space.kinds import KINDS, Kind, load_kinds, model_ids
from space.layout import I18N, say_on_failure
from space.links import Opening
from space.live import Live, live_tab
from space.many import Many, many_tab
from space.models_ui import models_accordion
from space.panels import comparison, message, model_panel, refusal, truth_panel
from space.pictures import PictureError, TruthError, browser_copy, has_several_frames, read_picture
from space.serving import address
from space.texts import ENGLISH, LANGUAGES, Language, request_language
from space.typed_models import TypedModels, are_allowed, is_home
from space.uploads import MAX_UPLOAD_BYTES, NOT_UPLOADED, UploadsOnly, limited, uploaded
from space.waiting import NETWORKS, AttendedQueue

DEFAULT_OPACITY = 60
API_OPACITY = DEFAULT_OPACITY / 100

MAX_WAITING = 20
"""Requests that may wait: about as many as are served within a minute. The next one is told that the queue is full."""

KEPT_SECONDS = 3600
"""Age at which uploaded files and results of the API are deleted."""

SET_OPACITY = """(value) => {
  if (!Number.isFinite(value)) return;
  document.documentElement.style.setProperty('--fcn-opacity', Math.min(100, Math.max(0, value)) / 100);
}"""

Captioned = list[tuple[Image.Image, str]]
"""Pictures with the name of the network that made them, as `gr.Gallery` takes them."""


@dataclass(frozen=True)
class Answered:
    """What the last comparison was asked for, by which the next one tells what has changed.

    Args:
        kind: name of the kind of picture.
        path: of the picture; None without one.
        instead: what the picture field is to hold in place of that picture.
    """

    kind: str
    path: str | None
    instead: Any = field(default_factory=gr.skip)


class Handlers:
    """What the events call. Everything a request needs arrives as an argument; only models and examples are shared.

    Args:
        kinds: those of the page.
        typed: loads those that visitors type in; None where they may not.
    """

    def __init__(self, kinds: Sequence[Kind], typed: TypedModels | None = None):
        self.kinds, self.typed = {kind.name: kind for kind in kinds}, typed

    @cached_property
    def opened(self) -> dict[str, str]:
        """The comparison with which the page opens, of the first kind's first example, by language."""
        kind = next(iter(self.kinds.values()))
        if not kind.examples.paths:
            return {code: message(language("choose")) for code, language in LANGUAGES.items()}
        # The first passes of a process load and compile: theirs aren't the times to show when the page is opened.
        compare(kind, kind.examples.paths[0])
        result = compare(kind, kind.examples.paths[0])
        return {code: self._drawn(kind, result, False, language) for code, language in LANGUAGES.items()}

    def kind(self, name: str) -> Kind:
        """One of the page's kinds, or the models that a name consists of.

        Raises:
            ModelError: there is none, or its models can't be loaded.
        """
        if name in self.kinds:
            return self.kinds[name]
        if self.typed is None:
            raise ModelError(f"There is no kind of picture {name[:40]!r}, but: {', '.join(self.kinds)}.")
        return self.typed.kind(name)

    def show_chosen(
        self,
        name: str,
        upload: dict[str, Any] | None,
        distinct: bool,
        truth: dict[str, Any] | None,
        code: str,
        last: Answered,
    ) -> tuple[Any, Any, Answered]:
        """The comparison of all that is chosen, what the field of the truth is to hold, and what this is the answer to.

        What has changed is told from `last`: of several events while one waits, only the last one is sent.
        """
        path, instead, taken = path_of(upload), gr.skip(), gr.skip()
        if path != last.path:
            instead, shown, taken = self.show_upload(name, upload, distinct, truth, code)
        elif name != last.kind:
            instead, shown, taken = self.choose(name, upload, distinct, truth, code)
        else:
            shown = self.show(name, path, distinct, path_of(truth), code)
        return shown, taken, Answered(name, path, instead)

    def replace(self, name: str, upload: dict[str, Any] | None, last: Answered) -> Any:
        """What the picture field is to hold after an answer: not what came too late, as something else is chosen."""
        return last.instead if (name, path_of(upload)) == (last.kind, last.path) else gr.skip()

    def show_upload(
        self,
        name: str,
        upload: dict[str, Any] | None,
        distinct: bool,
        truth: dict[str, Any] | None = None,
        code: str = "en",
    ) -> tuple[Any, Any, Any]:
        """What the picture field is to hold, the comparison of it, and what the field of the truth is to hold; `upload`
        and `truth` are Gradio's file data, or None; `code` is the visitor's language.

        For a picture that browsers can't show, the field gets a copy that they can; that change is the next event.
        """
        path = path_of(upload)
        if path and has_several_frames(path):
            gr.Info(LANGUAGES[code]("several_frames"))
        try:
            copy = browser_copy(path, MAX_UPLOAD_BYTES) if path else None
        except PictureError:
            copy = None
        taken = without(truth, code)
        if copy is not None:
            return str(copy), gr.skip(), taken
        return gr.skip(), self.show(name, path, distinct, code=code), taken

    def show(
        self, name: str, path: str | None, distinct: bool = False, truth: str | None = None, code: str = "en"
    ) -> str:
        """The comparison of one picture as HTML, or a sentence that says what is wrong with it; `distinct` asks for the
        colours that colour-blind eyes tell apart. Below a sentence on a wrong truth there is the comparison without."""
        language = LANGUAGES[code]
        if path is None:
            return message(language("choose"))
        try:
            kind = self.kind(name)
            result = compare(kind, path, truth)
        except TruthError as error:
            gr.Warning(language.sentence(str(error)))
            return refusal(error, language) + self.show(name, path, distinct, code=code)
        except FCNError as error:
            gr.Warning(language.sentence(str(error)))
            return refusal(error, language)
        return self._drawn(kind, result, distinct, language)

    def _drawn(self, kind: Kind, result: Comparison, distinct: bool, language: Language) -> str:
        # Only a truth has more to say than networks have seen.
        results = result.seen_results if result.truth is None else result.results
        each = zip(kind.segmenters, results, result.scores, result.boundary_scores, strict=True)
        panels = [model_panel(*parts, language) for parts in each]
        labels = kind.labels
        masks, names = [one.mask for one in results], [segmenter.name for segmenter in kind.segmenters]
        if result.truth is not None:
            panels.append(truth_panel(result.truth, labels, language))
        found = disagreement(masks, names, result.truth, language)
        place = (kind.name, kind.examples.number(result.picture)) if kind.name in self.kinds else ("", None)
        colours, size = kind.palette(distinct), result.picture.size
        return comparison(result.seen, panels, labels, colours, found, *place, language, size)

    def gallery(self, name: str) -> gr.Dataset:
        """The examples of a kind of picture; none of one that isn't loaded, as nothing may be loaded past the queue."""
        paths = [str(path) for path in self._examples(name)]
        return gr.Dataset(samples=[[path] for path in paths], visible=bool(paths))

    def choose(
        self,
        name: str,
        upload: dict[str, Any] | None,
        distinct: bool,
        truth: dict[str, Any] | None = None,
        code: str = "en",
    ) -> tuple[Any, Any, Any]:
        """For another kind of picture: its first example, if it has one, in place of another kind's, or a visitor's own
        picture by its networks. What the fields are to hold is as in `show_upload`."""
        paths = self._examples(name)
        if (paths or name in self.kinds) and (upload is None or self.is_example(upload["path"])):
            shown = gr.skip() if paths else self.show(name, None, code=code)
            return str(paths[0]) if paths else None, shown, without(truth, code)
        return gr.skip(), self.show(name, path_of(upload), distinct, code=code), without(truth, code)

    def example(self, name: str, index: int) -> str:
        """The path of one of a kind's examples."""
        paths = self._examples(name)
        if not isinstance(index, int) or index not in range(len(paths)):
            raise gr.Error(f"There is no example {str(index)[:40]!r}.", print_exception=False)
        return str(paths[index])

    def reopen(self, request: gr.Request) -> list[Any]:
        """The browser's language, the first comparison in it, and kind, its examples, picture, x and y as the page's
        address asks for them."""
        code = request_language(request).code
        said = [code, gr.skip() if code == ENGLISH.code else self.opened[code]]
        opening = Opening.from_query(request.query_params, self.kinds)
        if opening is None:
            return [*said, *[gr.skip()] * 5]
        path = str(opening.path) if opening.path else None
        x, y = opening.pixel or (gr.skip(), gr.skip())
        return [*said, opening.kind, self.gallery(opening.kind), path, x, y]

    def is_example(self, path: str) -> bool:
        try:
            picture = read_picture(path)
        except PictureError:
            return False
        return any(picture in kind.examples for kind in self.kinds.values())

    def _examples(self, name: str) -> tuple[Path, ...]:
        kind = self.kinds[name] if name in self.kinds else self.typed and self.typed.ready(name)
        return kind.examples.paths if kind else ()

    def answer(
        self, image: dict[str, Any] | None, kind: str, truth: dict[str, Any] | None = None
    ) -> tuple[Captioned, Captioned, list[dict[str, Any]]]:
        """Segment one picture with every network of one kind of picture ("everyday", "street", "indoor"; or one to four
        models, as "owner/name,owner/other").

        Returns the overlays, the label maps (PNG whose pixel values are the class ids) and, per network, its name,
        model, seconds, parameters, share of each class (0..1), mean IoU and boundary F1 (0..1; null unless the truth, a
        label map like these, is sent too or the picture is an example).
        """
        if image is None:
            raise gr.Error(NOT_UPLOADED, print_exception=False)
        try:
            networks = self.kind(kind)
            result = compare(networks, image["path"], path_of(truth))
        except FCNError as error:
            raise gr.Error(str(error), print_exception=False) from error
        segmenters, colours = networks.segmenters, networks.palette()
        named = list(zip(segmenters, result.results, strict=True))
        overlays = [(overlay(result.picture, r.mask, colours, API_OPACITY), s.name) for s, r in named]
        label_maps = [(label_picture(r.mask, colours), s.name) for s, r in named]
        return overlays, label_maps, summary(segmenters, result)


def path_of(upload: dict[str, Any] | None) -> str | None:
    """Where an uploaded file is; `upload` is Gradio's file data, or None."""
    return upload["path"] if upload else None


def without(truth: dict[str, Any] | None, code: str) -> Any:
    """What the field of the truth is to hold when picture or classes are others: nothing, and the visitor is told, in
    the language of this code."""
    if truth is None:
        return gr.skip()
    gr.Info(LANGUAGES[code]("truth_taken"))
    return None


def build() -> gr.Blocks:
    """Load the models and lay out the page.

    Raises:
        ModelError: the models of `FCN_MODELS` can't be loaded or don't fit together.
    """
    kinds = load_kinds(model_ids())
    handlers = Handlers(kinds, TypedModels(is_home(address()[0])) if are_allowed() else None)
    paths = [str(path) for path in kinds[0].examples.paths]
    first = paths[0] if paths else None
    width, height = read_picture(first).size if first else (0, 0)
    choices = [(kind.title, kind.name) for kind in kinds]
    titles = [(I18N(f"kind_{kind.name}") if kind.name in KINDS else kind.title, kind.name) for kind in kinds]

    with UploadsOnly(title="FCN: every pixel gets a name", delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        code = gr.State(ENGLISH.code)
        gr.HTML(I18N("header_text"), apply_default_css=False)
        kind = gr.Radio(
            titles,
            value=kinds[0].name,
            label=I18N("kind"),
            visible=len(kinds) > 1,
            elem_id="fcn-kind",
        )
        loading = models_accordion(handlers.typed, kind, titles, code) if handlers.typed else None
        with gr.Row(elem_id="fcn-controls"):
            picture = gr.Image(
                value=first,
                image_mode=None,
                type="filepath",
                sources=["upload", "clipboard", "webcam"],
                label=I18N("your_picture"),
                alt_text="The picture that is coloured below",
                placeholder=str(I18N("drop")),
                buttons=[],
                height=250,
                elem_id="fcn-picture",
                scale=2,
                min_width=280,
            )
            with gr.Column(scale=3, min_width=280):
                gallery = gr.Dataset(
                    components=[picture],
                    samples=[[path] for path in paths],
                    label=I18N("examples"),
                    type="index",
                    layout="gallery",
                    visible=bool(paths),
                    elem_id="fcn-examples",
                )
                opacity = gr.Slider(
                    0,
                    100,
                    DEFAULT_OPACITY,
                    step=1,
                    label=I18N("opacity"),
                    elem_id="fcn-opacity",
                    buttons=[],
                )
                distinct = gr.Checkbox(
                    label=I18N("distinct"),
                    elem_id="fcn-distinct",
                    container=False,
                )
                with gr.Accordion(I18N("truth"), open=False, elem_id="fcn-truth"):
                    truth = gr.Image(
                        image_mode=None,
                        type="filepath",
                        sources=["upload", "clipboard"],
                        label=I18N("truth_field"),
                        placeholder=str(I18N("truth_drop")),
                        buttons=[],
                        height=170,
                    )
                gr.HTML(I18N("hint_text"), apply_default_css=False)
        downloads = Downloads(handlers.kind, page.delete_later)
        explanations = Explanations(handlers.kind)
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab(I18N("compare"), id="compare"):
                gr.HTML(I18N("tools_text"), apply_default_css=False)
                results = gr.HTML(handlers.opened[ENGLISH.code], apply_default_css=False, elem_id="fcn-comparison")
                zip_button(downloads.everything, [kind, picture, distinct, opacity, truth], **NETWORKS)
                of_panel = [kind, picture, distinct, truth]
                label_map_button(downloads.label_map, of_panel, show_progress_on=results, **NETWORKS)
            many_tab(Many(handlers.kind, page.delete_later), kind, distinct, opacity, code)
            live_tab(Live(handlers.kind), kind, distinct, opacity, code)
            middle = (width // 2, height // 2)
            x, y = explain_tabs(explanations, kind, picture, distinct, middle, NETWORKS, code)
        gr.HTML(I18N("explanation_text"), apply_default_css=False)

        again = gr.Button(visible="hidden", elem_id="fcn-compare-again")
        last = gr.State(Answered(kinds[0].name, uploaded(picture.value) if first else None))
        # All that changes a comparison is one event, so that no older answer lands after a newer one was refused.
        compared = gr.on(
            [picture.change, kind.input, again.click, distinct.input, truth.upload, truth.clear],
            limited(on_gpu(handlers.show_chosen)),
            [kind, picture, distinct, truth, code, last],
            [results, truth, last],
            # Hands over the uploaded file as it is: Gradio's own opening of it would answer a damaged one with a bare
            # "Error", where `read_picture` says what is wrong.
            preprocess=False,
            trigger_mode="always_last",
            show_progress_on=results,
            api_visibility="private",
            **NETWORKS,
        )
        past: dict[str, Any] = {"preprocess": False, "queue": False, "api_visibility": "private"}
        replaced = compared.success(handlers.replace, [kind, picture, last], picture, **past)
        say_on_failure(compared, "not_shown", [results])
        # Masks and explanations of another picture must not stay below this one. Gradio's `then` doesn't follow a
        # failure.
        for follow in (replaced.success, compared.failure):
            follow(None, picture, None, js=REFRESH, api_visibility="private")
        # Past the queue, so that a full one leaves no examples of another kind.
        kind.input(handlers.gallery, kind, gallery, **past)
        if loading:
            loaded, text = loading
            # The choice of `kind` isn't there yet in each browser when models are loaded; it is when examples are.
            offered = loaded.success(handlers.gallery, text, gallery, **past)
            click = "() => { document.querySelector('#fcn-compare-again').click(); }"
            offered.success(None, None, None, js=click, api_visibility="private")
        gallery.click(handlers.example, [kind, gallery], picture, **past)
        opacity.input(None, opacity, None, js=SET_OPACITY, api_visibility="private")
        asked_for = [code, results, kind, gallery, picture, x, y]
        quietly: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        reopened = page.load(handlers.reopen, None, asked_for, **quietly)
        reopen = "(picture) => { fcn.picture = picture?.path; fcn.reopen(); }"
        reopened.success(None, picture, None, js=reopen, api_visibility="private")

        with gr.Group(visible=False):
            gr.Button().click(
                limited(on_gpu(handlers.answer)),
                [
                    gr.Image(label="image", type="filepath"),
                    gr.Radio(choices, value=kinds[0].name, label="kind"),
                    gr.Image(label="truth", type="filepath"),
                ],
                [
                    gr.Gallery(label="overlays", format="png"),
                    gr.Gallery(label="label_maps", format="png"),
                    gr.JSON(label="summary"),
                ],
                preprocess=False,
                api_name="compare",
                **NETWORKS,
            )
        explain_api(explanations, choices, NETWORKS)
    page.hide_private_events()
    # `api_open=False`: no request passes by the queue.
    page.queue(max_size=MAX_WAITING, api_open=False)
    page._queue = AttendedQueue.in_place_of(page._queue)
    return page
