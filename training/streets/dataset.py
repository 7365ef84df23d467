"""Scenes as a dataset of `datasets`, drawn once or while they are read."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, IterableDataset, Value
from datasets import Image as ImageFeature
from PIL import Image

from training.streets.scene import draw_scene

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
ID2LABEL: dict[int, str] = dict(enumerate(CLASSES))
FEATURES = Features({"image": ImageFeature(), "label": ImageFeature(), "name": Value("string")})
MIN_SIZE = 32
# How many workers or processes a stream can feed, each with scenes of its own.
NUM_SHARDS = 64
# Part of the cache key of `streets_dataset`: raise it whenever a seed draws another picture than before.
DRAWING_VERSION = 2


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
    check_arguments(1, seed, height, width)
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
    check_arguments(num_scenes, seed, height, width)
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
    check_arguments(num_scenes, seed, height, width)
    shards = list(range(NUM_SHARDS if num_scenes is None else min(NUM_SHARDS, num_scenes)))
    kwargs = {"num_shards": len(shards), "num_scenes": num_scenes, "seed": seed, "height": height, "width": width}
    return IterableDataset.from_generator(_rows, features=FEATURES, gen_kwargs={"shards": shards, **kwargs})


def check_arguments(num_scenes: int | None, seed: int, height: int, width: int) -> None:
    """Raise `ValueError` where no street can be drawn."""
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
