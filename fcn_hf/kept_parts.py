"""Long work goes on where it was stopped: its finished parts lie in a folder, beside what they are made of."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .files import write_aside

# Hidden, so that `datasets.load_dataset` takes it for no data.
MADE_OF = ".made-of.json"


def made_of(folder: Path) -> dict[str, Any] | None:
    """What the parts in a folder are made of, as `keep_parts` noted it; None if it holds no such parts."""
    try:
        facts = json.loads((folder / MADE_OF).read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def keep_parts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note, before the first part is written, what all of them are made of.

    Args:
        folder: where the parts are to lie; made where it doesn't exist.
        facts: whatever the parts depend on, in values that JSON gives back as they were.
    """
    write_aside(folder / MADE_OF, lambda path: path.write_text(json.dumps(facts, indent=2) + "\n"))


def model_fingerprint(model, processor) -> str:
    """A text that models of the same answers have in common, of weights, config and the processor's settings.

    Args:
        model: any model of transformers; `optimize` and another dtype change its fingerprint.
        processor: its image processor.
    """
    digest = hashlib.sha256()
    for settings in (model.config.to_dict(), processor.to_dict()):
        settings = {name: value for name, value in settings.items() if name != "_name_or_path"}
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        # numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
