"""The card that lies beside an ONNX file: what goes in, what comes out, how to run it, what was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from PIL import Image

from .configuration_fcn import FCNConfig
from .text import printable

if TYPE_CHECKING:
    from .export import Calibration, ExportReport

TEMPLATE = """# {{ model_id }} as ONNX, {{ dtype }}

`{{ file }}` gives one of {{ classes|length }} classes to every pixel of a picture, wherever ONNX is run.

| | name | dtype | shape |
|---|---|---|---|
| input | `pixel_values` | float32 | (batch_size, {{ channels }}, height, width), sizes from 1 on |
{% for name, dtype, shape in outputs -%}
| output | `{{ name }}` | {{ dtype }} | {{ shape }} |
{% endfor %}
{% if channels == 3 %}Pictures are RGB. {% endif -%}
{% if resize %}They are resized (size: {{ size }}). {% endif -%}
Values 0 to 255 are multiplied by {{ factor }}; then the mean {{ mean }} is subtracted, and the result divided by
{{ std }}.

Classes, from 0 on: {{ classes|join(", ") }}.

## How to run it

```python
import numpy as np
import onnxruntime
{%- if channels == 3 %}
from PIL import Image{% if resize %}, ImageOps{% endif %}

picture = Image.open("picture.jpg").convert("RGB")
{%- for line in resize %}
{{ line }}
{%- endfor %}
{%- else %}

picture = np.load("picture.npy")  # (height, width, {{ channels }})
{%- endif %}
pixels = (np.asarray(picture) * {{ factor }} - {{ mean }}) / {{ std }}
inputs = {"pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32)}
session = onnxruntime.InferenceSession({{ file|tojson }}, providers=["CPUExecutionProvider"])
{%- if "label_map" in output_names %}
mask = session.run(["label_map"], inputs)[0][0]  # class ids, (height, width)
{%- else %}
mask = session.run(["logits"], inputs)[0][0].argmax(axis=0)  # class ids, (height, width)
{%- endif %}
```

## Measured

Largest difference from the model's logits in ONNX Runtime, as a share of the largest logit: {{ difference }}.
{% if scores %}
Scores in percent on {{ calibration.name }}, of whose pictures {{ calibrating }} gave the ranges of the 8-bit maps:

| | {{ scores|join(" | ") }} |
|---|{{ "---|" * scores|length }}
{% for name, values in table -%}
| {{ name }} | {{ values|join(" | ") }} |
{% endfor -%}
{% endif -%}
"""

SCORES = ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou")


def onnx_card(
    file: str,
    model_id: str,
    config: FCNConfig,
    processor: Any,
    dtype: str,
    output_names: Sequence[str],
    report: "ExportReport",
    calibration: "Calibration | None",
) -> str:
    """The text of a card.

    Args:
        file: its name.
        model_id: what the model is called.
        config, processor: of the model.
        dtype: what the file computes in.
        output_names: in the file's order.
        report, calibration: what was measured, and on what.
    """
    task_sizes = list(dict(config.tasks).values()) if config.tasks else [int(config.num_labels or 0)]
    outputs = [
        (name, "float32", f"(batch_size, {size}, height, width)")
        for name, size in zip(output_names, task_sizes, strict=False)
    ]
    if "label_map" in output_names:
        outputs.append(
            ("label_map", "uint8" if int(task_sizes[0] or 0) <= 256 else "int64", "(batch_size, height, width)")
        )
    normalizes = processor.do_normalize
    return (
        Environment(keep_trailing_newline=True)
        .from_string(TEMPLATE)
        .render(
            file=file,
            model_id=model_id,
            dtype=dtype,
            classes=[printable(label) for label in dict(config.id2label or {}).values()],
            channels=config.num_channels,
            outputs=outputs,
            output_names=output_names,
            resize=resizing(processor),
            size=dict(processor.size or {}),
            factor=processor.rescale_factor if processor.do_rescale else 1,
            mean=processor.image_mean if normalizes else 0,
            std=processor.image_std if normalizes else 1,
            difference=f"{report.difference:.1e}",
            scores=report.scores,
            table=score_rows(report.scores),
            calibration=calibration,
            calibrating=calibration and min(calibration.pictures, len(calibration.rows)),
        )
    )


def is_card_of(file: str, path: Path) -> bool:
    """Whether there is a card at `path`, and of an ONNX file of that name."""
    try:
        return f"`{file}` gives one of " in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def score_rows(scores: Mapping[str, Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """The scores of each dtype -> the name of each score, and its value in percent for each dtype."""
    names = SCORES if scores else ()
    return [(name.replace("_", " "), [f"{100 * values[name]:.2f}" for values in scores.values()]) for name in names]


def resizing(processor: Any) -> list[str]:
    """The lines of Python with which Pillow resizes as the image processor does; none if it doesn't."""
    if not processor.do_resize:
        return []
    size = {name: edge for name, edge in dict(processor.size).items() if edge}
    resample = f"Image.Resampling.{Image.Resampling(int(processor.resample)).name}"
    lines = []
    if "height" in size and "width" in size:
        lines.append(f"picture = picture.resize(({size['width']}, {size['height']}), {resample})")
    if edge := size.get("shortest_edge"):
        lines.append(f"picture = ImageOps.cover(picture, ({edge}, {edge}), {resample})")
    if "longest_edge" in size or "max_height" in size:
        width, height = (size.get(name, size.get("longest_edge")) for name in ("max_width", "max_height"))
        lines.append(f"picture = ImageOps.contain(picture, ({width}, {height}), {resample})")
    return lines
