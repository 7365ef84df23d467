"""Configuration of Fully Convolutional Networks (Long, Shelhamer, Darrell, CVPR 2015 and PAMI 2016)."""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from torch.nn import ModuleDict
from transformers import CONFIG_MAPPING, PreTrainedConfig

HIDDEN_SIZES: dict[str, tuple[int, ...]] = {
    "vgg": (64, 128, 256, 512, 512),
    "alexnet": (96, 256, 384, 384, 256),
    "googlenet": (64, 192, 480, 832, 1024),
}


# As many as a 16-bit label map holds, and ten times what the deepest VGG has: a config beyond these is damaged, and
# would take all memory.
MOST_CLASSES = 65536
MOST_CONVOLUTIONS = 40


def check_id2label(id2label: Any, what: str = "id2label") -> None:
    """Raise `ValueError` unless the names of classes are texts by the ids 0, 1, 2, ..., numbers or written ones."""
    if not isinstance(id2label, dict) or not all(isinstance(name, str) for name in id2label.values()):
        raise ValueError(f"{what}={_brief(id2label)} must name each class id with a text.")
    ids = [index if isinstance(index, int) else str(index) for index in id2label]
    wrong = [index for index in ids if not str(index).isdecimal() or len(str(index)) > 9]
    if wrong:
        raise ValueError(f"{what} has the id {wrong[0]!r}; ids are the whole numbers 0, 1, 2, ...")
    if not ids or sorted(map(int, ids)) != list(range(len(ids))):
        raise ValueError(f"{what} has the ids {_brief(ids)}; they must be 0, 1, 2, ..., each once and without gaps.")


def _check_count(name: str, count: Any) -> None:
    if not isinstance(count, int) or count > MOST_CLASSES:
        raise ValueError(f"{name}={count!r} must be a whole number of classes, at most {MOST_CLASSES}.")


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


@strict
class FCNConfig(PreTrainedConfig):
    r"""
    Everything that shapes an FCN; the default is FCN-8s on VGG16 at the paper's width (134M parameters).

    Args:
        backbone (`str`, *optional*, defaults to `"vgg"`):
            The classifier made fully convolutional: `"vgg"` (3x3 convolutions in stages, each ended by a 2x2 pooling),
            `"alexnet"` (as in the release), `"googlenet"` (the paper's with its local response normalisation, or
            torchvision's with `use_batch_norm`) or `"auto"`: any backbone of transformers or timm, as
            `backbone_config` says.
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            For `"auto"`: configuration of a backbone whose feature maps have strides 8, 16 and 32, such as ResNet,
            ConvNeXt, Swin or `TimmBackboneConfig`; a dict needs its `model_type`.
        hidden_sizes (`list[int]`, *optional*):
            Channels: of VGG's five stages (defaults to `(64, 128, 256, 512, 512)`), of AlexNet's five convolutions
            (`(96, 256, 384, 384, 256)`), or of GoogLeNet's five stages (`(64, 192, 480, 832, 1024)`, or these times one
            common factor).
        depths (`list[int]`, *optional*, defaults to `(2, 2, 3, 3, 3)`):
            3x3 convolutions in each stage of VGG.
        use_batch_norm (`bool`, *optional*, defaults to `False`):
            Whether each convolution of VGG or GoogLeNet is followed by batch normalisation, as in torchvision's
            VGG16-BN and GoogLeNet.
        use_local_response_norm (`bool`, *optional*, defaults to `True`):
            Whether AlexNet, and GoogLeNet without batch normalisation, normalise over neighbouring channels.
        conv_groups (`int`, *optional*, defaults to 2):
            Groups of AlexNet's second, fourth and fifth convolution; torchvision's has 1.
        hidden_size (`int`, *optional*):
            Channels of fc6 and fc7; defaults to 4096 for VGG and AlexNet. GoogLeNet and `"auto"` have neither (0)
            unless a number is given: then fc6 is a 3x3 convolution, as in the head of torchvision's FCN.
        prediction_stride (`int`, *optional*, defaults to 8):
            32, 16 or 8: the stride of the finest scores, hence FCN-32s, FCN-16s (adds pool4) and FCN-8s (adds pool4
            and pool3).
        geometry (`str`, *optional*, defaults to `"same"`):
            `"same"` pads 3x3 by 1 and fc6 by 3. `"caffe"` pads the first convolution by 100 px and fc6 by 0, as the
            authors' release does; published weights need it.
        upsampling (`str`, *optional*, defaults to `"learned"`):
            Every transposed convolution starts as bilinear interpolation. `"learned"`: all of them train. `"inner"`:
            all but the last do (CVPR 2015). `"bilinear"`: none does (the release). `"interpolate"`: as `"bilinear"`,
            but the last one is resizing to the picture's size instead, as in torchvision's FCN (`"same"` only).
        skip_scales (`list[float]`, *optional*, defaults to `(1.0, 1.0)`):
            Factors on pool4 and pool3 before they are scored; the at-once FCN-8s uses `(0.01, 0.0001)`.
        tasks (`dict[str, int]`, *optional*):
            Several heads on one trunk: name and number of classes of each, such as
            `{"semantic": 33, "geometric": 3}` (SIFT Flow). The first is the one that `num_labels`, `id2label` and
            `logits` speak of. A file holds them as a list of pairs, since an object in JSON has no order.
        id2label_by_task (`dict[str, dict[int, str]]`, *optional*):
            Class names of each of the `tasks`.
        streams (`list[int]`, *optional*):
            Several trunks, whose maps are scored together: how many channels of `pixel_values` each takes, such as
            `(3, 3)` for colour and HHA (NYUDv2). They add up to `num_channels`.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.5):
            Dropout probability after fc6 and after fc7, in [0, 1).
        num_channels (`int`, *optional*, defaults to 3):
            Channels of `pixel_values`; with `streams`, their sum.
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
            Label that counts neither in the loss nor in any score.
        palette (`list[list[int]]`, *optional*):
            A colour (R, G, B in 0..255) for each class, with which masks are shown.

    Raises:
        `StrictDataclassError` (from `huggingface_hub.errors`) or `ValueError`, with the wrong value and what is right.

    Example:

    ```python
    >>> from fcn_hf import FCNConfig, FCNForSemanticSegmentation

    >>> config = FCNConfig(prediction_stride=16, num_labels=21)
    >>> model = FCNForSemanticSegmentation(config)
    >>> model.fcn.trunk.classifier.fc6
    Conv2d(512, 4096, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3))
    ```"""

    model_type = "fcn"

    backbone: str = "vgg"
    backbone_config: dict | PreTrainedConfig | None = None
    hidden_sizes: list[int] | tuple[int, ...] = ()
    depths: list[int] | tuple[int, ...] = (2, 2, 3, 3, 3)
    use_batch_norm: bool = False
    use_local_response_norm: bool = True
    conv_groups: int = 2
    hidden_size: int | None = None
    prediction_stride: int = 8
    geometry: str = "same"
    upsampling: str = "learned"
    skip_scales: list[float | int] | tuple[float | int, ...] = (1.0, 1.0)
    tasks: dict[str, int] | list | tuple | None = None
    id2label_by_task: dict | None = None
    streams: list[int] | tuple[int, ...] | None = None
    hidden_dropout_prob: float | int = 0.5
    num_channels: int | None = None
    semantic_loss_ignore_index: int = 255
    palette: list | tuple | None = None

    def __post_init__(self, **kwargs):
        if isinstance(self.backbone_config, dict):
            settings = dict(self.backbone_config)
            if settings.get("model_type") not in CONFIG_MAPPING:
                raise ValueError(
                    f"backbone_config has model_type={settings.get('model_type')!r}; expected one that transformers "
                    "knows, such as 'resnet', 'convnext' or 'timm_backbone'."
                )
            self.backbone_config = CONFIG_MAPPING[settings.pop("model_type")].from_dict(settings)
        if not self.hidden_sizes:
            self.hidden_sizes = HIDDEN_SIZES.get(self.backbone, ())
        if self.hidden_size is None:
            self.hidden_size = 4096 if self.backbone in ("vgg", "alexnet") else 0
        if self.num_channels is None:
            self.num_channels = sum(self.streams) if self.streams else 3
        if self.id2label is not None:
            check_id2label(self.id2label)
        if kwargs.get("num_labels") is not None:
            _check_count("num_labels", kwargs["num_labels"])
        if self.id2label_by_task is not None:
            for task, labels in self.id2label_by_task.items():
                check_id2label(labels, f"id2label_by_task[{task!r}]")
            self.id2label_by_task = {
                task: {int(index): label for index, label in labels.items()}
                for task, labels in self.id2label_by_task.items()
            }
        if self.tasks is not None:
            try:
                self.tasks = dict(self.tasks)
            except (TypeError, ValueError):
                raise ValueError(f"tasks={self.tasks!r} must be pairs of a name and a number of classes.") from None
            for task, count in self.tasks.items():
                _check_count(f"tasks[{task!r}]", count)
        if self.tasks:
            first, count = next(iter(self.tasks.items()))
            labels = (self.id2label_by_task or {}).get(first)
            if self.id2label is None and kwargs.get("num_labels") in (None, count):
                self.id2label = labels or {index: f"LABEL_{index}" for index in range(count)}
        super().__post_init__(**kwargs)
        if self.id2label is not None and self.label2id is None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As the base class does, but of an FCN alone: of another model it would take what is called alike."""
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(f"it is a model of the type {model_type!r}; expected {cls.model_type!r}.")
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict:
        """As the base class does, with `tasks` as a list of pairs, which keeps their order in a file."""
        output = super().to_dict()
        if self.tasks is not None:
            output["tasks"] = [[task, count] for task, count in dict(self.tasks).items()]
        return output

    def save_pretrained(self, save_directory, **kwargs):
        """As the base class does; beside a whole net's code the features alone are there for `AutoModel` too."""
        auto_map = getattr(self, "auto_map", None) or {}
        if "AutoModelForSemanticSegmentation" in auto_map:
            whole = auto_map["AutoModelForSemanticSegmentation"]
            auto_map["AutoModel"] = whole.replace("FCNForSemanticSegmentation", "FCNModel")
        return super().save_pretrained(save_directory, **kwargs)

    def validate_choices(self):
        """`backbone`, `prediction_stride`, `geometry` and `upsampling` come from short lists."""
        choices = {
            "backbone": ("vgg", "alexnet", "googlenet", "auto"),
            "prediction_stride": (32, 16, 8),
            "geometry": ("same", "caffe"),
            "upsampling": ("learned", "inner", "bilinear", "interpolate"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; expected one of {allowed}.")
        if self.upsampling == "interpolate" and self.geometry == "caffe":
            raise ValueError("upsampling='interpolate' can't crop the 100 px of geometry='caffe'; use 'bilinear'.")

    def validate_stages(self):
        """Five stages, since pool3, pool4 and pool5 (strides 8, 16, 32) are what an FCN scores."""
        if self.backbone == "auto":
            if self.backbone_config is None:
                raise ValueError("backbone='auto' needs a backbone_config, such as ResNetConfig().")
            return
        if self.backbone_config is not None:
            raise ValueError(f"backbone_config is for backbone='auto', not for backbone={self.backbone!r}.")
        if len(self.hidden_sizes) != 5 or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes={self.hidden_sizes} must hold five positive channel counts, one per stage.")
        if len(self.depths) != 5 or min(self.depths) < 1 or max(self.depths) > MOST_CONVOLUTIONS:
            raise ValueError(
                f"depths={self.depths} must hold five positive numbers of convolutions, one per stage, each at most "
                f"{MOST_CONVOLUTIONS}."
            )
        if self.backbone == "alexnet" and any(self.hidden_sizes[i] % self.conv_groups for i in (0, 1, 2, 3, 4)):
            raise ValueError(f"hidden_sizes={self.hidden_sizes} must be multiples of conv_groups={self.conv_groups}.")
        if self.backbone == "googlenet":
            paper, first = HIDDEN_SIZES["googlenet"], self.hidden_sizes[0]
            if first % 8 or any(64 * self.hidden_sizes[i] != first * paper[i] for i in range(5)):
                raise ValueError(
                    f"hidden_sizes={self.hidden_sizes} of GoogLeNet must be {paper} times one multiple of 1/8."
                )

    def validate_tasks_and_streams(self):
        """Heads have at least one class each, streams at least one channel each, and their sums are right."""
        tasks = None if self.tasks is None else dict(self.tasks)
        streams = self.streams
        if tasks is not None:
            # Heads are kept by their names in a ModuleDict, which has methods of its own, such as "items".
            named = all(str(task).isidentifier() and not hasattr(ModuleDict, str(task)) for task in tasks)
            if not tasks or any(count < 1 for count in tasks.values()) or not named:
                raise ValueError(
                    f"tasks={tasks} must name at least one task, with words that name no method of torch's ModuleDict, "
                    "each with a positive number of classes."
                )
            first, count = next(iter(tasks.items()))
            if self.num_labels != count:
                raise ValueError(
                    f"num_labels={self.num_labels}, but the first of the tasks, {first!r}, has {count} classes; leave "
                    "num_labels out or give that many id2label."
                )
        for task, labels in (self.id2label_by_task or {}).items():
            if tasks is None or task not in tasks or sorted(labels) != list(range(tasks[task])):
                raise ValueError(
                    f"id2label_by_task[{task!r}] must name the classes 0..n-1 of one of the tasks={tasks}."
                )
        if streams is not None and (not streams or min(streams) < 1 or sum(streams) != self.num_channels):
            raise ValueError(f"streams={streams} must be positive and add up to num_channels={self.num_channels}.")
        if self.palette is not None:
            for colour in self.palette:
                if not isinstance(colour, list | tuple) or len(colour) != 3 or not all(c in range(256) for c in colour):
                    raise ValueError(f"palette holds {colour!r}; expected lists [R, G, B] of whole numbers in 0..255.")

    def validate_sizes(self):
        """Counts are positive, `skip_scales` are two, dropout is a probability."""
        convolutional_head = self.backbone in ("googlenet", "auto")
        for name in ("hidden_size", "num_channels", "num_labels", "conv_groups"):
            if getattr(self, name) < (0 if name == "hidden_size" and convolutional_head else 1):
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if len(self.skip_scales) != 2 or not all(map(math.isfinite, self.skip_scales)):
            raise ValueError(f"skip_scales={self.skip_scales} must hold two finite factors, for pool4 and pool3.")
        if not 0 <= self.hidden_dropout_prob < 1:
            raise ValueError(f"hidden_dropout_prob={self.hidden_dropout_prob} must be at least 0 and below 1.")


__all__ = ["FCNConfig"]
