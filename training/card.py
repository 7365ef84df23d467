"""The model card: what was trained on what and how, with the scores that were measured on the stored weights."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from fcn_hf import FCNForSemanticSegmentation
from fcn_hf.files import write_aside
from fcn_hf.model_card import model_card
from fcn_hf.text import printable
from training.recipe import Recipe

SCORES = {
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
}

# Pictures that a card shows, where the model folder holds them.
CURVE_FILE = "curve.png"
EXAMPLES_FILE = "examples.png"

SECTIONS = """## Scores

`{{ data.eval_split }}` split of `{{ dataset }}`, whole pictures at their own size, one confusion matrix over the split:
{% if trained_on_split %}
> **This split was trained on, too**: the scores say how well it was learnt, not how well new pictures are understood.
{% endif %}
| score | % |
|---|---|
{% for name, value in scores.items() -%}
| {{ name }} | {{ "%.2f" % (100 * value) }} |
{% endfor %}
Measured on the weights in this folder by

```
fcn-hf evaluate --model {{ model_id }} --dataset {{ data.dataset_name }} --split {{ data.eval_split }}
```
{% if not keeps_ids %}
after the masks were turned into ids as the recipe below says; the command by itself reads plain ids.
{% endif %}
{% if examples_file -%}
![Pictures of the split, their labels, and what the model predicts]({{ examples_file }})

{% endif -%}
## How it was trained

It started from {{ start }}. Training data:
the `{{ data.train_split }}` split of `{{ dataset }}` ({{ train_rows }} pictures)
{%- if data.streets_scenes %} and {{ data.streets_scenes }} drawn street scenes (`training/streets`){% endif -%}
. The recipe:

```yaml
{{ recipe }}```
{%- if notes %}

{{ notes | join(" ") }}
{%- endif %}
{%- if curve_file %}

![Loss and scores over the steps of the training]({{ curve_file }})
{%- endif %}
"""


def write_card(
    folder: str | Path,
    recipe: Recipe,
    model: FCNForSemanticSegmentation,
    scores: Mapping[str, Any],
    *,
    train_rows: int | None = None,
    model_id: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write README.md into a model folder: front matter with the scores as a model-index, and the text above.

    It shows the curve and the examples that lie in the folder. Scores on pictures that were trained on are no result to
    compare models by: they are in the text, but not in the model-index.

    Args:
        folder: the model folder.
        recipe: of the run.
        model: with the weights in `folder`.
        scores: what `fcn_hf.evaluation.evaluate_split` gave for it.
        train_rows: pictures in the training split; None where they weren't counted.
        model_id: Hub id that the model goes to; the folder's name without it.
        notes: sentences on parts of the run that were trained otherwise than the recipe says.
    """
    folder, data = Path(folder), recipe.data
    config: Any = model.config
    is_folder = os.path.isdir(data.dataset_name)
    dataset = Path(data.dataset_name).name if is_folder else data.dataset_name
    start = recipe.model.model_name_or_path
    title = f"FCN-{config.prediction_stride}s"
    trained_on_split = data.eval_split in data.train_split.split("+")
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=data.eval_split,
            metric_type=key,
            metric_name=name,
            metric_value=round(scores[key], 4),
        )
        for key, name in SCORES.items()
    ]
    by_name = {name: scores[key] for key, name in SCORES.items()}
    by_name |= {f"IoU of {printable(label)}".replace("|", r"\|"): iou for label, iou in scores["per_class_iou"].items()}
    text = model_card(
        config,
        model_id or folder.name,
        title,
        f'{title} ("Fully Convolutional Networks for Semantic Segmentation", Long, Shelhamer, Darrell; CVPR 2015) '
        f"with {model.num_parameters():,} parameters.",
        SECTIONS,
        usage_note=recipe.card.usage_note,
        front_matter={
            "model_name": title,
            "datasets": None if is_folder else [dataset],
            "license": recipe.card.model_license,
            "eval_results": None if trained_on_split else results,
        },
        data=data,
        dataset=dataset,
        trained_on_split=trained_on_split,
        scores=by_name,
        keeps_ids=data.label_ids(recipe.model.semantic_loss_ignore_index).keeps_ids,
        examples_file=EXAMPLES_FILE if (folder / EXAMPLES_FILE).is_file() else None,
        curve_file=CURVE_FILE if (folder / CURVE_FILE).is_file() else None,
        start="random weights" if start is None else f"the weights of `{start}`",
        train_rows="an unknown number of" if train_rows is None else train_rows,
        notes=notes,
        recipe=yaml.safe_dump(recipe.given, sort_keys=False, default_flow_style=None, width=110),
    )
    write_aside(folder / "README.md", lambda path: path.write_text(text))
