"""Tiny untrained networks in folders, drawn example pictures, and the page served on a free port."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.load_page import start_page
from space.pictures import EXAMPLES
from tests.helpers import free_port, save_tiny

LABELS = tuple(json.loads((EXAMPLES / "street" / "id2label.json").read_text()).values())


@pytest.fixture(scope="session")
def labels() -> tuple[str, ...]:
    """Names of the classes of the examples, and of the tiny networks."""
    return LABELS


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> tuple[str, ...]:
    """Model folders of FCN-32s, FCN-16s and FCN-8s, in this order."""
    root = tmp_path_factory.mktemp("models")
    classes = dict(enumerate(LABELS))
    strides = {root / f"fcn-{stride}s": stride for stride in (32, 16, 8)}
    return tuple(
        str(save_tiny(folder, prediction_stride=stride, id2label=classes)) for folder, stride in strides.items()
    )


@pytest.fixture(scope="session")
def pets(tmp_path_factory) -> str:
    """The folder of an FCN-16s that knows a class of the examples, and two others around it."""
    classes = {0: "cat", 1: LABELS[3], 2: "dog"}
    return str(save_tiny(tmp_path_factory.mktemp("pets") / "fcn-pets", prediction_stride=16, id2label=classes))


@pytest.fixture(scope="session")
def noise_picture():
    """The maker of pictures: `noise_picture(width, height, seed)`."""
    return _noise_picture


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory) -> Path:
    """A folder like space/examples/street: two pictures of 64 x 48 with their label maps."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("a", "b"):
        _noise_picture(64, 48, seed=ord(name)).save(folder / f"{name}.png")
        truth = np.random.default_rng(ord(name)).integers(0, len(LABELS), (48, 64), dtype=np.uint8)
        truth[:4] = 255
        Image.fromarray(truth).save(folder / f"{name}_label.png")
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(LABELS))), encoding="utf-8")
    return folder


def _noise_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture with large random patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def server(model_folders, tmp_path_factory) -> str:
    """Address of `python app.py` with the tiny networks."""
    port = free_port()
    folder = str(tmp_path_factory.mktemp("uploads"))
    process = start_page(port, FCN_MODELS=",".join(model_folders), GRADIO_TEMP_DIR=folder)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)
