"""What is carried home: a label map, or everything about one picture as a zip; and how zips are written."""

from __future__ import annotations

import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from fcn_hf.errors import FCNError
from fcn_hf.palettes import label_picture, overlay
from space.comparison import Comparison, compare
from space.devices import on_gpu
from space.inference import Segmenter
from space.kinds import Kind
from space.layout import I18N
from space.panels import file_stem
from space.texts import LANGUAGES
from space.uploads import limited

LONGEST_STEM = 60
"""Characters of a picture's name that are kept in the names of files."""

NO_PICTURE = "Please choose a picture first: then everything about it can be downloaded."

NO_LABEL_MAP = "There is no label map of this name for the picture that is chosen now: please wait for its masks."

SAVE = "(file) => { window.fcnSave(file); }"
"""What the browser does with a file that the server has made."""

NAME_PANEL = "(...given) => [...given.slice(0, %d), fcn.panelToSave]"
"""With so many fields, the browser sends the name of the panel whose button was pressed."""


class Downloads:
    """What the buttons call. Everything a request needs arrives as an argument; only models are shared.

    Args:
        kind: gives the kind of a name, or raises `FCNError`.
        delete_later: told of each file before it is written, and deletes it when uploads of that age are.
    """

    def __init__(self, kind: Callable[[str], Kind], delete_later: Callable[[Path], None]):
        self.kind, self.delete_later = kind, delete_later

    async def everything(
        self, name: str, upload: dict[str, Any] | None, distinct: bool, opacity: float, truth: dict[str, Any] | None
    ) -> str:
        """A zip with each network's label map and overlay (PNG, of the picture's size) and `figures.json`."""
        if upload is None:
            raise gr.Error(NO_PICTURE, print_exception=False)
        file_name = f"{safe_stem(upload['path'])}.zip"
        return await self._written(file_name, self._write_zip, truth, name, upload["path"], distinct, opacity / 100)

    async def label_map(
        self, name: str, upload: dict[str, Any] | None, distinct: bool, truth: dict[str, Any] | None, panel: Any
    ) -> str:
        """The label map of the panel of this name (PNG, of the picture's size)."""
        if upload is None:
            raise gr.Error(NO_PICTURE, print_exception=False)
        file_name = f"{file_stem(str(panel))[:LONGEST_STEM] or 'label-map'}.png"
        return await self._written(file_name, self._write_label_map, truth, name, upload["path"], distinct, panel)

    async def _written(
        self, file_name: str, write: Callable[..., None], truth: dict[str, Any] | None, *arguments: Any
    ) -> str:
        """Where the file lies that `write` makes, given its path, the truth's path and the arguments."""
        path = new_folder() / file_name
        self.delete_later(path)
        try:
            await limited(on_gpu(write))(path, truth["path"] if truth else None, *arguments)
        except FCNError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return str(path)

    def _write_label_map(
        self, path: Path, truth_path: str | None, name: str, picture_path: str, distinct: bool, panel: Any
    ) -> None:
        kind = self.kind(name)
        result = compare(kind, picture_path, truth_path)
        masks = [(segmenter.name, one.mask) for segmenter, one in zip(kind.segmenters, result.results, strict=True)]
        if result.truth is not None:
            masks += [(language("ground_truth"), result.truth) for language in LANGUAGES.values()]
        mask = next((mask for shown, mask in masks if shown == panel), None)
        if mask is None:
            raise FCNError(NO_LABEL_MAP)
        label_picture(mask, kind.palette(distinct)).save(path)

    def _write_zip(
        self, path: Path, truth_path: str | None, name: str, picture_path: str, distinct: bool, opacity: float
    ) -> None:
        kind = self.kind(name)
        result, colours = compare(kind, picture_path, truth_path), kind.palette(distinct)
        networks = summary(kind.segmenters, result)
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            files = {}
            for number, (entry, segmentation) in enumerate(zip(networks, result.results, strict=True), 1):
                stem = f"{number}-{file_stem(entry['name'])}"
                pictures = {
                    "label_map": label_picture(segmentation.mask, colours),
                    "overlay": overlay(result.picture, segmentation.mask, colours, opacity),
                }
                for part, image in pictures.items():
                    entry[part] = f"{stem}-{part.replace('_', '-')}.png"
                    files[entry[part]] = Path(aside) / entry[part]
                    image.save(files[entry[part]])
            figures = {
                "picture": Path(picture_path).name,
                "size": result.picture.size,
                "kind": kind.name,
                "labels": kind.labels,
                "palette": colours.tolist(),
                "networks": networks,
            }
            write_zip(path, files, figures)


def summary(segmenters: tuple[Segmenter, ...], result: Comparison) -> list[dict[str, Any]]:
    """What `/compare` says in numbers, one entry per network."""
    return [
        {
            "name": segmenter.name,
            "model": segmenter.source,
            "seconds": round(segmentation.seconds, 5),
            "parameters": segmenter.parameters,
            "shares": segmentation.shares,
            "mean_iou": _finite(score),
            "boundary_f1": _finite(boundary_score),
        }
        for segmenter, segmentation, score, boundary_score in zip(
            segmenters, result.results, result.scores, result.boundary_scores, strict=True
        )
    ]


def _finite(score: float | None) -> float | None:
    """A score as JSON has it, where an undefined one is null."""
    return None if score is None or math.isnan(score) else score


def new_folder() -> Path:
    """An empty folder beside the uploads, whose name nobody can guess."""
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=get_upload_folder()))


def safe_stem(name: str) -> str:
    """The name of a file without its folders, its ending and all that isn't safe in names."""
    return file_stem(Path(name).stem)[:LONGEST_STEM] or "picture"


def write_zip(path: Path, files: Mapping[str, Path], figures: Mapping[str, Any]) -> None:
    """A zip of these files, by their names in it, and of `figures.json`; it is there when it is complete."""
    aside = path.with_suffix(".part")
    try:
        # Pictures are compressed already.
        with zipfile.ZipFile(aside, "w") as archive:
            archive.writestr("figures.json", json.dumps(figures, indent=1, ensure_ascii=False))
            for name, file in files.items():
                archive.write(file, name)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def zip_button(handler: Callable[..., Any], inputs: list[Any], **settings: Any) -> gr.Button:
    """A button that has the server make a zip and then saves it; `settings` are those of the event."""
    button = gr.Button(I18N("everything"), elem_classes="fcn-zip", min_width=160)
    _saved(button, handler, inputs, **settings)
    return button


def label_map_button(handler: Callable[..., Any], inputs: list[Any], **settings: Any) -> None:
    """What the buttons of all panels have the server make and then save, by the panel's name behind the inputs; see
    downloads.js."""
    panel = gr.Textbox(visible="hidden")
    button = gr.Button(visible="hidden", elem_id="fcn-label-map")
    _saved(button, handler, [*inputs, panel], js=NAME_PANEL % len(inputs), **settings)


def _saved(button: gr.Button, handler: Callable[..., Any], inputs: list[Any], **settings: Any) -> None:
    made = gr.DownloadButton(visible="hidden")
    asked = button.click(handler, inputs, made, preprocess=False, api_visibility="private", **settings)
    asked.success(None, made, None, js=SAVE, api_visibility="private")
