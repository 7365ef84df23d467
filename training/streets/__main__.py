"""Write drawn street scenes as a Hub dataset folder: `python -m training.streets --out DIR --num-scenes 500`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fcn_hf.files import check_folder, written_aside
from training.streets.dataset import ID2LABEL, check_arguments, streets_dataset

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

    python -m training.streets --out DIR --num-scenes {num_scenes} --seed {seed} --height {height} --width {width}

Columns: `image` (RGB, {width} wide x {height} high, JPEG quality 95, 4:4:4), `label` (8-bit index map, same size, PNG),
`name`. Labels: see `id2label.json`; 255 is unlabelled (bins, pillar boxes, the camera car's bonnet) and is ignored in
the loss and in every score. As in CamVid, lane markings are road, grass and hedges are tree, traffic lights are sign,
and what one sees through a railing or a bicycle wheel is fence or bicyclist.
"""


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    num_scenes: Annotated[int, typer.Option(help="Number of scenes.")],
    seed: Annotated[int, typer.Option(help="Seed of the whole dataset.")] = 0,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 360,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 480,
) -> None:
    """Write drawn street scenes as a Hub dataset folder that `datasets.load_dataset` reads."""
    out = out.resolve()
    try:
        check_arguments(num_scenes, seed, height, width)
        check_folder(out.parent)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} exists and is not an empty folder; pass another --out or remove it")
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    with written_aside(out.parent) as aside, tempfile.TemporaryDirectory(dir=aside) as cache:
        folder = aside / out.name
        (folder / "data").mkdir(parents=True)
        dataset = streets_dataset(num_scenes, seed, height, width, cache_dir=cache)
        dataset.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
        (folder / "id2label.json").write_text(json.dumps(ID2LABEL, indent=2) + "\n")
        card = CARD.format(num_scenes=num_scenes, seed=seed, height=height, width=width)
        (folder / "README.md").write_text(card)
    typer.echo(f"wrote {num_scenes} scenes to {out}")


if __name__ == "__main__":
    typer.run(main)
