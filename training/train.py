"""Train an FCN from a recipe: `python training/train.py RECIPE.yaml [--argument value ...]`.

A recipe is a flat YAML file of the arguments in `training/recipe.py` and of transformers' `TrainingArguments`; each can
be overridden on the command line by its own name. A staged recipe names other recipes, which are run one after the
other. The finished model folder lands in `output_dir`, checkpoints in `output_dir/checkpoint-N`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState, TrainingArguments, set_seed

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fcn_hf import FCNConfig, FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.datasets import DatasetError, find_columns, find_split, load_splits
from fcn_hf.errors import UNREACHABLE, FCNError, hub_reason
from fcn_hf.files import write_aside
from training.augmentation import AugmentationArguments, training_augmentation
from training.card import CURVE_FILE, EXAMPLES_FILE, write_card
from training.curve import LOG_FILE, draw_curve
from training.data import DataArguments, ScoredRows, length, median_frequency_weights
from training.ema import EMA_FILE, EMACallback, averaged_weights
from training.examples import Collator, training_examples
from training.export import export_model
from training.losses import SegmentationLoss
from training.pictures import PredictionPictures, example_sheet
from training.publish import PublishError, check_access, publish
from training.recipe import ModelArguments, Recipe, read_recipes
from training.scan import scan_dataset
from training.trainer import EpochCallback, FCNTrainer, last_complete_checkpoint


def build_model(arguments: ModelArguments, id2label: dict[int, str]) -> FCNForSemanticSegmentation:
    """A new net, or a finer one that takes over every weight of a coarser one by name.

    Where the start has another number of classes, scores and their upsampling begin anew, and a line says so.

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
        start = arguments.model_name_or_path
        try:
            classes = FCNConfig.from_pretrained(start).num_labels
            if classes != len(id2label):
                print(f"{start!r} knows {classes} classes and the dataset {len(id2label)}: its scores are learnt anew.")
            model = FCNForSemanticSegmentation.from_pretrained(
                start,
                id2label=id2label,
                dtype=torch.float32,
                ignore_mismatched_sizes=classes != len(id2label),
                **settings,
            )
        except (OSError, *UNREACHABLE) as error:
            raise SystemExit(
                f"No weights to start from at {start!r}: {hub_reason(error)} If it is another recipe's output_dir, "
                "train that one first."
            ) from error
    return model


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


def training_rows(arguments: DataArguments, rows, columns: tuple[str, str], id2label: dict[int, str], seed: int):
    """The training rows, with `streets_scenes` procedural ones of the same classes behind them."""
    if not arguments.streets_scenes:
        return rows
    from datasets import concatenate_datasets

    from training.streets import ID2LABEL, streets_dataset

    if id2label != ID2LABEL:
        raise DatasetError(f"streets_scenes needs the classes {list(ID2LABEL.values())}; this dataset has other ones.")
    image, label = columns
    scenes = streets_dataset(arguments.streets_scenes, seed=seed).select_columns(["image", "label"])
    scenes = scenes.rename_columns({"image": image, "label": label})
    rows = rows.select_columns([image, label])
    return concatenate_datasets([rows, scenes.cast(rows.features)])


def train(recipe: Recipe) -> None:
    """Train and save the model folder, and `finish` it."""
    arguments = recipe.training
    set_seed(arguments.seed)
    ignore_index = recipe.model.semantic_loss_ignore_index
    repo_id = None
    if arguments.push_to_hub and arguments.process_index == 0:
        name = arguments.hub_model_id or Path(arguments.output_dir).name
        repo_id = check_access(name, private=arguments.hub_private_repo, token=arguments.hub_token)
    # Trainer would push each checkpoint, without scores; what is pushed here is the finished folder.
    arguments.push_to_hub = False

    recipe.data.check(arguments.max_steps)
    splits = load_splits(recipe.data.dataset_name, recipe.data.dataset_config_name, streaming=recipe.data.streaming)
    rows = find_split(splits, recipe.data.train_split)
    evaluation = find_split(splits, recipe.data.eval_split)
    columns = find_columns(rows.features, recipe.data.image_column_name, recipe.data.label_column_name)
    label_ids = recipe.data.label_ids(ignore_index)
    scanned = {recipe.data.train_split: rows, recipe.data.eval_split: evaluation}
    id2label, counts = scan_dataset(recipe.data, scanned, columns, label_ids, quiet=arguments.process_index > 0)

    model = build_model(recipe.model, id2label)
    model.config.palette = label_ids.colours(len(id2label)) or model.config.palette
    processor = build_processor(recipe.augmentation, len(id2label), ignore_index, recipe.model.model_name_or_path)
    examples = training_examples(
        recipe.data,
        training_rows(recipe.data, rows, columns, id2label, arguments.seed),
        columns,
        processor,
        training_augmentation(recipe.augmentation, ignore_index),
        arguments.seed,
        label_ids,
        (arguments.process_index, arguments.world_size),
    )
    class_weights = torch.ones(len(id2label))
    if recipe.loss.class_weight_power:
        class_weights = median_frequency_weights(
            counts, recipe.loss.class_weight_power, recipe.loss.class_weight_maximum
        )
    checkpoint = checkpoint_to_resume(arguments, *([EMA_FILE] if recipe.model.ema_decay else []))
    scored = ScoredRows(evaluation, columns, label_ids, recipe.data.eval_split)
    trainer = FCNTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=scored,
        processing_class=processor,
        data_collator=Collator(ignore_index),
        callbacks=[] if recipe.data.streaming else [EpochCallback(examples)],
        segmentation_loss=SegmentationLoss(recipe.loss, class_weights, ignore_index),
        optimizer_arguments=recipe.optimizer,
        ema=None if recipe.model.ema_decay is None else EMACallback(recipe.model.ema_decay, checkpoint),
    )
    trainer.add_callback(PredictionPictures(trainer, scored, recipe.card.example_pictures))
    if trainer.is_fsdp_enabled and trainer.ema is not None:
        raise SystemExit("ema_decay can't average a model in shards (FSDP); leave it out, or train without shards.")
    if not trainer.is_fsdp_enabled:
        # Faster, but shards can't have it.
        model.to(memory_format=torch.channels_last)
    model = trained_model(trainer, checkpoint)
    # Of a model in shards, which all processes gather together, the first one gets the whole.
    state_dict = trainer.accelerator.get_state_dict(model)
    if trainer.is_world_process_zero():
        export_model(model, processor, arguments.output_dir, getattr(torch, recipe.model.weights_dtype), state_dict)
    trainer.accelerator.wait_for_everyone()
    finish(recipe, trainer, scored, length(rows), repo_id)


def trained_model(trainer: FCNTrainer, checkpoint: str | None) -> FCNForSemanticSegmentation:
    """The model at the end of the training, which begins, goes on from a checkpoint, or had ended with it already."""
    if checkpoint is None or not is_finished(checkpoint, trainer.args.max_steps):
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.accelerator.unwrap_model(trainer.model)
    # Trainer would train one step more than it was told to.
    trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    model = FCNForSemanticSegmentation.from_pretrained(checkpoint)
    if trainer.ema is not None:
        model.load_state_dict(averaged_weights(checkpoint))
    return model


def finish(
    recipe: Recipe, trainer: FCNTrainer, scored: ScoredRows, train_rows: int | None, repo_id: str | None
) -> None:
    """Score the stored weights, write their card, and push the folder if it has a repo."""
    arguments, folder = recipe.training, Path(recipe.training.output_dir)
    # The card's scores are those of the stored weights, not of the ones in memory, which may have more digits.
    stored = FCNForSemanticSegmentation.from_pretrained(folder).eval().to(arguments.device)
    scores = trainer.score(stored, scored)
    if not trainer.is_world_process_zero():
        return
    print(f"mean IoU on {recipe.data.eval_split}: {scores['mean_iou']:.4f}")
    log = trainer.state.log_history
    write_aside(folder / LOG_FILE, lambda path: path.write_text(json.dumps(log, indent=1) + "\n"))
    write_aside(folder / CURVE_FILE, lambda path: draw_curve(log, path))
    # Those of an earlier run in the same folder mustn't be shown either.
    (folder / EXAMPLES_FILE).unlink(missing_ok=True)
    if recipe.card.example_pictures:
        sheet = example_sheet(stored, trainer.processing_class, scored, recipe.card.example_pictures)
        write_aside(folder / EXAMPLES_FILE, sheet.save)
    write_card(
        folder,
        title=f"FCN-{stored.config.prediction_stride}s",
        parameters=stored.num_parameters(),
        classes=list(stored.config.id2label.values()),
        scores=scores,
        dataset=recipe.data.dataset_name,
        train_split=recipe.data.train_split,
        train_rows=train_rows or "an unknown number of",
        split=recipe.data.eval_split,
        recipe=recipe.given,
        start=recipe.model.model_name_or_path,
        streets_scenes=recipe.data.streets_scenes,
        keeps_ids=scored.label_ids.keeps_ids,
        model_id=repo_id,
        license=recipe.card.model_license,
        usage_note=recipe.card.usage_note,
    )
    if repo_id is not None:
        try:
            url = publish(folder, repo_id, token=arguments.hub_token, revision=arguments.hub_revision)
        except PublishError as error:
            raise PublishError(
                f"{error} The model is complete in {str(folder)!r}; the same command with "
                "--resume_from_checkpoint true pushes it without training again."
            ) from error
        print(f"Pushed: {url}")


def main(arguments: list[str]) -> None:
    """Train what a recipe describes: one model, or one after the other in its stages.

    Raises:
        `SystemExit`: with a sentence, if no recipe is named, or with argparse's, if an argument is not known.
        `FCNError`: with a sentence, if the recipe, the data or the Hub don't play along.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python training/train.py RECIPE.yaml [--argument value ...]")
    recipes = read_recipes(Path(arguments[0]), arguments[1:])
    for number, recipe in enumerate(recipes, start=1):
        if len(recipes) > 1:
            start = recipe.model.model_name_or_path or "random weights"
            print(f"Stage {number} of {len(recipes)}: {recipe.training.output_dir}, from {start}.", flush=True)
        train(recipe)


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
    except FCNError as error:
        raise SystemExit(str(error)) from error
