"""One comparison as HTML: panels side by side, the shared legend, the table of class shares.

Pictures travel inside the page as data URIs: no request's picture has an address that another visitor could fetch, and
the opacity slider and the legend act on the layers in the browser, without a round trip.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from fcn_hf.palettes import distinct_palette, label_picture
from space.disagreement import Disagreement
from space.inference import Segmentation, Segmenter, shares
from space.pictures import UNLABELLED, shrink
from space.texts import ENGLISH, Language

DISPLAY_SIDE = 1024
"""Pixels along the longest side of what is shown; a panel is 300-600 CSS pixels wide. Downloads have the full size."""

LEGEND_LIMIT = 24
"""Label sets larger than this show only the classes that occur, or the legend would bury the panels."""

SMALLEST_SHARE = 0.0005
"""Classes that cover less than this everywhere (shown as 0.0 %) are left out of the table."""


NONE_RIGHT = (224, 64, 0)
"""Colour of the pixels where no network is right, or the first kind of disagreement: a red for all kinds of eyes."""


@dataclass(frozen=True)
class Panel:
    """One column of the comparison.

    Args:
        name: caption.
        note: a few words under the caption.
        mask: (H, W) class ids.
        shares: class name -> 0..1.
        facts: (term, value) pairs.
    """

    name: str
    note: str
    mask: np.ndarray
    shares: dict[str, float]
    facts: tuple[tuple[str, str], ...]


def model_panel(
    segmenter: Segmenter,
    result: Segmentation,
    score: float | None,
    boundary_score: float | None = None,
    language: Language = ENGLISH,
) -> Panel:
    """The panel of one network; the scores are its mean IoU and boundary F1 (0..1) on the ground truth, where there is
    one."""
    facts = [
        (language("time"), milliseconds(result.seconds, language)),
        (language("parameters"), quantity(segmenter.parameters, language)),
    ]
    if score is not None:
        facts.append((language("mean_iou"), percent(score, language)))
    if boundary_score is not None:
        facts.append((language("boundary_f1"), percent(boundary_score, language)))
    note = language("stride_note", stride=segmenter.stride) if segmenter.stride else segmenter.source
    if len(segmenter.labels) < len(segmenter.classes):
        note += language("classes_known", known=len(segmenter.labels), all=len(segmenter.classes))
    return Panel(segmenter.name, note, result.mask, result.shares, tuple(facts))


def truth_panel(truth: np.ndarray, labels: Sequence[str], language: Language = ENGLISH) -> Panel:
    """The panel of a ground truth."""
    facts = ((language("labelled"), percent(float((truth != UNLABELLED).mean()), language)),)
    return Panel(language("ground_truth"), language("truth_note"), truth, shares(truth, labels), facts)


def comparison(
    picture: Image.Image,
    panels: Sequence[Panel],
    labels: Sequence[str],
    colours: np.ndarray,
    disagreement: Disagreement | None = None,
    kind: str = "",
    example: int | None = None,
    language: Language = ENGLISH,
    size: tuple[int, int] | None = None,
) -> str:
    """All of it: legend, panels, one over the other, disagreement, shares.

    Args:
        picture: RGB.
        panels: one per network, and the ground truth last where there is one; masks are of the picture's shape, at any
            size.
        labels: class names in id order.
        colours: (len(labels), 3) uint8.
        disagreement: of the networks.
        kind: name of the kind of picture.
        example: which of its examples the picture is, counted from 1; None for a picture of the visitor's own.
        language: of the texts; the panels' own are in theirs.
        size: (width, height) of the picture as it was sent, in whose pixels places are named; that of `picture` if not
            given.
    """
    width, height = size or picture.size
    shown = shrink(picture, DISPLAY_SIDE)
    photo = data_uri(shown, "JPEG", quality=90)
    present = np.array([any(panel.shares[name] > 0 for panel in panels) for name in labels])
    keep = present if len(labels) > LEGEND_LIMIT else np.ones_like(present)
    kept = [name for name, wanted in zip(labels, keep, strict=True) if wanted]
    figures = "".join(_figure(panel, shown.size, labels, colours, language) for panel in panels)
    closer = _slide(panels, language) + (_disagreement(disagreement, shown.size, language) if disagreement else "")
    content = (
        f'{legend(kept, colours[keep], language)}<div class="fcn-panels">{figures}</div>'
        f'<output class="fcn-said" aria-live="polite"></output><div class="fcn-closer">{closer}</div>'
        f"{_share_table(panels, labels, colours, language)}"
    )
    # The digests tell the browser whether this is another comparison, and of another picture.
    return (
        f'<section class="fcn-results" aria-label="{language("comparison")}" '
        f'data-comparison="{_digest(photo + content)}" data-picture="{_digest(photo)}" '
        f'data-kind="{escape(kind)}" data-example="{example or ""}" '
        f'data-width="{width}" data-height="{height}" '
        f'style="--photo:url({photo});--aspect:{width}/{height};--columns:{len(panels)}">'
        f"{content}</section>"
    )


def message(text: str, kind: str = "hint") -> str:
    """A sentence in place of a comparison: `kind` is "hint" or "error"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="fcn-message fcn-{kind}" role="{role}">{escape(text)}</div>'


def refusal(error: Exception, language: Language) -> str:
    """What is wrong with a request, in place of its answer."""
    return message(language.sentence(str(error)), "error")


def data_uri(image: Image.Image, format: str, **options: int) -> str:
    """A picture as text that a page can hold, so that nobody else's request can fetch it."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def hex_colour(colour: Sequence[int]) -> str:
    """`#rrggbb`, for CSS."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def legend(labels: Sequence[str], colours: np.ndarray, language: Language = ENGLISH) -> str:
    """The legend shared by all panels: one button per class, which shows this class alone while it is pointed at."""
    buttons = "".join(
        f'<button type="button" class="fcn-class" aria-pressed="false" data-name="{escape(name)}" '
        f'data-colour="{",".join(map(str, colour))}">'
        f'<i style="background:{hex_colour(colour)}"></i>{escape(name)}</button>'
        for name, colour in zip(labels, colours, strict=True)
    )
    return f'<div class="fcn-legend" role="group" aria-label="{language("legend")}">{buttons}</div>'


def percent(value: float, language: Language = ENGLISH) -> str:
    """0.6234 -> "62.3 %"; an undefined score is a dash."""
    return "–" if np.isnan(value) else language.number(f"{value * 100:.1f} %")


def milliseconds(seconds: float, language: Language = ENGLISH) -> str:
    """Three digits that matter: 0.0123 -> "12.3 ms", 1.5 -> "1,500 ms"."""
    value = seconds * 1000
    return language.number(f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms")


def quantity(count: int, language: Language = ENGLISH) -> str:
    """2_612_345 -> "2.6 M"."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return language.number(f"{count / size:.1f}") + unit
    return str(count)


def file_stem(name: str) -> str:
    """A caption as the name of a file: "FCN-8s (my/run)" -> "fcn-8s-my-run"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _figure(
    panel: Panel, shown: tuple[int, int], labels: Sequence[str], colours: np.ndarray, language: Language
) -> str:
    mask = np.asarray(Image.fromarray(panel.mask).resize(shown, Image.Resampling.NEAREST))
    layer, name = data_uri(label_picture(mask, colours), "PNG"), escape(panel.name)
    return (
        f'<figure class="fcn-panel"><figcaption><strong title="{name}">{name}</strong>'
        f"<span>{escape(panel.note)}</span></figcaption>"
        f"{_view(panel.name, _plane(layer, _description(panel, language)) + PROBE, language)}"
        f"{_share_bar(panel, labels, colours)}{fact_list(panel.facts)}"
        f'<div class="fcn-saves"><button type="button" class="fcn-download" data-name="{file_stem(panel.name)}.png" '
        f'aria-label="{language("download_name", name=name)}">{language("download")}</button>'
        f'<button type="button" class="fcn-overlay" data-name="{file_stem(panel.name)}-overlay.png" '
        f'aria-label="{language("overlay_name", name=name)}">{language("overlay")}</button></div></figure>'
    )


PROBE = '<output class="fcn-probe" aria-hidden="true"></output>'


def _view(name: str, content: str, language: Language, otherwise: str | None = None) -> str:
    """A picture that can be pointed at and zoomed; `otherwise` is what its transparent pixels are called, unlabelled
    ones if not given."""
    return (
        f'<div class="fcn-view" tabindex="0" role="application" aria-roledescription="{language("view_role")}" '
        f'aria-label="{language("view", name=escape(name))}" '
        f'data-otherwise="{escape(otherwise or language("unlabelled"))}">{content}<i class="fcn-dot"></i></div>'
    )


def _plane(layer: str, description: str) -> str:
    """The picture below one layer, which zoom and pan move together."""
    return f'<div class="fcn-plane"><img class="fcn-mask" src="{layer}" alt="{escape(description)}"></div>'


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """(term, value) pairs."""
    return f"<dl>{''.join(f'<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>' for term, value in facts)}</dl>"


def _slide(panels: Sequence[Panel], language: Language) -> str:
    """Any two of picture and masks, left and right of a line that a range input moves; the browser fills them in."""
    names = [language("picture"), *(panel.name for panel in panels)]
    plane = '<div class="fcn-plane"><img class="fcn-mask" alt="" hidden></div>'
    layers = f'{plane}<div class="fcn-cut">{plane}</div><i class="fcn-line"></i>'
    return (
        f'<figure class="fcn-slide"><figcaption><h2>{language("slide")}</h2>'
        f"{_choice(language('left'), names, min(1, len(panels) - 1))}"
        f"{_choice(language('right'), names, len(panels))}</figcaption>"
        f"{_view(language('slide'), layers, language)}"
        '<input type="range" class="fcn-place" min="0" max="100" value="50" '
        f'aria-label="{language("slide_place")}"></figure>'
    )


def _choice(label: str, names: Sequence[str], selected: int) -> str:
    options = "".join(
        f"<option{' selected' if index == selected else ''}>{escape(name)}</option>" for index, name in enumerate(names)
    )
    return f'<label>{label} <select aria-label="{label}">{options}</select></label>'


def _disagreement(found: Disagreement, shown: tuple[int, int], language: Language) -> str:
    """Where the networks disagree, or which are right, over the dimmed picture, with the share of each group."""
    colours = np.array(distinct_palette(len(found.names), NONE_RIGHT), dtype=np.uint8).reshape(-1, 3)
    layer = data_uri(label_picture(found.groups, colours).resize(shown, Image.Resampling.NEAREST), "PNG")
    named = zip(found.names, found.shares, colours.tolist(), strict=True)
    groups = sorted((group for group in named if group[1] > 0), key=lambda group: -group[1])
    items = "".join(
        f'<li data-name="{escape(name)}" data-colour="{",".join(map(str, colour))}">'
        f'<i style="background:{hex_colour(colour)}"></i>{escape(name)} <b>{percent(share, language)}</b></li>'
        for name, share, colour in groups
    )
    title = escape(found.title)
    differing = "" if found.differing is None else language("masks_differ", share=percent(found.differing, language))
    description = "; ".join(f"{name} {percent(share, language)}" for name, share, _ in groups) or found.agreement
    return (
        f'<figure class="fcn-disagreement"><figcaption><h2>{title}</h2><span>{differing}</span></figcaption>'
        f"{_view(found.title, _plane(layer, f'{found.title}: {description}') + PROBE, language, found.agreement)}"
        f"<ul>{items}</ul></figure>"
    )


def _description(panel: Panel, language: Language) -> str:
    largest = sorted(panel.shares.items(), key=lambda item: -item[1])[:4]
    listed = ", ".join(f"{name} {percent(share, language)}" for name, share in largest if share > 0)
    return language("laid_over", name=panel.name, shares=listed)


def _share_bar(panel: Panel, labels: Sequence[str], colours: np.ndarray) -> str:
    parts = "".join(
        f'<i style="flex-grow:{panel.shares[name]:.4f};background:{hex_colour(colour)}" title="{escape(name)}"></i>'
        for name, colour in zip(labels, colours, strict=True)
        if panel.shares[name] >= SMALLEST_SHARE
    )
    return f'<div class="fcn-bar" aria-hidden="true">{parts}</div>'


def _share_table(panels: Sequence[Panel], labels: Sequence[str], colours: np.ndarray, language: Language) -> str:
    largest = {name: max(panel.shares[name] for panel in panels) for name in labels}
    top = max(max(largest.values()), SMALLEST_SHARE)
    head = "".join(f'<th scope="col">{escape(panel.name)}</th>' for panel in panels)
    rows = "".join(
        _share_row(name, hex_colour(colour), [panel.shares[name] for panel in panels], top, language)
        for name, colour in sorted(zip(labels, colours, strict=True), key=lambda item: -largest[item[0]])
        if largest[name] >= SMALLEST_SHARE
    )
    return (
        f'<div class="fcn-shares"><h2>{language("shares")}</h2><table><thead><tr>'
        f'<th scope="col">{language("class")}</th>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _share_row(name: str, colour: str, values: Sequence[float], top: float, language: Language) -> str:
    cells = "".join(
        f'<td><span style="--share:{value / top:.4f};--colour:{colour}">{percent(value, language)}</span></td>'
        for value in values
    )
    swatch = f'<i style="background:{colour}"></i>'
    return f'<tr data-name="{escape(name)}"><th scope="row">{swatch}{escape(name)}</th>{cells}</tr>'
