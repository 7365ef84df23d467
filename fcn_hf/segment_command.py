"""What `fcn-hf segment` does with pictures, with a film and with a dataset."""

import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import PngImagePlugin
from rich.markup import escape
from rich.progress import Progress, track
from typer import Exit

from .errors import FCNError, in_one_line
from .files import check_file, check_folder, is_png_of, write_aside
from .films import check_target, segment_film
from .memory import spare_memory
from .metrics import distinct_names
from .palettes import check_ids_fit, class_colours, label_picture
from .prediction import WHOLE_PICTURE, InferenceMode, load_on_device, predict
from .terminal import complain, console, stderr, warn
from .text import printable
from .tiles import is_huge, predict_in_tiles, tiling_for

SOFTWARE = "fcn-hf segment"
"""What each mask says of itself, so that it may be written anew."""


def write_masks(
    images: list[Path], model: str, out: Path, device: str | None, dtype: str | None, overwrite: bool,
    mode: InferenceMode, tile: bool,
) -> None:  # fmt: skip
    """Write NAME.png for each picture NAME, and go on after one that has no mask; arguments are the command's."""
    targets = mask_targets(images, out, overwrite)
    net, processor = load_on_device(model, device, dtype)
    check_ids_fit(net.config, model)
    colours = class_colours(net.config)
    names = distinct_names(net.config.id2label[index] for index in range(net.config.num_labels))
    own_mark = PngImagePlugin.PngInfo()
    own_mark.add_text("Software", SOFTWARE)
    failures, tiling = 0, None
    with Progress(console=stderr, transient=True) as progress:
        for target, path in progress.track(targets.items(), description="Segmenting"):
            kept = target.with_name(f".{target.name}.bands")
            try:
                if tile or (mode == WHOLE_PICTURE and is_huge(path, processor)):
                    if tiling is None:
                        spare_memory()
                        tiling = tiling_for(net)
                        if not tiling.is_seamless:
                            warn(f"{model!r} sees all of a picture at once; where its tiles meet, masks may show it.")
                    watch = partial(progress.track, description=escape(path.name))
                    mask = predict_in_tiles(net, processor, path, tiling, kept, watch)
                else:
                    mask = predict(net, processor, path, mode)
                picture = label_picture(mask, colours)
                write_aside(target, partial(picture.save, pnginfo=own_mark))
                shutil.rmtree(kept, ignore_errors=True)
            except Exception as error:  # a model or processor of another kind passes on whatever it meets
                complain(f"{path}: {in_one_line(error)}")
                failures += 1
                continue
            ids, pixels = np.unique(mask, return_counts=True)
            order = np.argsort(-pixels)
            shares = ", ".join(f"{printable(names[ids[i]])} {pixels[i] / mask.size:.1%}" for i in order)
            console.print(f"{target}: {shares}")
    if failures:
        complain(f"{failures} of {len(targets)} pictures have no mask.")
        raise Exit(code=1)


def mask_targets(images: list[Path], out: Path, overwrite: bool) -> dict[Path, Path]:
    """The picture of each mask to be written; `FCNError` where a mask would take the place of what is to stay."""
    check_folder(out)
    targets: dict[Path, Path] = {}
    for path in images:
        target = out / f"{path.stem}.png"
        if target in targets:
            raise FCNError(f"{targets[target]} and {path} would both become {target}; rename one, or use two folders.")
        if target.resolve() == path.resolve():
            raise FCNError(f"The mask of {path} would overwrite it; choose another folder for --out.")
        check_file(target, partial(is_png_of, SOFTWARE), overwrite)
        targets[target] = path
    return targets


def write_film(
    source: Path, model: str, target: Path, device: str | None, dtype: str | None, overwrite: bool,
    mode: InferenceMode, opacity: float,
) -> None:  # fmt: skip
    """`segment` for a film."""
    check_target(target)
    if target.resolve() == source.resolve():
        raise FCNError(f"The masks of {source} would overwrite it; choose another name for --out.")
    check_file(target, lambda path: False, overwrite)
    net, processor = load_on_device(model, device, dtype)
    with Progress(console=stderr, transient=True) as progress:
        film = segment_film(
            net, processor, source, target, class_colours(net.config), opacity, mode,
            lambda frames, count: progress.track(frames, count, description="Segmenting"),
        )  # fmt: skip
    if film.frames < film.announced:
        warn(f"Only {film.frames} of {film.announced} frames of {source} could be read; it may be cut short.")
    sound = ", without the sound" if film.has_sound else ""
    console.print(f"{target}: {film.frames} frames{sound}")


def write_rows(
    dataset: str, split: str, image_column: str | None, model: str, out: Path, device: str | None,
    dtype: str | None, mode: InferenceMode, shard_rows: int, engine: str | None,
) -> None:  # fmt: skip
    """`segment` for a dataset."""
    from .shards import SegmentationJob, begin, count_missing

    # Workers elsewhere have folders of their own to start from.
    dataset, model = (os.path.abspath(name) if os.path.isdir(name) else name for name in (dataset, model))
    job = SegmentationJob(dataset, split, model, out.absolute(), shard_rows, image_column, device, dtype, mode)
    writer, shards = begin(job)
    count = len(writer.rows)
    written: Iterable[list[str]] = map(writer.write, shards)
    if engine == "ray" and shards:
        from .shards_on_ray import write_on_ray

        written = write_on_ray(job, shards)
    for errors in track(written, "Segmenting", len(shards), console=stderr, transient=True):
        for error in errors:
            complain(error)
    missing = count_missing(job.out)
    console.print(f"{job.out}: masks of {count - missing} rows, {count} in all")
    if missing:
        complain(f"{missing} of {count} rows have no mask.")
        raise Exit(code=1)
