"""Models of the Hub that a stranger names: small ones, numbers only, that refer to nothing else."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from fcn_hf import FCNConfig
from fcn_hf.errors import UNREACHABLE, hub_reason, in_one_line
from space.inference import ModelError

HUB_SECONDS = 10
"""For which the Hub is waited for, each time it is asked."""

CONFIG, PROCESSOR, INDEX = "config.json", "preprocessor_config.json", "model.safetensors.index.json"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")

MAX_JSON_BYTES = 2**20
LARGEST_NUMBER = 2**16
"""In a config: what it may count at most. Sizes of networks are below."""
LARGEST_SIDE = 2560
"""In an image processor's config: pixels along a side."""

KNOWN_TYPES = {*MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, FCNConfig.model_type}
OWN_NAMES = ("id2label", "label2id", "_name_or_path", "auto_map", "architectures")
"""Parts of a config whose texts name nothing that is loaded."""


@dataclass(frozen=True)
class HubModel:
    """A commit of a repo, and those of its files that make a model.

    Args:
        repo_id: "owner/name".
        commit: its hash.
        files: names.
        weight_bytes: of all files of weights together.
    """

    repo_id: str
    commit: str
    files: tuple[str, ...]
    weight_bytes: float


def find(repo_id: str, token: bool | None) -> HubModel:
    """Ask the Hub which files a model has, and how large they are; nothing is downloaded.

    Args:
        repo_id: "owner/name".
        token: None for the one of this machine, False for what everyone may read.

    Raises:
        ModelError: there is no such repo, it isn't a model in safetensors with its image processor, or the Hub can't be
            reached.
    """
    with _explained(repo_id):
        about = HfApi(token=token).model_info(repo_id, files_metadata=True, timeout=HUB_SECONDS)
    # A file whose size isn't told is taken for one that is too large.
    sizes = {file.rfilename: inf if file.size is None else file.size for file in about.siblings or []}
    weights = [name for name in sizes if WEIGHTS.fullmatch(name)]
    if not weights:
        raise ModelError(
            f"'{repo_id}' has no weights in safetensors, which hold numbers only; other formats aren't opened here."
        )
    lacking = [name for name in (CONFIG, PROCESSOR) if name not in sizes]
    if lacking:
        raise ModelError(f"'{repo_id}' has no {lacking[0]}, so it is no model of transformers for pictures.")
    files = [CONFIG, PROCESSOR, *([INDEX] if INDEX in sizes else []), *weights]
    if any(sizes[name] > MAX_JSON_BYTES for name in files if name.endswith(".json")):
        raise ModelError(f"the configuration of '{repo_id}' is larger than {MAX_JSON_BYTES >> 20} MB.")
    return HubModel(repo_id, str(about.sha), tuple(files), sum(sizes[name] for name in weights))


def download(model: HubModel, folder: Path | None, token: bool | None) -> Path:
    """Bring a model's files, and no others, to a folder that holds what was checked.

    Args:
        folder: where downloads go; None for this machine's own cache.
        token: as for `find`.

    Raises:
        ModelError: the Hub can't be reached any more, or the configuration asks for more than the files hold.
    """
    with _explained(model.repo_id):
        place = snapshot_download(
            model.repo_id,
            revision=model.commit,
            allow_patterns=list(model.files),
            cache_dir=folder,
            token=token,
            etag_timeout=HUB_SECONDS,
        )
    try:
        _check(Path(place), model)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"the files of '{model.repo_id}' can't be read: {in_one_line(error)}") from error
    return Path(place)


@contextmanager
def bounded(folder: Path, name: str) -> Iterator[None]:
    """Within it, this thread builds no network of many more numbers or layers than a folder's weights hold.

    A network is built before its weights are read, and a config of a few bytes can ask for one of any size.

    Args:
        folder: that of the model.
        name: what the error calls it.

    Raises:
        ModelError: where the network passes the bound, or the weights can't be read.
    """
    sizes = []
    try:
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as weights:
                sizes += [prod(weights.get_slice(key).get_shape()) for key in weights.keys()]
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the weights of '{name}' can't be read: {in_one_line(error)}.") from error
    numbers, tensors = sum(sizes), len(sizes)
    # Some numbers are registered more than once, or not saved; and most layers have no numbers.
    left = {"numbers": 4 * numbers + 2**20, "layers": 20 * tensors + 1000}
    here = threading.get_ident()

    def count(what: str, amount: int) -> None:
        if threading.get_ident() == here:
            left[what] -= amount
            if left[what] < 0:
                raise ModelError(f"the configuration of '{name}' asks for a larger network than its weights are for.")

    def parameter(_module: Any, _name: str, value: Any) -> None:
        count("numbers", 0 if value is None else value.numel())

    def layer(_module: Any, _name: str, _layer: Any) -> None:
        count("layers", 1)

    with ExitStack() as hooks:
        hooks.enter_context(register_module_parameter_registration_hook(parameter))
        hooks.enter_context(register_module_module_registration_hook(layer))
        yield


def _check(folder: Path, model: HubModel) -> None:
    config, processor = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (CONFIG, PROCESSOR))
    if not isinstance(config, dict) or config.get("model_type") not in KNOWN_TYPES:
        raise ModelError(f"'{model.repo_id}' isn't a semantic segmentation model that transformers or fcn-hf knows.")
    for values, bound in ((config, LARGEST_NUMBER), (processor, LARGEST_SIDE)):
        _check_values(values, bound, model.repo_id)
    if INDEX in model.files:
        parts = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        if not set(parts) <= set(model.files):
            raise ModelError(f"the weights of '{model.repo_id}' are said to be in files that it doesn't have.")


def _check_values(value: Any, bound: int, repo_id: str, key: str = "") -> None:
    """Raise `ModelError` for what a config has a library load from elsewhere, and for counts that no model has."""
    if isinstance(value, dict):
        # For others than timm and fcn-hf, the name of a backbone may be a folder here, or another repo.
        placed = value.get("model_type") not in (None, "timm_backbone", FCNConfig.model_type)
        if value.get("use_pretrained_backbone") or (value.get("backbone") and placed):
            raise ModelError(f"'{repo_id}' isn't whole: its configuration takes a backbone from elsewhere.")
        for name, inner in value.items():
            if name not in OWN_NAMES:
                _check_values(inner, bound, repo_id, name)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, bound, repo_id, key)
    elif isinstance(value, str) and re.search(r"[/\\:]", value):
        raise ModelError(f"'{repo_id}' isn't whole: its configuration refers to {value[:40]!r} ({key[:40]!r}).")
    elif isinstance(value, int) and abs(value) > bound:
        raise ModelError(f"the configuration of '{repo_id}' has {key[:40]!r} = {str(value)[:20]}, more than {bound}.")


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    try:
        yield
    except RepositoryNotFoundError as error:
        reason = f"there is no such model at {constants.ENDPOINT} that may be read from here; check its name."
        raise ModelError(f"No model could be loaded from {repo_id!r}: {reason}") from error
    except (*UNREACHABLE, OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"No model could be loaded from {repo_id!r}: {hub_reason(error)}") from error
