"""Train an FCN from a recipe: `python training/train.py RECIPE.yaml [--argument value ...]`.

A recipe is a flat YAML file of the arguments in `training/recipe.py` and of transformers' `TrainingArguments`, or of
those that differ from its `base`; each can be overridden on the command line by its own name. A staged recipe names
other recipes, which are run one after the other. The finished model folder lands in `output_dir`, checkpoints in
`output_dir/checkpoint-N`.
"""

import sys
from pathlib import Path

import torch
from torch import distributed
from transformers import TrainerState, set_seed

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fcn_hf import FCNForSemanticSegmentation
from fcn_hf.errors import FCNError
from fcn_hf.memory import keep_freed_memory
from training.augmentation import training_augmentation
from training.data import length, median_frequency_weights
from training.ema import EMACallback, averaged_weights
from training.examples import Collator, SegmentationDataset, training_examples
from training.losses import SegmentationLoss
from training.model import build_model, build_processor, build_teacher, synchronised
from training.pictures import PredictionPictures
from training.publish import check_access
from training.recipe import Recipe, read_recipes
from training.results import check_output, describe_stored, push, save_trained
from training.resume import RunHistory, remove_unfinished, run_history
from training.scan import ScannedDataset, read_dataset
from training.trainer import STATE_FILE, EpochCallback, FCNTrainer


def train(recipe: Recipe) -> None:
    """Read the data, train, store the model folder with its scores, and push it if it was asked for."""
    arguments = recipe.training
    set_seed(arguments.seed)
    repo_id = repo_to_push_to(recipe)
    history = run_history(recipe)
    if arguments.process_index == 0:
        remove_unfinished(recipe.folder)
        announce_warmup(recipe)
    dataset = read_dataset(recipe.data, recipe.model.semantic_loss_ignore_index, quiet=arguments.process_index > 0)
    history.add(classes=list(dataset.id2label.values()), train_rows=length(dataset.rows))
    trainer = build_trainer(recipe, dataset, history)
    save_trained(recipe, trainer, trained_model(trainer, history))
    describe_stored(recipe, trainer, dataset, repo_id, history.notes())
    if repo_id is not None:
        push(recipe, repo_id)


def repo_to_push_to(recipe: Recipe) -> str | None:
    """The repo that the first process pushes the finished folder to, where it was asked for and is let in.

    Trainer would push each checkpoint, without scores, so it is told not to push anything.
    """
    arguments = recipe.training
    wanted, arguments.push_to_hub = arguments.push_to_hub, False
    if not wanted or arguments.process_index > 0:
        return None
    name = arguments.hub_model_id or recipe.folder.name
    return check_access(name, private=arguments.hub_private_repo, token=arguments.hub_token)


def announce_warmup(recipe: Recipe) -> None:
    """Say it where the learning rate never becomes what the recipe names."""
    arguments = recipe.training
    warmup = arguments.get_warmup_steps(max(1, arguments.max_steps))
    if 0 < arguments.max_steps <= warmup:
        print(
            f"Warning: the warm-up takes {warmup} steps and the run has {arguments.max_steps}, so that the learning "
            f"rate never reaches {arguments.learning_rate:g}; set warmup_steps."
        )


def build_trainer(recipe: Recipe, dataset: ScannedDataset, history: RunHistory) -> FCNTrainer:
    """The net, its examples and its loss, ready to be trained.

    Raises:
        `SystemExit` or `FCNError`: with a sentence, if the net can't be built, or not trained like that.
    """
    arguments, scored = recipe.training, dataset.scored
    ignore_index, num_labels = recipe.model.semantic_loss_ignore_index, len(dataset.id2label)
    model = build_model(recipe.model, dataset.id2label)
    history.check_net(model.state_dict())
    checkpoint = None if history.checkpoint is None else str(history.checkpoint.folder)
    model.config.palette = scored.label_ids.colours(num_labels) or model.config.palette
    if arguments.world_size > 1 and arguments.device.type != "cpu":
        model = synchronised(model)
    processor = build_processor(recipe.augmentation, num_labels, ignore_index, recipe.model.model_name_or_path)
    teacher = build_teacher(recipe.model, dataset.id2label, processor)
    examples = training_examples(
        recipe.data,
        dataset,
        processor,
        training_augmentation(recipe.augmentation, ignore_index),
        arguments.seed,
        (arguments.process_index, arguments.world_size),
    )
    power, maximum = recipe.loss.class_weight_power, recipe.loss.class_weight_maximum
    class_weights = median_frequency_weights(dataset.counts, power, maximum) if power else torch.ones(num_labels)
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
        teacher=teacher,
        writers=[history.save],
    )
    trainer.add_callback(PredictionPictures(trainer, scored, recipe.card.example_pictures))
    if trainer.is_fsdp_enabled and trainer.ema is not None:
        raise SystemExit("ema_decay can't average a model in shards (FSDP); leave it out, or train without shards.")
    if not trainer.is_fsdp_enabled:
        # Faster, but shards can't have it.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    return trainer


def trained_model(trainer: FCNTrainer, history: RunHistory) -> FCNForSemanticSegmentation:
    """The model at the end of the training, which begins, goes on from a checkpoint, or had ended with it already.

    Raises:
        `FCNError`: if the loss stops being finite, or the pictures make no step.
    """
    checkpoint = history.checkpoint
    if checkpoint is None or not checkpoint.is_last(trainer.args.max_steps):
        batch, rows = trainer.args.train_batch_size * trainer.args.world_size, trainer.train_dataset
        if trainer.args.dataloader_drop_last and isinstance(rows, SegmentationDataset) and len(rows) < batch:
            raise FCNError(
                f"{len(rows)} pictures don't fill one batch of {batch}, and dataloader_drop_last leaves out the rest; "
                "use smaller batches, or leave it out."
            )
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.folder))
        except FCNError as error:
            # One of a DataLoader's worker comes with the worker's stack trace before it.
            said = str(error).strip().splitlines()[-1]
            raise type(error)(said.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")) from error
        return trainer.accelerator.unwrap_model(trainer.model)
    # Trainer would train one step more than it was told to.
    trainer.state = TrainerState.load_from_json(str(checkpoint.folder / STATE_FILE))
    model = FCNForSemanticSegmentation.from_pretrained(checkpoint.folder)
    if trainer.ema is not None:
        model.load_state_dict(averaged_weights(str(checkpoint.folder)))
    return model


def main(arguments: list[str]) -> None:
    """Train what a recipe describes: one model, or one after the other in its stages.

    Raises:
        `SystemExit`: with a sentence, if no recipe is named, or with argparse's, if an argument is not known.
        `FCNError`: with a sentence, if the recipe, the data or the Hub don't play along.
    """
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python training/train.py RECIPE.yaml [--argument value ...]")
    recipes = read_recipes(Path(arguments[0]), arguments[1:])
    for recipe in recipes:
        check_output(recipe)
    keep_freed_memory()
    for number, recipe in enumerate(recipes, start=1):
        if len(recipes) > 1:
            start = recipe.model.model_name_or_path or "random weights"
            print(f"Stage {number} of {len(recipes)}: {recipe.folder}, from {start}.", flush=True)
        train(recipe)
    # A process of several may abort when it ends as one of their group, with its work done.
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FCNError as error:
        raise SystemExit(str(error)) from error
