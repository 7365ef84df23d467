"""What a run leaves: the model folder with its log, its pictures and its card, here and on the Hub."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from fcn_hf import FCNForSemanticSegmentation
from fcn_hf.errors import FCNError
from fcn_hf.files import check_folder, write_aside, written_aside
from fcn_hf.prediction import check_finite
from training.card import CURVE_FILE, EXAMPLES_FILE, write_card
from training.curve import LOG_FILE, draw_curve
from training.data import length
from training.pictures import example_sheet
from training.publish import PublishError, publish
from training.recipe import Recipe
from training.scan import ScannedDataset
from training.trainer import FCNTrainer, last_complete_checkpoint

LEFT_IN_PLACE = ("README.md", "config.json", "model.safetensors", "preprocessor_config.json", CURVE_FILE, EXAMPLES_FILE)
"""What a run writes and doesn't take the place of where no run wrote it."""


def check_output(recipe: Recipe) -> None:
    """See, before any work, that a run can leave its model in `output_dir`, and takes the place of nothing but a run's.

    Raises:
        `FCNError`: if there can't be such a folder, it is the one that the run starts from, or there is one of
            `LEFT_IN_PLACE` that no run wrote.
    """
    folder, start = recipe.folder, recipe.model.model_name_or_path
    check_folder(folder)
    if start is not None and os.path.isdir(start) and os.path.realpath(start) == os.path.realpath(folder):
        raise FCNError(f"output_dir is {start!r}, whose weights the run starts from and would replace; choose another.")
    # A run's log is there before anything else.
    if (folder / LOG_FILE).is_file() or last_complete_checkpoint(folder) is not None:
        return
    foreign = [folder / name for name in LEFT_IN_PLACE if os.path.lexists(folder / name)]
    if foreign:
        raise FCNError(f"{foreign[0]} was written by no run and would be replaced; choose another output_dir.")


def export_model(
    model: PreTrainedModel,
    processor: ImageProcessingMixin,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write safetensors, config, preprocessor config and the remote code into `folder`.

    With `dtype=torch.float16` the file is half as large while the config still says float32, so `from_pretrained` gives
    a float32 model, which is what CPUs compute fast in.

    Args:
        model: in float32.
        folder: existing files of the same names are replaced one by one, each whole; others stay.
        dtype: of the floating-point tensors in the file.
        state_dict: the model's, where it can't be asked for it since other processes hold shards of it.

    Raises:
        `FCNError`: if a weight is beyond the dtype; then nothing is written.
    """
    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in (model.state_dict() if state_dict is None else state_dict).items()
    }
    beyond = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if beyond:
        raise FCNError(
            f"{beyond[0]} has values beyond {torch.finfo(dtype).max:g}, the largest of {dtype}; store the weights in "
            "float32 (weights_dtype)."
        )
    with written_aside(folder) as aside:
        model.save_pretrained(aside, state_dict=state)
        processor.save_pretrained(aside)


def save_trained(recipe: Recipe, trainer: FCNTrainer, model: FCNForSemanticSegmentation) -> None:
    """Store the model and its log in `output_dir`.

    Raises:
        `FCNError`: if its weights aren't all finite; then nothing is stored.
    """
    # Of a model in shards, which all processes gather together, the first one gets the whole.
    state_dict = trainer.accelerator.get_state_dict(model)
    if trainer.is_world_process_zero():
        check_finite(state_dict, "the trained model")
        processor: Any = trainer.processing_class
        # A setting of language models, which Trainer leaves behind when it trains and not when it had trained before.
        vars(model.config).pop("use_cache", None)
        # What an earlier run's card says of its weights isn't so of these, which are yet to be scored.
        (recipe.folder / "README.md").unlink(missing_ok=True)
        log = json.dumps(trainer.state.log_history, indent=1)
        write_aside(recipe.folder / LOG_FILE, lambda path: path.write_text(log + "\n"))
        export_model(model, processor, recipe.folder, getattr(torch, recipe.model.weights_dtype), state_dict)
    trainer.accelerator.wait_for_everyone()


def describe_stored(
    recipe: Recipe, trainer: FCNTrainer, dataset: ScannedDataset, repo_id: str | None, notes: Sequence[str] = ()
) -> None:
    """Score the stored weights, and put the log's curve, examples and the card, with `notes`, beside them."""
    folder = recipe.folder
    # The card's scores are those of the stored weights, not of the ones in memory, which may have more digits.
    stored = FCNForSemanticSegmentation.from_pretrained(folder).eval().to(recipe.training.device)
    scores = trainer.score(stored, dataset.scored)
    if not trainer.is_world_process_zero():
        return
    print(f"mean IoU on {recipe.data.eval_split}: {scores['mean_iou']:.4f}")
    write_aside(folder / CURVE_FILE, lambda path: draw_curve(trainer.state.log_history, path))
    # Those of an earlier run in the same folder mustn't be shown either.
    (folder / EXAMPLES_FILE).unlink(missing_ok=True)
    if recipe.card.example_pictures:
        sheet = example_sheet(stored, trainer.processing_class, dataset.scored, recipe.card.example_pictures)
        write_aside(folder / EXAMPLES_FILE, sheet.save)
    write_card(folder, recipe, stored, scores, train_rows=length(dataset.rows), model_id=repo_id, notes=notes)


def push(recipe: Recipe, repo_id: str) -> None:
    """Upload the finished folder.

    Raises:
        `PublishError`: with the way to push it once more.
    """
    arguments = recipe.training
    try:
        url = publish(recipe.folder, repo_id, token=arguments.hub_token, revision=arguments.hub_revision)
    except PublishError as error:
        raise PublishError(
            f"{error} The model is complete in {str(recipe.folder)!r}; the same command with "
            "--resume_from_checkpoint true pushes it without training again."
        ) from error
    print(f"Pushed: {url}")
