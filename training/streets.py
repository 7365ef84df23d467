"""Labelled street scenes without end: pictures the project draws itself, in CamVid's eleven classes.

As a script it writes a Hub dataset folder: `python training/streets.py --out DIR --num-scenes 500`.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from datasets import Dataset, Features, IterableDataset, Value
from datasets import Image as ImageFeature
from PIL import Image

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.street.scene import draw_scene

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
ID2LABEL: dict[int, str] = dict(enumerate(CLASSES))
FEATURES = Features({"image": ImageFeature(), "label": ImageFeature(), "name": Value("string")})
MIN_SIZE = 32
# How many workers or processes a stream can feed, each with scenes of its own.
NUM_SHARDS = 64
# Part of the cache key of `streets_dataset`: raise it whenever a seed draws another picture than before.
DRAWING_VERSION = 1

CARD = """---
pretty_name: Drawn streets ({height}x{width})
license: apache-2.0
task_categories: [image-segmentation]
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# Drawn streets, {height}x{width}

{num_scenes} street scenes as a dash camera would see them, drawn by the fcn-hf project's own program (no photograph, no
generative model), with per-pixel labels in the eleven classes of CamVid. Reproduce the folder with

    python training/streets.py --out DIR --num-scenes {num_scenes} --seed {seed} --height {height} --width {width}

Columns: `image` (RGB, {width} wide x {height} high, JPEG quality 95, 4:4:4), `label` (8-bit index map, same size, PNG),
`name`. Labels: see `id2label.json`; 255 is unlabelled (bins, pillar boxes, the camera car's bonnet) and is ignored in
the loss and in every score. As in CamVid, lane markings are road, grass and hedges are tree, traffic lights are sign,
and what one sees through a railing or a bicycle wheel is fence or bicyclist.
"""


def render_street(seed: int, height: int = 360, width: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """Draw one street scene with its labels; the same arguments give the same pixels in every process.

    Args:
        seed: Number of the scene, 0 or more.
        height: Height in pixels, 32 or more.
        width: Width in pixels, 32 or more.

    Returns:
        The picture, uint8 of shape (height, width, 3), RGB in 0..255, and the label map, uint8 of shape
        (height, width), class ids of `ID2LABEL` or 255 for pixels of no class.

    Raises:
        ValueError: If the seed is negative or a side is shorter than 32 pixels.
    """
    _check(1, seed, height, width)
    return draw_scene(seed, height, width)


def streets_dataset(
    num_scenes: int, seed: int = 0, height: int = 360, width: int = 480, cache_dir: str | Path | None = None
) -> Dataset:
    """Draw `num_scenes` scenes into a map-style dataset with the columns of CamVid.

    Args:
        num_scenes: Number of rows, 1 or more.
        seed: Seed of the whole dataset, 0 or more; row i equals row i of any longer dataset with this seed.
        height: Height in pixels, 32 or more.
        width: Width in pixels, 32 or more.
        cache_dir: Where datasets keeps the Arrow file; its usual cache by default.

    Returns:
        A dataset with the columns image (RGB), label (8-bit class ids, 255 unlabelled) and name.

    Raises:
        ValueError: If `num_scenes` is less than 1, the seed is negative or a side is shorter than 32 pixels.
    """
    _check(num_scenes, seed, height, width)
    kwargs = {"shards": [0], "num_shards": 1, "num_scenes": num_scenes, "seed": seed, "height": height, "width": width}
    return Dataset.from_generator(
        _rows,
        features=FEATURES,
        cache_dir=str(cache_dir) if cache_dir else None,
        gen_kwargs={**kwargs, "version": DRAWING_VERSION},
    )


def streets_stream(
    seed: int = 0, height: int = 360, width: int = 480, num_scenes: int | None = None
) -> IterableDataset:
    """Draw scenes while they are read: an endless dataset, or one of `num_scenes` rows.

    The stream has 64 shards, so DataLoader workers and, through `split_dataset_by_node`, processes draw different
    scenes.

    Args:
        seed: Seed of the whole stream, 0 or more.
        height: Height in pixels, 32 or more.
        width: Width in pixels, 32 or more.
        num_scenes: Number of rows, 1 or more; None never ends.

    Returns:
        An iterable dataset with the columns image (RGB), label (8-bit class ids, 255 unlabelled) and name.

    Raises:
        ValueError: If `num_scenes` is less than 1, the seed is negative or a side is shorter than 32 pixels.
    """
    _check(num_scenes, seed, height, width)
    shards = list(range(NUM_SHARDS if num_scenes is None else min(NUM_SHARDS, num_scenes)))
    kwargs = {"num_shards": len(shards), "num_scenes": num_scenes, "seed": seed, "height": height, "width": width}
    return IterableDataset.from_generator(_rows, features=FEATURES, gen_kwargs={"shards": shards, **kwargs})


def _check(num_scenes: int | None, seed: int, height: int, width: int) -> None:
    if num_scenes is not None and num_scenes < 1:
        raise ValueError(f"num_scenes is {num_scenes}; pass 1 or more")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; pass 0 or more")
    if min(height, width) < MIN_SIZE:
        raise ValueError(f"height {height} x width {width} is too small for a street; pass {MIN_SIZE} or more for each")


def _rows(
    shards: list[int], num_shards: int, num_scenes: int | None, seed: int, height: int, width: int, version: int = 0
) -> Iterator[dict[str, Any]]:
    for shard in shards:
        indices = itertools.count(shard, num_shards) if num_scenes is None else range(shard, num_scenes, num_shards)
        for index in indices:
            scene = int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])
            picture, labels = render_street(scene, height, width)
            yield {
                "image": _encoded(picture, "JPEG", quality=95, subsampling="4:4:4"),
                "label": _encoded(labels, "PNG"),
                "name": f"street-{seed}-{index:06d}",
            }


def _encoded(array: np.ndarray, form: str, **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    num_scenes: Annotated[int, typer.Option(help="Number of scenes.")],
    seed: Annotated[int, typer.Option(help="Seed of the whole dataset.")] = 0,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 360,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 480,
) -> None:
    """Write drawn street scenes as a Hub dataset folder that `datasets.load_dataset` reads."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        typer.echo(f"{out} exists and is not an empty folder; pass another --out or remove it", err=True)
        raise typer.Exit(1)
    try:
        _check(num_scenes, seed, height, width)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
        folder = Path(aside) / "folder"
        (folder / "data").mkdir(parents=True)
        dataset = streets_dataset(num_scenes, seed, height, width, cache_dir=Path(aside) / "cache")
        dataset.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
        (folder / "id2label.json").write_text(json.dumps(ID2LABEL, indent=2) + "\n")
        card = CARD.format(num_scenes=num_scenes, seed=seed, height=height, width=width)
        (folder / "README.md").write_text(card)
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
    typer.echo(f"wrote {num_scenes} scenes to {out}")


if __name__ == "__main__":
    typer.run(main)
