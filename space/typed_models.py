"""Models that a visitor types in, as a kind of picture of their own."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id

from space.hub_models import bounded, download, find
from space.inference import ModelError, Segmenter
from space.kinds import MAX_MODELS, Kind, examples_with, side_by_side

TITLE = "Your models"

MAX_WEIGHT_BYTES = 10**9
"""Of all models of the Hub in one text together: what is downloaded and held for a visitor."""

KEPT_KINDS = 2
"""Kinds that are held at once; the one that was used longest ago makes room."""

LOADING_SECONDS = 30
"""For which a request waits while models for another one are loaded."""

MAX_TEXT = 400

HOME = ("127.0.0.1", "localhost", "::1")


class TypedModels:
    """Loads what visitors name, and keeps a little of it. The same text means the same models to everyone.

    Args:
        at_home: whether the page is served to this machine alone. Then folders are models too, and repos that this
            machine's token may read. Otherwise a name is a public repo of the Hub, whatever lies on the disk.
    """

    def __init__(self, at_home: bool):
        self.at_home = at_home
        self._kinds: OrderedDict[str, Kind] = OrderedDict()
        self._keeping, self._loading = threading.Lock(), threading.Lock()

    def kind(self, text: Any) -> Kind:
        """The kind of one to `MAX_MODELS` models; its name is the text as it should be.

        Args:
            text: "owner/name" of the Hub or, at home, folders, separated by commas.

        Raises:
            ModelError: the text names no models, or they can't be loaded or are too large; or others are just being
                loaded.
        """
        sources = self._sources(text)
        if (kept := self._kept(",".join(sources))) is not None:
            return kept
        if not self._loading.acquire(timeout=LOADING_SECONDS):
            raise ModelError("Other models are being loaded just now: please ask for these in a minute.")
        try:
            return self._kept(",".join(sources)) or self._loaded(sources)
        finally:
            self._loading.release()

    def ready(self, text: Any) -> Kind | None:
        """A kind that is loaded already, if it is; nothing is loaded for it, and no error raised."""
        try:
            return self._kept(",".join(self._sources(text)))
        except ModelError:
            return None

    def _kept(self, name: str) -> Kind | None:
        with self._keeping:
            if name in self._kinds:
                self._kinds.move_to_end(name)
            return self._kinds.get(name)

    def _sources(self, text: Any) -> tuple[str, ...]:
        given = text.strip() if isinstance(text, str) else ""
        if not given or len(given) > MAX_TEXT:
            raise ModelError(f"Please type one to {MAX_MODELS} models, separated by commas.")
        sources = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
        if not 1 <= len(sources) <= MAX_MODELS:
            raise ModelError(f"These are {len(sources)} models; the page compares 1 to {MAX_MODELS}.")
        for source in sources:
            if not (self._is_folder(source) or is_hub_id(source)):
                folder = ", or the path of a folder on this machine" if self.at_home else ""
                raise ModelError(f"There is no model {source[:60]!r}: expected is owner/name, as on the Hub{folder}.")
        return sources

    def _is_folder(self, source: str) -> bool:
        # With a slash, so that it is told from the name of a kind.
        return self.at_home and "/" in source and os.path.isdir(source)

    def _loaded(self, sources: Sequence[str]) -> Kind:
        token = None if self.at_home else False
        found = {source: find(source, token) for source in sources if not self._is_folder(source)}
        if (total := sum(model.weight_bytes for model in found.values())) > MAX_WEIGHT_BYTES:
            raise ModelError(
                f"The weights of {', '.join(map(repr, found))} have {total / 1e9:.1f} GB; "
                f"at most {MAX_WEIGHT_BYTES / 1e9:.0f} GB are loaded."
            )
        with self._keeping:
            while len(self._kinds) >= KEPT_KINDS:
                self._kinds.popitem(last=False)
        segmenters = []
        # What strangers name isn't left on the disk: it would fill up.
        with tempfile.TemporaryDirectory(prefix="fcn-hf-models-") as aside:
            for source in sources:
                if source in found:
                    folder = download(found[source], None if self.at_home else Path(aside), token)
                    with bounded(folder, source):
                        segmenters.append(Segmenter.from_pretrained(source, folder))
                else:
                    segmenters.append(Segmenter.from_pretrained(source))
        networks = side_by_side(segmenters)
        kind = Kind(",".join(sources), TITLE, networks, examples_with(networks[0].classes))
        with self._keeping:
            self._kinds[kind.name] = kind
        return kind


def is_hub_id(text: str) -> bool:
    """Whether a text is "owner/name" as the Hub has it."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def is_home(host: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a page that is served at this host is for this machine alone."""
    return host in HOME and "SPACE_ID" not in environment


def are_allowed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether visitors may type models in: not where `FCN_TYPED_MODELS` is 0."""
    return environment.get("FCN_TYPED_MODELS", "1").strip() != "0"
