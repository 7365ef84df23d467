"""The model card that lies in every model folder: what the net is, how to use it, and what else there is to say."""

from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .configuration_fcn import FCNConfig
from .text import printable

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ description }}

It gives one of {{ classes|length }} classes to every pixel of a picture of any size: {{ classes|join(", ") }}.
{%- for task, labels in other_tasks.items() %}
`logits_by_task["{{ task }}"]` gives one of {{ labels|length }} others: {{ labels|join(", ") }}.
{%- endfor %}
{% if usage_note %}
> {{ usage_note }}
{% endif %}
## How to use it

```python
{% if num_channels == 3 -%}
from transformers import pipeline

segment = pipeline("image-segmentation", model={{ model_id|tojson }}, trust_remote_code=True)
segments = segment("picture.jpg")  # a list of {"label": ..., "mask": PIL picture}
{%- else -%}
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

model = AutoModelForSemanticSegmentation.from_pretrained({{ model_id|tojson }}, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained({{ model_id|tojson }}, trust_remote_code=True)
inputs = processor(array, return_tensors="pt")  # an array of shape ({{ num_channels }}, height, width)
mask = processor.post_process_semantic_segmentation(model(**inputs), [array.shape[1:]])[0]
{%- endif %}
```

With `pip install fcn-hf` and `import fcn_hf` it loads without `trust_remote_code`.

"""


def model_card(
    config: FCNConfig,
    model_id: str,
    title: str,
    description: str,
    sections: str,
    *,
    usage_note: str | None = None,
    front_matter: dict[str, Any] | None = None,
    **values: Any,
) -> str:
    """The text of a card.

    Args:
        config: of the net; its classes and channels are named.
        model_id: Hub id, or name of the folder.
        title, description: such as "FCN-8s, PASCAL VOC", and a sentence or two about the net.
        sections: what follows how to use it: a Jinja template, filled with `values` and those of `TEMPLATE`.
        usage_note: what the data ask of users.
        front_matter: fields of `ModelCardData` besides library, task and tags, such as `license`.
    """
    return ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag="image-segmentation",
            tags=["fcn", "semantic-segmentation", "vision"],
            **(front_matter or {}),
        ),
        template_str=TEMPLATE + sections,
        title=title,
        description=description,
        classes=_printable(config.id2label),
        other_tasks={task: _printable(labels) for task, labels in list((config.id2label_by_task or {}).items())[1:]},
        num_channels=config.num_channels,
        model_id=model_id,
        usage_note=usage_note,
        **values,
    ).content


def _printable(id2label: Any) -> list[str]:
    return [printable(label) for label in (id2label or {}).values()]
