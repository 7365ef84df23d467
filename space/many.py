"""The tab "Many pictures": one network on up to `MAX_FILES` of them, one after another, with what is done kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from fcn_hf.errors import FCNError
from fcn_hf.palettes import label_picture, overlay
from space.comparison import compare
from space.devices import on_gpu
from space.downloads import new_folder, safe_stem, summary, write_zip, zip_button
from space.inference import Segmenter
from space.kinds import Kind
from space.layout import I18N
from space.panels import DISPLAY_SIDE, file_stem, message, milliseconds, percent
from space.pictures import shrink
from space.texts import ENGLISH, LANGUAGES, Language
from space.uploads import MAX_FILES, limited
from space.waiting import FILES, MANY

FINEST = "The finest one"
FINEST_CHOICE = (I18N("finest"), FINEST)
CLASSES_SHOWN = 3

NOTHING_DONE = "Nothing is done yet: please choose pictures, have them segmented, and then download them."

Shown = tuple[str, list[tuple[str, str]], str, "Batch | None"]
"""Where it stands (HTML), the overlays' files with their captions, the figures (HTML), and all that is done."""


@dataclass(frozen=True)
class Batch:
    """What is done of several pictures.

    Args:
        folder: where the label maps and overlays are.
        head: what `figures.json` says of all pictures.
        total: how many were chosen.
        entries: per picture that was tried, what `figures.json` says of it.
    """

    folder: Path
    head: dict[str, Any]
    total: int
    entries: tuple[dict[str, Any], ...] = ()


class Many:
    """What the events call; arguments are those of `space.downloads.Downloads`. Only models are shared: what is done is
    in the visitor's `gr.State`."""

    def __init__(self, kind: Callable[[str], Kind], delete_later: Callable[[Path], None]):
        self.kind, self.delete_later = kind, delete_later

    async def run(
        self,
        name: str,
        files: list[dict[str, Any]] | None,
        network: Any,
        distinct: bool,
        opacity: float,
        code: str = "en",
    ) -> AsyncIterator[Shown]:
        """Segment one picture after another, and show after each what is done; others are served in between."""
        language = LANGUAGES[code]
        if not files:
            yield message(language("many_choose", count=MAX_FILES)), [], "", None
            return
        try:
            head = await limited(self._head)(name, network, distinct)
        except FCNError as error:
            raise gr.Error(str(error), print_exception=False) from error
        batch = Batch(new_folder(), head, len(files))
        for number, file in enumerate(files, 1):
            shown = Path(file["path"]).name
            yield self._shown(batch, language("many_at", number=number, total=len(files), name=shown), language)
            stem = batch.folder / f"{number:02d}-{safe_stem(shown)}"
            for path in _parts(stem):
                self.delete_later(path)
            try:
                entry = await limited(on_gpu(self._one))(name, head["network"], file["path"], distinct, opacity, stem)
            except (FCNError, gr.Error) as error:
                entry = {"error": error.message if isinstance(error, gr.Error) else str(error)}
            batch = replace(batch, entries=(*batch.entries, {"picture": shown, **entry}))
        yield self._shown(batch, said(batch, language), language)

    def _head(self, name: str, network: Any, distinct: bool) -> dict[str, Any]:
        kind = self.kind(name)
        segmenter = network_of(kind, network)
        return {
            "kind": kind.name,
            "network": segmenter.name,
            "model": segmenter.source,
            "labels": kind.labels,
            "palette": kind.palette(distinct).tolist(),
        }

    def _one(self, name: str, network: str, path: str, distinct: bool, opacity: float, stem: Path) -> dict[str, Any]:
        """Write the label map and the overlay of one picture; what `figures.json` says of it."""
        kind = self.kind(name)
        segmenter = replace(network_of(kind, network), passes=1)
        result = compare(replace(kind, segmenters=(segmenter,)), path)
        colours, mask = kind.palette(distinct), result.results[0].mask
        label_map, laid_over = _parts(stem)
        label_picture(mask, colours).save(label_map)
        overlay(shrink(result.picture, DISPLAY_SIDE), mask, colours, opacity / 100).save(laid_over, quality=90)
        files = {"label_map": label_map.name, "overlay": laid_over.name}
        return {"size": result.picture.size, **files, **summary((segmenter,), result)[0]}

    def choices(self, name: str) -> list[Any]:
        """What can be chosen of a kind's networks."""
        try:
            return [FINEST_CHOICE, *(segmenter.name for segmenter in self.kind(name).segmenters)]
        except FCNError:  # of which those who ask for masks are told
            return [FINEST_CHOICE]

    def choose(self, name: str) -> gr.Dropdown:
        """The choice of a network, for another kind."""
        try:
            return gr.Dropdown(self.choices(name), value=FINEST)
        except FCNError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def stopped(self, batch: Batch | None, code: str = "en") -> str:
        """Where it stands when it was cancelled, or something failed."""
        if batch is None:
            return message(LANGUAGES[code]("many_not_started"), "error")
        return message(LANGUAGES[code]("many_stopped", said=said(batch, LANGUAGES[code])))

    def everything(self, batch: Batch | None) -> str:
        """A zip with the label maps and overlays of what is done, and `figures.json`."""
        if batch is None or not batch.entries:
            raise gr.Error(NOTHING_DONE, print_exception=False)
        path = batch.folder / f"{file_stem(batch.head['network'])}-masks.zip"
        self.delete_later(path)
        names = [entry[part] for entry in batch.entries for part in ("label_map", "overlay") if part in entry]
        write_zip(path, {name: batch.folder / name for name in names}, {**batch.head, "pictures": batch.entries})
        return str(path)

    def _shown(self, batch: Batch, text: str, language: Language) -> Shown:
        overlays = [
            (str(batch.folder / each["overlay"]), each["picture"]) for each in batch.entries if "overlay" in each
        ]
        return message(text), overlays, figures_table(batch.entries, language), batch


def network_of(kind: Kind, chosen: Any) -> Segmenter:
    """One of a kind's networks by its name, or the finest.

    Raises:
        FCNError: there is none of this name.
    """
    if chosen == FINEST:
        return kind.segmenters[-1]
    for segmenter in kind.segmenters:
        if segmenter.name == chosen:
            return segmenter
    names = ", ".join(segmenter.name for segmenter in kind.segmenters)
    raise FCNError(f"There is no network {str(chosen)[:40]!r} here, but: {names}.")


def _parts(stem: Path) -> tuple[Path, Path]:
    """The files of one picture: label map and overlay."""
    return stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}-overlay.jpg")


def said(batch: Batch, language: Language) -> str:
    """How many pictures are done, and how many could not be."""
    failed = sum("error" in entry for entry in batch.entries)
    done = language("many_done", count=len(batch.entries) - failed, total=batch.total)
    return f"{done} {language('many_failed', count=failed)}" if failed else done


def figures_table(entries: tuple[dict[str, Any], ...], language: Language = ENGLISH) -> str:
    """Per picture its size, the network's seconds and the largest classes, or why there are none."""
    if not entries:
        return ""
    columns = ("picture", "size", "time", "many_most")
    head = "".join(f'<th scope="col">{language(key)}</th>' for key in columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(each["picture"])}</th>{_cells(each, language)}</tr>' for each in entries
    )
    return (
        f'<div class="fcn-figures" tabindex="0" role="region" aria-label="{language("many_figures")}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cells(entry: dict[str, Any], language: Language) -> str:
    if "error" in entry:
        return f'<td colspan="3" class="fcn-failed">{escape(language.sentence(entry["error"]))}</td>'
    width, height = entry["size"]
    largest = sorted(entry["shares"].items(), key=lambda item: -item[1])[:CLASSES_SHOWN]
    classes = ", ".join(f"{escape(name)} {percent(share, language)}" for name, share in largest if share > 0)
    return f"<td>{width} × {height}</td><td>{milliseconds(entry['seconds'], language)}</td><td>{classes}</td>"


def many_tab(handlers: Many, kind: gr.Radio, distinct: gr.Checkbox, opacity: gr.Slider, code: gr.State) -> None:
    """The tab, to be called inside `gr.Tabs`, for the page's kind, in its colours at its opacity; `code` is of the
    visitor's language."""
    with gr.Tab(I18N("many"), id="many", elem_classes="fcn-tab"):
        gr.HTML(I18N("many_text"), apply_default_css=False)
        files = gr.File(
            file_count="multiple",
            label=I18N("many_files"),
            height=220,
            elem_id="fcn-many-files",
        )
        with gr.Row(elem_id="fcn-many-controls"):
            choices = handlers.choices(str(kind.value))
            network = gr.Dropdown(choices, value=FINEST, label=I18N("network"), min_width=160)
            start = gr.Button(I18N("many_start"), variant="primary", min_width=160)
            cancel = gr.Button(I18N("cancel"), min_width=120)
        progress = gr.HTML(apply_default_css=False, elem_id="fcn-many-progress")
        overlays = gr.Gallery(
            label=I18N("overlays"),
            height="auto",
            object_fit="contain",
            interactive=False,
            buttons=["fullscreen"],
            elem_id="fcn-many-overlays",
        )
        figures = gr.HTML(apply_default_css=False)
        done = gr.State()
        zip_button(limited(handlers.everything), [done], **FILES)

    run = start.click(
        handlers.run,
        [kind, files, network, distinct, opacity, code],
        [progress, overlays, figures, done],
        preprocess=False,
        trigger_mode="once",
        show_progress="hidden",
        api_visibility="private",
        **MANY,
    )
    # What is cancelled counts as failed.
    run.failure(handlers.stopped, [done, code], progress, queue=False, api_visibility="private")
    cancel.click(None, cancels=[run], api_visibility="private")
    # Not past the queue, as it may load models that were typed in.
    kind.change(limited(handlers.choose), kind, network, preprocess=False, api_visibility="private", **FILES)
