"""Which net is trained: a new one, or one that goes on from another's weights; and its image processor."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.utils import IMAGE_PROCESSOR_NAME, cached_file, is_timm_available

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.errors import FCNError, config_reason
from fcn_hf.prediction import loading, read_net
from training.augmentation import AugmentationArguments
from training.data import parse_structured
from training.limits import check_values

NO_START = "No weights to start from at"


@dataclass
class ModelArguments:
    """Which net is trained; `backbone` ... `semantic_loss_ignore_index` are `FCNConfig`'s."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Start from these weights, by name: the coarser net's folder or Hub id."}
    )
    teacher_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Learn this finished net's answers beside the labels: the folder or Hub id of a larger one."},
    )
    backbone: str = "vgg"
    backbone_config: dict | str | None = field(
        default=None,
        metadata={
            "help": "For backbone auto: model_type and settings of a transformers or timm backbone, as a mapping."
        },
    )
    hidden_sizes: list[int] = field(default_factory=list, metadata={"help": "The backbone's own if left out."})
    depths: list[int] = field(default_factory=lambda: [2, 2, 3, 3, 3])
    use_batch_norm: bool = False
    hidden_size: int | None = None
    prediction_stride: int = 8
    geometry: str = "same"
    upsampling: str = "learned"
    skip_scales: list[float] = field(default_factory=lambda: [1.0, 1.0])
    hidden_dropout_prob: float = 0.5
    semantic_loss_ignore_index: int = 255
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "Keep a moving average of the weights, such as 0.999; none if left out."},
    )
    weights_dtype: str = field(
        default="float32", metadata={"help": "float32 or float16: how the finished folder stores the weights."}
    )

    def __post_init__(self):
        parse_structured(self)
        check_values(self)


def synchronised(model: FCNForSemanticSegmentation) -> FCNForSemanticSegmentation:
    """The model with batch normalisation whose statistics are those of all processes' pictures together.

    Only GPUs can; on CPUs processes learn what one learns with `freeze_batch_norm`.
    """
    # torch's own drops the activations that timm keeps in its normalisations.
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if is_timm_available():
        from timm.layers import convert_sync_batchnorm as convert
    return convert(model)


# What a start's own config says, and what a recipe decides anew at each start.
SIZES = ("backbone", "hidden_sizes", "depths", "use_batch_norm", "hidden_size")
FROM_THE_START = (*SIZES, "backbone_config")
DECIDED_ANEW = (
    "prediction_stride", "geometry", "upsampling", "skip_scales", "hidden_dropout_prob", "semantic_loss_ignore_index",
)  # fmt: skip


def net_config(arguments: ModelArguments, id2label: dict[int, str] | None = None) -> FCNConfig:
    """The configuration of a new net; of one that goes on from another, as far as the recipe decides it.

    Raises:
        `SystemExit`: with a sentence, if there is no such net.
    """
    names = DECIDED_ANEW if arguments.model_name_or_path else (*FROM_THE_START, *DECIDED_ANEW)
    try:
        return FCNConfig(**{name: getattr(arguments, name) for name in names}, id2label=id2label)
    except Exception as error:  # a backbone's configuration is read by code of transformers, each in its own way
        raise _no_such_net(error) from error


def _no_such_net(error: Exception) -> SystemExit:
    return SystemExit(f"There is no such net as the recipe describes: {config_reason(error)}")


def build_model(arguments: ModelArguments, id2label: dict[int, str]) -> FCNForSemanticSegmentation:
    """A new net, or a finer one that takes over every weight of a coarser one by name.

    Where the start has another number of classes, scores and their upsampling begin anew, and a line says so.

    Raises:
        `SystemExit`: with a sentence, if there is no such net, or `model_name_or_path` can't be loaded.
    """
    start = arguments.model_name_or_path
    if start is None:
        try:
            return FCNForSemanticSegmentation(net_config(arguments, id2label))
        except (StrictDataclassError, ValueError) as error:
            raise _no_such_net(error) from error
    with _loading(start, NO_START):
        known = FCNConfig.from_pretrained(start)
    for name in SIZES:
        given, held = getattr(arguments, name), getattr(known, name)
        if given != getattr(ModelArguments(), name) and given != (list(held) if isinstance(given, list) else held):
            print(f"{name} is {given} in the recipe, but {held} in {start!r}, whose net is taken.")
    settings = {name: getattr(arguments, name) for name in DECIDED_ANEW}
    # Both: the start's own names would stay in the other one.
    settings |= {"id2label": id2label, "label2id": {label: index for index, label in id2label.items()}}
    if known.tasks:
        # Labels are there for one; another head would be left behind by a trunk that goes on learning.
        task, *others = dict(known.tasks)
        settings |= {"tasks": {task: len(id2label)}, "id2label_by_task": None}
        if others:
            print(f"{start!r} has several tasks: {task!r} is learnt, without {', '.join(map(repr, others))}.")
    try:
        config = FCNConfig.from_pretrained(start, **settings)
    except (StrictDataclassError, ValueError) as error:
        raise _no_such_net(error) from error
    if known.num_labels != len(id2label):
        print(
            f"{start!r} knows {known.num_labels} classes and the dataset {len(id2label)}: its scores are learnt anew."
        )
    with _loading(start, NO_START):
        return _read_fcn(
            start, config=config, ignore_mismatched_sizes=known.num_labels != len(id2label), learnt_anew="heads."
        )


@contextmanager
def _loading(name: str, failed: str) -> Iterator[None]:
    # fcn_hf's `loading`, whose sentence ends the program.
    try:
        with loading(name, failed):
            yield
    except FCNError as error:
        hint = "" if os.path.isdir(name) else " If it is another recipe's output_dir, train that one first."
        raise SystemExit(f"{error}{hint}") from error


def _read_fcn(name: str, **settings: Any) -> FCNForSemanticSegmentation:
    model = read_net(name, FCNForSemanticSegmentation, dtype=torch.float32, **settings)
    if model.config.num_channels != 3:
        raise FCNError(f"it takes {model.config.num_channels} channels, and pictures have 3.")
    return model


def check_values_alike(name: str, theirs: FCNImageProcessor, ours: FCNImageProcessor) -> None:
    """Raise `FCNError` unless the net `name` wants pixels with the same mean and scale as the one that is made here."""
    for setting in ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"):
        wanted, given = getattr(theirs, setting), getattr(ours, setting)
        if wanted != given:
            raise FCNError(
                f"{name!r} wants pictures with {setting}={wanted}, and the net here has {given}; choose one that was "
                "trained from the same kind of start."
            )


def build_teacher(
    arguments: ModelArguments, id2label: dict[int, str], processor: FCNImageProcessor
) -> FCNForSemanticSegmentation | None:
    """The net of `teacher_model_name_or_path`, if there is one.

    Args:
        id2label: the classes that are learnt, which must be the teacher's.
        processor: of the net that is taught; the teacher sees the same values.

    Raises:
        `SystemExit`: with a sentence, if it can't be loaded or knows other classes.
        `FCNError`: if it wants other values.
    """
    name = arguments.teacher_model_name_or_path
    if name is None:
        return None
    with _loading(name, "No teacher at"):
        teacher, wanted = _read_fcn(name), FCNImageProcessor.from_pretrained(name)
    known, learnt = (list(classes.values()) for classes in (cast(Any, teacher.config.id2label), id2label))
    if known != learnt:
        raise SystemExit(f"The teacher {name!r} knows the classes {known}; what is learnt here is {learnt}.")
    check_values_alike(name, wanted, processor)
    return teacher


def build_processor(
    arguments: AugmentationArguments, num_labels: int, ignore_index: int, start: str | None = None
) -> FCNImageProcessor:
    """The finished model's image processor, which is also that of its evaluation.

    Weights that training starts from want the mean and the scale that they were trained with: those of `start`.

    Raises:
        `SystemExit`: with a sentence, if the start's processor can't be read.
    """
    settings: dict[str, Any] = {
        "num_labels": num_labels, "ignore_index": ignore_index, "do_resize": False,
        # The recipe says how ids are read, and its masks have been through that.
        "do_reduce_labels": False,
    }  # fmt: skip
    if arguments.shortest_edge is not None:
        settings |= {"do_resize": True, "size": {"shortest_edge": arguments.shortest_edge}}
        if arguments.longest_edge is not None:
            settings["size"]["longest_edge"] = arguments.longest_edge
    if start is None:
        return FCNImageProcessor(**settings)
    with _loading(start, NO_START):
        if cached_file(start, IMAGE_PROCESSOR_NAME, _raise_exceptions_for_missing_entries=False) is not None:
            return FCNImageProcessor.from_pretrained(start, **settings)
    print(f"{start!r} has no {IMAGE_PROCESSOR_NAME}: its pictures are taken to have ImageNet's mean and deviation.")
    return FCNImageProcessor(**settings)
