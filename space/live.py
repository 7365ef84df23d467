"""The tab "Live": the quickest network on a camera's pictures, one at a time, and how many of them a second."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from fcn_hf.image_inputs_fcn import read_rgb
from fcn_hf.palettes import overlay
from space.devices import on_gpu
from space.inference import Segmenter, shares
from space.kinds import Kind
from space.layout import I18N
from space.panels import data_uri, hex_colour, message, percent
from space.pictures import shrink
from space.texts import ENGLISH, LANGUAGES, Language
from space.uploads import limited
from space.waiting import LIVE

LIVE_SECONDS = 120
"""After which a camera makes room for others."""

FRAME_SECONDS = 0.2
"""Between two pictures that the browser sends; those that come while one is computed replace each other."""

LONGEST_SIDE = 640
MAX_PIXELS = 4_000_000

COUNTED = 8
"""The last answers, over which the rate is measured."""

PAUSE = 15
"""Seconds without a picture after which the rate is measured anew."""

STOP = "() => { window.fcnStopCamera(); return (%s)[fcn.language]; }"


class Live:
    """What the event calls; arguments are those of `space.downloads.Downloads`."""

    def __init__(self, kind: Callable[[str], Kind]):
        self.kind = kind

    def show(
        self,
        name: str,
        image: dict[str, Any],
        distinct: bool,
        opacity: float,
        answered: tuple[float, ...],
        code: str = "en",
    ) -> tuple[str, str, tuple[float, ...]]:
        """What is seen in one picture of the camera as HTML, no sentence below the camera, and when the last pictures
        were answered (seconds)."""
        try:
            picture = shrink(read_rgb(image["url"], "The camera's picture", MAX_PIXELS), LONGEST_SIDE)
            kind = self.kind(name)
            segmenter = quickest(kind)
            mask = replace(segmenter, passes=1).segment(picture).mask
        except ValueError as error:
            raise gr.Error(f"{str(error).rstrip('.')}.", print_exception=False) from error
        colours = kind.palette(distinct)
        laid_over = data_uri(overlay(picture, mask, colours, opacity / 100), "JPEG", quality=90, subsampling=0)
        now = time.monotonic()
        answered = (*(answered if answered and now - answered[-1] < PAUSE else ()), now)[-COUNTED:]
        panel = live_panel(segmenter, laid_over, picture.size, mask, colours, rate(answered), LANGUAGES[code])
        return panel, "", answered


def quickest(kind: Kind) -> Segmenter:
    """The network with the fewest scores to bring up: the largest stride, and of those the fewest parameters."""
    return min(kind.segmenters, key=lambda segmenter: (-(segmenter.stride or 0), segmenter.parameters))


def rate(answered: tuple[float, ...]) -> float | None:
    """Answers a second; None before there are `COUNTED`: two may come close together, one of them late."""
    return (COUNTED - 1) / (answered[-1] - answered[0]) if len(answered) == COUNTED else None


def live_panel(
    segmenter: Segmenter,
    laid_over: str,
    size: tuple[int, int],
    mask: np.ndarray,
    colours: np.ndarray,
    frames: float | None,
    language: Language = ENGLISH,
) -> str:
    """The overlay (a data URI) with its network's name, the rate, and the colours of what is seen."""
    width, height = size
    each = zip(segmenter.classes, shares(mask, segmenter.classes).values(), colours.tolist(), strict=True)
    seen = [(name, share, colour) for name, share, colour in each if share > 0]
    items = "".join(
        f'<li data-colour="{",".join(map(str, colour))}"><i style="background:{hex_colour(colour)}"></i>'
        f"{escape(name)} <b>{percent(share, language)}</b></li>"
        for name, share, colour in seen
    )
    text = language("live_moment" if frames is None else "live_rate", rate=language.number(f"{frames or 0:.1f}"))
    return (
        f'<figure class="fcn-live"><img src="{laid_over}" width="{width}" height="{height}" '
        f'alt="{language("live_alt", name=escape(segmenter.name))}">'
        f"<figcaption><strong>{escape(segmenter.name)}</strong> <span>{text}</span></figcaption>"
        f"<ul>{items}</ul></figure>"
    )


def live_tab(handlers: Live, kind: gr.Radio, distinct: gr.Checkbox, opacity: gr.Slider, code: gr.State) -> None:
    """The tab, to be called inside `gr.Tabs`, for the page's kind, in its colours at its opacity; `code` is of the
    visitor's language."""
    with gr.Tab(I18N("live"), id="live", elem_classes="fcn-tab"):
        gr.HTML(I18N("live_text"), apply_default_css=False)
        with gr.Row():
            with gr.Column(min_width=280):
                camera = gr.Image(
                    sources=["webcam"],
                    streaming=True,
                    label=I18N("live_camera"),
                    alt_text="What your camera shows",
                    buttons=[],
                    height=320,
                    # A phone takes the camera at its back; the button beside "Record" has the others.
                    webcam_options=gr.WebcamOptions(
                        mirror=False,
                        constraints={"video": {"facingMode": "environment", "width": {"ideal": LONGEST_SIDE}}},
                    ),
                    elem_id="fcn-camera",
                )
                sentence = gr.HTML(apply_default_css=False)
            with gr.Column(min_width=280):
                shown = gr.HTML(I18N("live_hint_text"), apply_default_css=False, elem_id="fcn-live")
        answered = gr.State(())
    streamed = camera.stream(
        limited(on_gpu(handlers.show)),
        [kind, camera, distinct, opacity, answered, code],
        [shown, sentence, answered],
        preprocess=False,
        stream_every=FRAME_SECONDS,
        time_limit=LIVE_SECONDS,
        show_progress="hidden",
        api_visibility="private",
        **LIVE,
    )
    # Gradio's camera goes on by itself when its stream has ended.
    for follow, key, tone in (
        (streamed.success, "live_stopped", "hint"),
        (streamed.failure, "live_not_shown", "error"),
    ):
        texts = {code: message(language(key, minutes=LIVE_SECONDS // 60), tone) for code, language in LANGUAGES.items()}
        follow(None, None, sentence, js=STOP % json.dumps(texts), api_visibility="private")
