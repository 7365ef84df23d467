"""What the page's events call, but for those of single tabs; and `/compare` of the API."""

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
from space.disagreement import disagreement
from space.downloads import summary
from space.inference import ModelError
from space.kinds import Kind
from space.links import Opening
from space.panels import comparison, message, model_panel, refusal, truth_panel
from space.pictures import PictureError, TruthError, browser_copy, has_several_frames, read_picture
from space.texts import ENGLISH, LANGUAGES, Language, request_language
from space.typed_models import TypedModels
from space.uploads import MAX_UPLOAD_BYTES, NOT_UPLOADED

DEFAULT_OPACITY = 60
API_OPACITY = DEFAULT_OPACITY / 100

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
