"""Train an FCN from a recipe: `python training/train.py RECIPE.yaml [--argument value ...]`.

A recipe is a flat YAML file of the arguments below and of transformers' `TrainingArguments`; each can be overridden on
the command line by its own name. The finished model folder lands in `output_dir`, checkpoints in
`output_dir/checkpoint-N`.
"""

import json
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm
from transformers import HfArgumentParser, TrainerCallback, TrainerState, TrainingArguments, set_seed

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.evaluation import DatasetError, evaluate_split, find_columns, find_split, load_splits
from training import data
from training.augmentation import AugmentationArguments, training_augmentation
from training.card import write_card
from training.data import DataArguments
from training.ema import EMA_FILE, EMACallback, averaged_weights
from training.export import export_model
from training.losses import LossArguments, SegmentationLoss
from training.scan import scan_dataset
from training.trainer import (
    EpochCallback,
    FCNTrainer,
    OptimizerArguments,
    StreamingScores,
    last_complete_checkpoint,
)


@dataclass
class ModelArguments:
    """Which net is trained; `hidden_sizes` ... `hidden_dropout_prob` are `FCNConfig`'s."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Start from these weights, by name: the coarser net's folder or Hub id."}
    )
    backbone: str = "vgg"
    backbone_config: dict | None = field(
        default=None,
        metadata={"help": "For backbone auto: model_type and settings of a transformers or timm backbone."},
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
    model_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})
    usage_note: str | None = field(default=None, metadata={"help": "What the data ask of users, for the card."})


def bfloat16_is_native() -> bool:
    """Whether this machine's GPU or CPU computes in bfloat16 rather than emulating it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def parse_recipe(
    arguments: list[str],
) -> tuple[
    ModelArguments,
    DataArguments,
    AugmentationArguments,
    LossArguments,
    OptimizerArguments,
    TrainingArguments,
    dict[str, Any],
]:
    """A recipe file followed by overrides -> its groups of arguments, and those that were set, for the card.

    Raises:
        `SystemExit`: with a sentence, if there is no such file, or with argparse's, if an argument is not known.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python training/train.py RECIPE.yaml [--argument value ...]")
    path = Path(arguments[0])
    if not path.is_file():
        raise SystemExit(f"There is no recipe {str(path)!r}; those of the project are in training/recipes.")
    recipe = yaml.safe_load(path.read_text())
    if not isinstance(recipe, dict):
        raise SystemExit(f"{str(path)!r} must be a YAML mapping of argument names to values.")
    if recipe.get("bf16") == "auto":
        recipe["bf16"] = bfloat16_is_native()
    # TrainingArguments refuses bf16 where it finds no accelerator, unless it is told that the CPU is meant.
    recipe.setdefault("use_cpu", not torch.accelerator.is_available())
    flags: list[str] = []
    for name, value in recipe.items():
        if value is not None:
            text = json.dumps(value) if isinstance(value, dict) or name in data.STRUCTURED else value
            flags += [f"--{name}", *map(str, text if isinstance(text, list) else [text])]
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, AugmentationArguments, LossArguments, OptimizerArguments, TrainingArguments)
    )
    groups = parser.parse_args_into_dataclasses(args=flags + arguments[1:])
    names = [*recipe, *(flag[2:].partition("=")[0] for flag in arguments[1:] if flag.startswith("--"))]
    values = {name: getattr(group, name) for name in names for group in groups if hasattr(group, name)}
    used = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in values.items()
        if name not in ("output_dir", "resume_from_checkpoint", "disable_tqdm")
    }
    return (*groups, used)


def build_model(arguments: ModelArguments, id2label: dict[int, str]) -> FCNForSemanticSegmentation:
    """A new net, or a finer one that takes over every weight of a coarser one by name.

    Raises:
        `SystemExit`: if `model_name_or_path` can't be loaded.
    """
    names = ("prediction_stride", "geometry", "upsampling", "skip_scales", "hidden_dropout_prob")
    settings = {name: getattr(arguments, name) for name in (*names, "semantic_loss_ignore_index")}
    if arguments.model_name_or_path is None:
        names = ("backbone", "backbone_config", "hidden_sizes", "depths", "use_batch_norm", "hidden_size")
        settings |= {name: getattr(arguments, name) for name in names}
        model = FCNForSemanticSegmentation(FCNConfig(id2label=id2label, **settings))
    else:
        try:
            model = FCNForSemanticSegmentation.from_pretrained(
                arguments.model_name_or_path, id2label=id2label, dtype=torch.float32, **settings
            )
        except OSError as error:
            raise SystemExit(
                f"No weights to start from at {arguments.model_name_or_path!r}: {error} Train the coarser net first."
            ) from error
    return model.to(memory_format=torch.channels_last)


def build_processor(
    arguments: AugmentationArguments, num_labels: int, ignore_index: int, start: str | None = None
) -> FCNImageProcessor:
    """The finished model's image processor, which is also that of its evaluation.

    Weights that training starts from want the mean and the scale that they were trained with: those of `start`.
    """
    settings: dict[str, Any] = {"num_labels": num_labels, "ignore_index": ignore_index, "do_resize": False}
    if arguments.shortest_edge is not None:
        settings |= {"do_resize": True, "size": {"shortest_edge": arguments.shortest_edge}}
        if arguments.longest_edge is not None:
            settings["size"]["longest_edge"] = arguments.longest_edge
    try:
        return FCNImageProcessor.from_pretrained(start, **settings) if start else FCNImageProcessor(**settings)
    except OSError:
        return FCNImageProcessor(**settings)


def training_split(arguments: DataArguments, split, columns: tuple[str, str], id2label: dict[int, str], seed: int):
    """The training rows, with `streets_scenes` procedural ones of the same classes behind them."""
    if not arguments.streets_scenes:
        return split
    from datasets import concatenate_datasets

    from training.streets import ID2LABEL, streets_dataset

    if id2label != ID2LABEL:
        raise DatasetError(f"streets_scenes needs the classes {list(ID2LABEL.values())}; this dataset has other ones.")
    image, label = columns
    scenes = streets_dataset(arguments.streets_scenes, seed=seed).select_columns(["image", "label"])
    scenes = scenes.rename_columns({"image": image, "label": label})
    split = split.select_columns([image, label])
    return concatenate_datasets([split, scenes.cast(split.features)])


def main(arguments: list[str]) -> None:
    """Train, save the model folder, score what was saved, and write its card."""
    (
        model_arguments,
        data_arguments,
        augmentation_arguments,
        loss_arguments,
        optimizer_arguments,
        training_arguments,
        recipe,
    ) = parse_recipe(arguments)
    set_seed(training_arguments.seed)
    ignore_index = model_arguments.semantic_loss_ignore_index

    data_arguments.check(training_arguments.max_steps)
    splits = load_splits(
        data_arguments.dataset_name, data_arguments.dataset_config_name, streaming=data_arguments.streaming
    )
    train = find_split(splits, data_arguments.train_split)
    evaluation = find_split(splits, data_arguments.eval_split)
    columns = find_columns(train.features, data_arguments.image_column_name, data_arguments.label_column_name)
    label_ids = data_arguments.label_ids(ignore_index)
    scanned = {data_arguments.train_split: train, data_arguments.eval_split: evaluation}
    id2label, counts = scan_dataset(
        data_arguments, scanned, columns, label_ids, quiet=training_arguments.process_index > 0
    )

    model = build_model(model_arguments, id2label)
    processor = build_processor(augmentation_arguments, len(id2label), ignore_index, model_arguments.model_name_or_path)
    examples = training_split(data_arguments, train, columns, id2label, training_arguments.seed)
    augmentation = training_augmentation(augmentation_arguments, ignore_index)
    train_dataset, eval_dataset = data.torch_datasets(
        data_arguments, examples, evaluation, columns, processor, augmentation, training_arguments.seed, label_ids
    )

    class_weights = torch.ones(len(id2label))
    if loss_arguments.class_weight_power:
        class_weights = data.median_frequency_weights(
            counts, loss_arguments.class_weight_power, loss_arguments.class_weight_maximum
        )
    checkpoint = checkpoint_to_resume(training_arguments, *([EMA_FILE] if model_arguments.ema_decay else []))
    callbacks: list[TrainerCallback] = [] if data_arguments.streaming else [EpochCallback(train_dataset)]
    if model_arguments.ema_decay is not None:
        callbacks.append(EMACallback(model_arguments.ema_decay, checkpoint))
    trainer = FCNTrainer(
        model=model,
        args=training_arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        data_collator=data.Collator(ignore_index),
        compute_metrics=StreamingScores(len(id2label), ignore_index, list(id2label.values())),
        callbacks=callbacks,
        segmentation_loss=SegmentationLoss(loss_arguments, class_weights, ignore_index),
        optimizer_arguments=optimizer_arguments,
    )
    if checkpoint is not None and is_finished(checkpoint, training_arguments.max_steps):
        # Trainer would train one step more than it was told to.
        model = FCNForSemanticSegmentation.from_pretrained(checkpoint)
        if model_arguments.ema_decay is not None:
            model.load_state_dict(averaged_weights(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
        model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.is_world_process_zero():
        return
    folder = training_arguments.output_dir
    export_model(model, processor, folder, getattr(torch, model_arguments.weights_dtype))
    # The card's scores are those of the stored weights, not of the ones in memory, which may have more digits.
    stored = FCNForSemanticSegmentation.from_pretrained(folder).eval().to(training_arguments.device)
    scored = tqdm(data.with_label_ids(evaluation, columns, label_ids), "Scoring", data.length(evaluation))
    scores = evaluate_split(stored, processor, scored, columns)
    print(f"mean IoU on {data_arguments.eval_split}: {scores['mean_iou']:.4f}")
    write_card(
        folder,
        title=f"FCN-{stored.config.prediction_stride}s",
        parameters=stored.num_parameters(),
        classes=list(id2label.values()),
        scores=scores,
        dataset=data_arguments.dataset_name,
        train_split=data_arguments.train_split,
        train_rows=data.length(train) or "an unknown number of",
        split=data_arguments.eval_split,
        recipe=recipe,
        start=model_arguments.model_name_or_path,
        streets_scenes=data_arguments.streets_scenes,
        keeps_ids=label_ids.keeps_ids,
        license=model_arguments.model_license,
        usage_note=model_arguments.usage_note,
    )


def checkpoint_to_resume(arguments: TrainingArguments, *needed: str) -> str | None:
    """The folder to resume from: the one named, or with `--resume_from_checkpoint true` the last complete one."""
    wanted = arguments.resume_from_checkpoint
    if wanted is None or wanted.lower() == "false":
        return None
    if wanted.lower() != "true":
        return wanted
    checkpoint = last_complete_checkpoint(arguments.output_dir, *needed)
    if checkpoint is None:
        print(f"No complete checkpoint in {arguments.output_dir}: starting from the beginning.")
    return checkpoint


def is_finished(checkpoint: str, max_steps: int) -> bool:
    """Whether a checkpoint is the last one of its run; `max_steps` of 0 or less means that the epochs decide."""
    state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    return state.global_step >= (max_steps if max_steps > 0 else state.max_steps)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DatasetError as error:
        raise SystemExit(str(error)) from error
