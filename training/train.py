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
from transformers import HfArgumentParser, TrainerState, TrainingArguments, set_seed

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.evaluation import DatasetError, evaluate_split, find_columns, find_split, load_splits
from training import data
from training.card import write_card
from training.export import export_model
from training.trainer import EpochCallback, FCNTrainer, StreamingScores, last_complete_checkpoint


@dataclass
class ModelArguments:
    """Which net is trained; `hidden_sizes` ... `hidden_dropout_prob` are `FCNConfig`'s."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Start from these weights, by name: the coarser net's folder or Hub id."}
    )
    hidden_sizes: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 512])
    depths: list[int] = field(default_factory=lambda: [2, 2, 3, 3, 3])
    use_batch_norm: bool = False
    hidden_size: int = 4096
    prediction_stride: int = 8
    geometry: str = "same"
    upsampling: str = "learned"
    hidden_dropout_prob: float = 0.5
    semantic_loss_ignore_index: int = 255
    weights_dtype: str = field(
        default="float32", metadata={"help": "float32 or float16: how the finished folder stores the weights."}
    )
    model_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})
    usage_note: str | None = field(default=None, metadata={"help": "What the data ask of users, for the card."})


@dataclass
class DataArguments:
    """What it is trained on, and how examples are augmented."""

    dataset_name: str = field(metadata={"help": "Hub id or folder of an image segmentation dataset."})
    dataset_config_name: str | None = None
    image_column_name: str | None = None
    label_column_name: str | None = None
    train_split: str = "train"
    eval_split: str = "validation"
    streets_scenes: int = field(
        default=0, metadata={"help": "Procedural street scenes (training/streets.py) added to the training split."}
    )
    crop_size: list[int] = field(default_factory=lambda: [240, 320], metadata={"help": "Height and width in pixels."})
    scale: list[float] = field(default_factory=lambda: [0.5, 1.5], metadata={"help": "Range of the random scale."})
    mirror: float = field(default=0.5, metadata={"help": "Probability of a left-right flip."})
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    class_weight_power: float = field(
        default=0.0, metadata={"help": "Median-frequency class weights to this power: 0 none, 0.5 their root, 1 full."}
    )
    class_weight_maximum: float = 3.0
    auxiliary_loss_weight: float = field(default=0.0, metadata={"help": "Factor on the loss of the stride-32 scores."})


def bfloat16_is_native() -> bool:
    """Whether this machine's GPU or CPU computes in bfloat16 rather than emulating it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def parse_recipe(arguments: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments, dict[str, Any]]:
    """A recipe file followed by overrides -> its three groups of arguments, and those that were set, for the card.

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
            text = json.dumps(value) if isinstance(value, dict) else value
            flags += [f"--{name}", *map(str, text if isinstance(text, list) else [text])]
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
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
    settings = {
        name: getattr(arguments, name)
        for name in ("prediction_stride", "geometry", "upsampling", "hidden_dropout_prob", "semantic_loss_ignore_index")
    }
    if arguments.model_name_or_path is None:
        sizes = {name: getattr(arguments, name) for name in ("hidden_sizes", "depths", "use_batch_norm", "hidden_size")}
        model = FCNForSemanticSegmentation(FCNConfig(id2label=id2label, **sizes, **settings))
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
    model_arguments, data_arguments, training_arguments, recipe = parse_recipe(arguments)
    set_seed(training_arguments.seed)
    ignore_index = model_arguments.semantic_loss_ignore_index

    splits = load_splits(data_arguments.dataset_name, data_arguments.dataset_config_name)
    train = find_split(splits, data_arguments.train_split)
    evaluation = find_split(splits, data_arguments.eval_split)
    columns = find_columns(train.features, data_arguments.image_column_name, data_arguments.label_column_name)
    id2label = data.find_id2label(data_arguments.dataset_name, train, columns[1], ignore_index)
    counts = data.class_counts(train, columns[1], len(id2label), ignore_index)
    for index, name in id2label.items():
        print(f"{name:>12}  {counts[index] / counts.sum():7.2%} of the labelled pixels")

    model = build_model(model_arguments, id2label)
    processor = FCNImageProcessor(num_labels=len(id2label), ignore_index=ignore_index)
    examples = training_split(data_arguments, train, columns, id2label, training_arguments.seed)
    augmentation = data.training_augmentation(
        tuple(data_arguments.crop_size),
        tuple(data_arguments.scale),
        data_arguments.mirror,
        data_arguments.brightness,
        data_arguments.contrast,
        data_arguments.saturation,
        ignore_index,
    )
    train_dataset = data.SegmentationDataset(examples, columns, processor, augmentation, training_arguments.seed)

    class_weights = None
    if data_arguments.class_weight_power:
        class_weights = data.median_frequency_weights(
            counts, data_arguments.class_weight_power, data_arguments.class_weight_maximum
        )
    trainer = FCNTrainer(
        model=model,
        args=training_arguments,
        train_dataset=train_dataset,
        eval_dataset=data.SegmentationDataset(evaluation, columns, processor),
        processing_class=processor,
        data_collator=data.Collator(ignore_index),
        compute_metrics=StreamingScores(len(id2label), ignore_index, list(id2label.values())),
        callbacks=[EpochCallback(train_dataset)],
        class_weights=class_weights,
        auxiliary_loss_weight=data_arguments.auxiliary_loss_weight,
    )
    checkpoint = checkpoint_to_resume(training_arguments)
    if checkpoint is not None and is_finished(checkpoint, training_arguments.max_steps):
        # Trainer would train one step more than it was told to.
        model = FCNForSemanticSegmentation.from_pretrained(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
        model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.is_world_process_zero():
        return
    folder = training_arguments.output_dir
    export_model(model, processor, folder, getattr(torch, model_arguments.weights_dtype))
    # The card's scores are those of the stored weights, not of the ones in memory, which may have more digits.
    stored = FCNForSemanticSegmentation.from_pretrained(folder).eval().to(training_arguments.device)
    scores = evaluate_split(stored, processor, tqdm(evaluation, "Scoring"), columns)
    print(f"mean IoU on {data_arguments.eval_split}: {scores['mean_iou']:.4f}")
    write_card(
        folder,
        title=f"FCN-{stored.config.prediction_stride}s",
        parameters=stored.num_parameters(),
        classes=list(id2label.values()),
        scores=scores,
        dataset=data_arguments.dataset_name,
        train_split=data_arguments.train_split,
        train_rows=len(train),
        split=data_arguments.eval_split,
        recipe=recipe,
        start=model_arguments.model_name_or_path,
        streets_scenes=data_arguments.streets_scenes,
        license=model_arguments.model_license,
        usage_note=model_arguments.usage_note,
    )


def checkpoint_to_resume(arguments: TrainingArguments) -> str | None:
    """The folder to resume from: the one named, or with `--resume_from_checkpoint true` the last complete one."""
    wanted = arguments.resume_from_checkpoint
    if wanted is None or wanted.lower() == "false":
        return None
    if wanted.lower() != "true":
        return wanted
    checkpoint = last_complete_checkpoint(arguments.output_dir)
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
