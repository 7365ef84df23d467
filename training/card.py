"""The model card: what was trained on what and how, with the scores that were measured on the stored weights."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fcn_hf.files import write_aside

SCORES = {
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
}

# Pictures that a card shows, where the model folder holds them.
CURVE_FILE = "curve.png"
EXAMPLES_FILE = "examples.png"


@dataclass
class CardArguments:
    """What a card says and shows besides what was measured."""

    model_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})
    usage_note: str | None = field(default=None, metadata={"help": "What the data ask of users, for the card."})
    example_pictures: int = field(
        default=4,
        metadata={
            "help": "Evaluation pictures that are shown with their masks, in the card and, after each evaluation, by "
            "TensorBoard, Weights & Biases or trackio; 0 where the data mustn't be shown."
        },
    )


TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ title }} ("Fully Convolutional Networks for Semantic Segmentation", Long, Shelhamer, Darrell; CVPR 2015)
with {{ parameters }} parameters. It gives one of {{ classes|length }} classes to every pixel of a picture of any size:
{{ classes|join(", ") }}.
{% if usage_note %}
> {{ usage_note }}
{% endif %}
## How to use it

```python
from transformers import pipeline

segment = pipeline("image-segmentation", model="{{ model_id }}", trust_remote_code=True)
segments = segment("street.jpg")  # a list of {"label": ..., "mask": PIL picture}
```

With `pip install fcn-hf` and `import fcn_hf` it loads without `trust_remote_code`.

## Scores

`{{ split }}` split of `{{ dataset }}`, whole pictures at their own size, one confusion matrix over the split:
{% if trained_on_split %}
> **This split was trained on, too**: the scores say how well it was learnt, not how well new pictures are understood.
{% endif %}
| score | % |
|---|---|
{% for name, value in scores -%}
| {{ name }} | {{ value }} |
{% endfor -%}
{% for name, value in per_class -%}
| IoU of {{ name }} | {{ value }} |
{% endfor %}
Measured on the weights in this folder by

```
{{ command }}
```
{% if not keeps_ids %}
after the masks were turned into ids as the recipe below says; the command by itself reads plain ids.
{% endif %}
{% if examples_file -%}
![Pictures of the split, their labels, and what the model predicts]({{ examples_file }})

{% endif -%}
## How it was trained

{{ start }} Training data: the `{{ train_split }}` split of `{{ dataset }}` ({{ train_rows }} pictures)
{%- if streets_scenes %} and {{ streets_scenes }} drawn street scenes (`training/streets.py`){% endif %}. The recipe:

```yaml
{{ recipe }}```
{%- if curve_file %}

![Loss and scores over the steps of the training]({{ curve_file }})
{%- endif %}
"""


def write_card(
    folder: str | Path,
    *,
    title: str,
    parameters: int,
    classes: list[str],
    scores: Mapping[str, Any],
    dataset: str,
    train_split: str,
    train_rows: int | str,
    split: str,
    recipe: Mapping[str, Any],
    start: str | None,
    streets_scenes: int = 0,
    keeps_ids: bool = True,
    model_id: str | None = None,
    license: str | None = None,
    usage_note: str | None = None,
) -> None:
    """Write README.md into a model folder: front matter with the scores as a model-index, and the text above.

    It shows the curve and the examples that lie in the folder. Scores on pictures that were trained on are no result to
    compare models by: they are in the text, but not in the model-index.

    Args:
        folder: the model folder.
        title: such as "FCN-8s".
        parameters: number of them.
        classes: their names in the order of their ids.
        scores: what `fcn_hf.evaluation.evaluate_split` gave for the weights in `folder`.
        dataset: Hub id or folder that training and scores used.
        train_split, train_rows: what was trained on.
        split: what was scored.
        recipe: the arguments of the run.
        start: where the weights came from before this run; None for a random start.
        streets_scenes: drawn scenes that were added to the training split.
        keeps_ids: whether the masks of the dataset hold class ids as they are.
        model_id: Hub id that the model goes to; the folder's name without it.
        license, usage_note: of the weights, where the data ask for one.
    """
    model_id = model_id or Path(folder).name
    trained_on_split = split in train_split.split("+")
    name = Path(dataset).name if os.path.isdir(dataset) else dataset
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=name,
            dataset_name=name,
            dataset_split=split,
            metric_type=key,
            metric_name=SCORES[key],
            metric_value=round(scores[key], 4),
        )
        for key in SCORES
    ]
    card_data = ModelCardData(
        model_name=title,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["fcn", "semantic-segmentation", "vision"],
        datasets=None if os.path.isdir(dataset) else [dataset],
        license=license,
        eval_results=None if trained_on_split else results,
    )
    percent = {key: f"{100 * value:.2f}" for key, value in scores.items() if key in SCORES}
    text = ModelCard.from_template(
        card_data,
        template_str=TEMPLATE,
        title=title,
        parameters=f"{parameters:,}",
        classes=classes,
        model_id=model_id,
        trained_on_split=trained_on_split,
        curve_file=CURVE_FILE if (Path(folder) / CURVE_FILE).is_file() else None,
        examples_file=EXAMPLES_FILE if (Path(folder) / EXAMPLES_FILE).is_file() else None,
        dataset=name,
        split=split,
        train_split=train_split,
        train_rows=train_rows,
        streets_scenes=streets_scenes,
        keeps_ids=keeps_ids,
        usage_note=usage_note,
        scores=[(SCORES[key], value) for key, value in percent.items()],
        per_class=[(label, f"{100 * iou:.2f}") for label, iou in scores["per_class_iou"].items()],
        command=f"fcn-hf evaluate --model {model_id} --dataset {dataset} --split {split}",
        start="It started from random weights." if start is None else f"It started from the weights of `{start}`.",
        recipe=yaml.safe_dump(dict(recipe), sort_keys=False, default_flow_style=None, width=110),
    ).content
    write_aside(Path(folder) / "README.md", lambda path: path.write_text(text))
