"""Labelled street scenes without end: pictures the project draws itself, in CamVid's eleven classes.

`python -m training.streets --out DIR --num-scenes 500` writes a Hub dataset folder of them.
"""

from training.streets.dataset import ID2LABEL, render_street, streets_dataset, streets_stream

__all__ = ["ID2LABEL", "render_street", "streets_dataset", "streets_stream"]
