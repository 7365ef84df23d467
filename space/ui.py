"""The page: what stands where, and which event fills it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from space.devices import on_gpu
from space.downloads import Downloads, label_map_button, zip_button
from space.explain_ui import REFRESH, Explanations, explain_api, explain_tabs
from space.handlers import DEFAULT_OPACITY, Answered, Handlers
from space.kinds import KINDS, load_kinds, model_ids
from space.layout import I18N, say_on_failure
from space.live import Live, live_tab
from space.many import Many, many_tab
from space.models_ui import models_accordion
from space.pictures import read_picture
from space.serving import address
from space.texts import ENGLISH
from space.typed_models import TypedModels, are_allowed, is_home
from space.uploads import UploadsOnly, limited, uploaded
from space.waiting import NETWORKS, AttendedQueue

MAX_WAITING = 20
"""Requests that may wait: about as many as are served within a minute. The next one is told that the queue is full."""

KEPT_SECONDS = 3600
"""Age at which uploaded files and results of the API are deleted."""

SET_OPACITY = """(value) => {
  if (!Number.isFinite(value)) return;
  document.documentElement.style.setProperty('--fcn-opacity', Math.min(100, Math.max(0, value)) / 100);
}"""


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
