"""What several of the tests need: nets, pictures of every mode, command lines, and places without the package."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.cli import app
from fcn_hf.convert.names import published_names

# Nets


TINY = {"hidden_sizes": (4, 4, 8, 8, 8), "depths": (1, 1, 1, 1, 1), "hidden_size": 8, "num_labels": 5}


def build_tiny(**settings) -> FCNForSemanticSegmentation:
    """A tiny net in eval mode whose every weight is random, skips and kernels included: zeros would hide mistakes."""
    torch.manual_seed(0)
    if "id2label" in settings:
        settings["num_labels"] = len(settings["id2label"])
    model = FCNForSemanticSegmentation(FCNConfig(**{**TINY, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


def save_tiny(folder: Path, **settings) -> Path:
    """A model folder of a tiny net and its image processor."""
    model = build_tiny(**settings)
    model.save_pretrained(folder)
    FCNImageProcessor(num_labels=model.config.num_labels).save_pretrained(folder)
    return folder


class Pointwise(torch.nn.Module):
    """A net that sees single pixels alone: whatever the window or the mirror, its logits are the same."""

    def __init__(self, output_stride=1):
        super().__init__()
        self.config = SimpleNamespace(num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
        self.device = torch.device("cpu")
        self.output_stride = output_stride
        self.sizes = []

    def forward(self, pixel_values):
        self.sizes.append(tuple(pixel_values.shape[-2:]))
        step = self.output_stride
        return SimpleNamespace(logits=pixel_values[..., ::step, ::step] * torch.tensor([1.0, 2, -1])[:, None, None])


def published_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state dict under the names of the release, such as "conv1_1.weight"."""
    state = model.state_dict()
    return {name: state[place] for name, place in published_names(state).items()}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """A model's layers by the names of the paper, such as "fc6"; those of the first stream and task."""
    return dict(reversed(list(_named_leaves(model))))


def _named_leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        yield name.rpartition(".")[2], module


# Pictures


def picture_modes() -> dict[str, tuple[Image.Image, list[list[int]]]]:
    """By name, a picture of each mode that has a meaning, and the RGB colours of its few pixels in one row."""
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    transparent = palette.copy()
    transparent.info["transparency"] = 1
    grey_as_transparent = Image.new("L", (1, 1), 7)
    grey_as_transparent.info["transparency"] = 7
    sixteen_bit = Image.fromarray(np.array([[65535, 257 * 9, 129]], dtype=np.uint16))
    return {
        "1": (Image.new("1", (1, 1), 1), [[255, 255, 255]]),
        "L": (Image.new("L", (1, 1), 7), [[7, 7, 7]]),
        "L transparent": (grey_as_transparent, [[255, 255, 255]]),
        "LA": (Image.new("LA", (1, 1), (7, 0)), [[255, 255, 255]]),
        "La": (Image.new("LA", (1, 1), (7, 0)).convert("La"), [[255, 255, 255]]),
        "P": (palette, [[10, 20, 30], [40, 50, 60]]),
        "P transparent": (transparent, [[10, 20, 30], [255, 255, 255]]),
        "PA": (palette.convert("PA"), [[10, 20, 30], [40, 50, 60]]),
        "RGB": (Image.new("RGB", (1, 1), (1, 2, 3)), [[1, 2, 3]]),
        "RGBX": (Image.new("RGBX", (1, 1), (1, 2, 3, 0)), [[1, 2, 3]]),
        "RGBA": (Image.new("RGBA", (1, 1), (1, 2, 3, 255)), [[1, 2, 3]]),
        "RGBA transparent": (Image.new("RGBA", (1, 1), (1, 2, 3, 0)), [[255, 255, 255]]),
        "RGBa": (Image.new("RGBA", (1, 1), (1, 2, 3, 0)).convert("RGBa"), [[255, 255, 255]]),
        "CMYK": (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), [[0, 255, 255]]),
        "YCbCr": (Image.new("YCbCr", (1, 1), (255, 128, 128)), [[255, 255, 255]]),
        "HSV": (Image.new("HSV", (1, 1), (0, 255, 255)), [[255, 0, 0]]),
        "LAB": (Image.new("LAB", (1, 1), (128, 128, 128)), [[119, 119, 119]]),
        "I;16": (sixteen_bit, [[255] * 3, [9] * 3, [1] * 3]),
        "I;16B": (Image.frombytes("I;16B", (2, 1), b"\xff\xff\x09\x09"), [[255] * 3, [9] * 3]),
        "I": (Image.fromarray(np.array([[65535, 257 * 9]], dtype=np.int32)), [[255] * 3, [9] * 3]),
    }


# What has no one meaning as a picture, and what is said of it.
REFUSED_PICTURES = {
    "F": (Image.new("F", (1, 1), 0.5), "has mode 'F', whose range is unknown"),
    "I beyond 16 bit": (Image.fromarray(np.array([[70000]], dtype=np.int32)), "16-bit pixels are 0..65535"),
}


# Datasets


def save_dataset(folder: Path, ids: Iterable[int] = range(5)) -> Path:
    """Three pictures of three sizes with random labels, as the only split of a dataset's folder."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8) for i in range(3)]
    labels = [generator.choice(np.array(ids, dtype=np.uint8), (30 + i, 40)) for i in range(3)]
    rows = {"image": [Image.fromarray(p) for p in pictures], "label": [Image.fromarray(label) for label in labels]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "validation.parquet")
    return folder


# Command lines


def run(*arguments) -> Result:
    """`fcn-hf` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(folder: Path, arguments: list, message: str) -> None:
    """`fcn-hf convert` answers with status 1 and one line that matches, and leaves nothing behind in the folder."""
    before = sorted(folder.iterdir())
    result = run("convert", *arguments, folder / "model")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert re.search(message, result.stderr), result.stderr
    assert sorted(folder.iterdir()) == before


# Places without the package

# An editable install puts the checkout on sys.path by means of its own; this hides the package from all of them.
HIDE = """
import sys
class Hide:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] == 'fcn_hf':
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Hide)
"""
CHECK = """
try:
    import fcn_hf
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("fcn_hf is within reach")
"""


def run_without_the_package(script: str, *arguments, folder: Path, environment: Mapping[str, str] = os.environ) -> str:
    """What a script prints in a process from which `fcn_hf` is hidden, and whose cache of remote code starts empty.

    Args:
        folder: a temporary one, in which the process works.
    """
    site = folder / "site-without-the-package"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HIDE)
    environment = {**environment, "PYTHONPATH": str(site), "HF_MODULES_CACHE": str(folder / "modules")}
    completed = subprocess.run(
        [sys.executable, "-c", CHECK + script, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
