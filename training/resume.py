"""Going on from a checkpoint: which one, whether it is whole, and whether this recipe is the one that made it."""

import dataclasses
import json
import os
import reprlib
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fcn_hf.errors import FCNError
from fcn_hf.files import remove_left_aside, write_aside
from training.ema import EMA_FILE
from training.recipe import GROUPS, CardArguments, Recipe
from training.trainer import STATE_FILE, last_complete_checkpoint

# In each checkpoint: the settings of every part of the run that it ends.
RECIPE_FILE = "recipe.json"

# What is no part of a recipe: where a run lies, on what it runs, how it is shown, and a secret.
LEFT_OUT = ("output_dir", "resume_from_checkpoint", "disable_tqdm", "hub_token", "local_rank", "use_cpu")
# The recipe's own arguments, and among them those that leave the weights as they are.
OWN = {argument.name for group in GROUPS[:-1] for argument in dataclasses.fields(group)}
FREE = {"cache_decoded", "eval_split", "weights_dtype"} | {
    argument.name for argument in dataclasses.fields(CardArguments)
}
# Of transformers' arguments, those whose state is in the checkpoint, or on which the order of the pictures depends.
FIXED = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "optim", "optim_args", "weight_decay", "adam_beta1",
    "adam_beta2", "adam_epsilon", "max_grad_norm", "seed", "data_seed", "dataloader_drop_last",
    "train_sampling_strategy",
)  # fmt: skip
# What a checkpoint can't be gone on from without, and files or folders of which one holds it.
NEEDED = {
    "its state": (STATE_FILE,),
    "its schedule": ("scheduler.pt",),
    "its optimiser": ("optimizer*",),
    "its weights": ("model*.safetensors", "pytorch_model*"),
}
# What may change midway, but is no matter of taste: the card tells which steps had which.
TOLD = ("max_steps", "bf16", "fp16")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxlist = _short.maxdict = 12


@dataclass(frozen=True)
class Part:
    """Steps of a run that had the same settings.

    Attributes:
        first_step: the number of steps before them.
        settings: None where the checkpoint was made before checkpoints kept them.
    """

    first_step: int
    settings: dict[str, Any] | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        step: how many steps it has behind it.
        max_steps: how many its run was to have.
        parts: the parts of its run, the first one first.
    """

    folder: Path
    step: int
    max_steps: int
    parts: tuple[Part, ...]

    def is_last(self, max_steps: int) -> bool:
        """Whether a run ends with it; `max_steps` of 0 or less means that the epochs decide."""
        return self.step >= (max_steps if max_steps > 0 else self.max_steps)


@dataclass
class RunHistory:
    """By which settings a run is trained, and by which it was before the checkpoint that it goes on from.

    Attributes:
        settings: of this session.
        checkpoint: None where it begins.
    """

    settings: dict[str, Any]
    checkpoint: Checkpoint | None = None
    parts: tuple[Part, ...] = field(init=False)

    def __post_init__(self):
        self.parts = () if self.checkpoint is None else self.checkpoint.parts

    def add(self, **settings: Any) -> None:
        """Note what is known only now, and must be as it was.

        Raises:
            `FCNError`: if it isn't.
        """
        self.settings |= settings
        self._check(settings)

    def check(self) -> None:
        """Compare this session's settings with those that the checkpoint was made with.

        Raises:
            `FCNError`: naming what has changed though it can't, with the way out.
        """
        self._check([name for name in self.settings if is_fixed(name, self.settings)])
        checkpoint, max_steps = self.checkpoint, self.settings["max_steps"]
        if checkpoint is not None and 0 < max_steps < checkpoint.step:
            raise FCNError(
                f"{checkpoint.folder} has {checkpoint.step} steps behind it, more than max_steps={max_steps}; raise it "
                "or resume from an earlier checkpoint."
            )

    def _check(self, names: Collection[str]) -> None:
        changes = {name: values for name, values in self.changes().items() if name in names}
        if self.checkpoint is None or not changes:
            return
        said = ", ".join(
            f"{name} is {_short.repr(new)} and was {_short.repr(old)}" for name, (old, new) in changes.items()
        )
        raise FCNError(
            f"{self.checkpoint.folder} was made with other settings, which can't change within a run: {said}. "
            f"{self._way_out()}"
        )

    def check_net(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Compare a net's tensors with those in the checkpoint.

        Raises:
            `FCNError`: if there are others, or they are of other sizes.
        """
        if self.checkpoint is None:
            return
        here = {name: list(tensor.shape) for name, tensor in state_dict.items()}
        there: dict[str, list[int]] = {}
        for path in self.checkpoint.folder.glob("*.safetensors"):
            with safe_open(path, "pt") as tensors:
                there |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
        different = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
        if there and different:
            name = min(different)
            raise FCNError(
                f"{self.checkpoint.folder} holds another net than the recipe describes: {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here. {self._way_out()}"
            )

    def _way_out(self) -> str:
        folder = self.checkpoint.folder if self.checkpoint else None
        return (
            f"Give the old values, or begin another run from its weights: --model_name_or_path {folder} with an "
            "--output_dir of its own and without --resume_from_checkpoint."
        )

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Old and new value of whatever has another value than in the checkpoint's last part."""
        return _differences(self.parts[-1].settings, self.settings) if self.parts else {}

    def announcement(self) -> str:
        """What a resumed run says at its beginning: in one line, where it goes on, and what differs from now on."""
        checkpoint = self.checkpoint
        assert checkpoint is not None
        max_steps = self.settings["max_steps"]
        ended = checkpoint.is_last(max_steps)
        if ended:
            text = (
                f"Nothing is left to train: {checkpoint.folder} is the end of this run of {checkpoint.step} steps, "
                "whose model is stored and scored once more."
            )
        else:
            total = max_steps if max_steps > 0 else checkpoint.max_steps
            text = f"Going on from {checkpoint.folder}, after {checkpoint.step} of {total} steps."
        if self.parts[-1].settings is None:
            text += " It doesn't tell which recipe it was made by: if this is another one, the card will be wrong."
        changes = self.changes()
        if changes:
            said = ", ".join(
                f"{name} {_short.repr(new)} (was {_short.repr(old)})" for name, (old, new) in changes.items()
            )
            text += f" Changed from here on: {said}."
        if "max_steps" in changes and not ended:
            text += " The learning rate follows the schedule of the new number of steps."
        return text

    def save(self, folder: Path) -> None:
        """Put the recipe of every part, this session's behind the others, into a checkpoint's folder."""
        parts = self.parts
        if not parts or parts[-1].settings is None or self.changes():
            parts = (*parts, Part(0 if self.checkpoint is None else self.checkpoint.step, self.settings))
        text = json.dumps([dataclasses.asdict(part) for part in parts], indent=1)
        write_aside(folder / RECIPE_FILE, lambda path: path.write_text(text + "\n"))

    def notes(self) -> list[str]:
        """For the card: a sentence on each earlier part that was trained otherwise than this session's recipe says."""
        if self.checkpoint is None:
            return []
        ends = [*(part.first_step for part in self.parts[1:]), self.checkpoint.step]
        notes = []
        for part, end in zip(self.parts, ends, strict=True):
            steps = f"Up to step {end}" if part.first_step == 0 else f"From step {part.first_step + 1} to {end}"
            if part.settings is None:
                notes.append(f"{steps} it was trained by a recipe that the checkpoint doesn't tell.")
                continue
            old = {name: old for name, (old, _) in _differences(part.settings, self.settings).items() if name in TOLD}
            if old:
                notes.append(
                    f"{steps} it was trained with {', '.join(f'{name}: {value}' for name, value in old.items())}."
                )
        return notes


def run_history(recipe: Recipe) -> RunHistory:
    """What a run goes on from, if it was asked to and can.

    Raises:
        `FCNError`: with a sentence, if the checkpoint that was named isn't there or isn't whole, or is another run's.
    """
    wanted = recipe.training.resume_from_checkpoint
    settings = settings_of(recipe)
    if wanted is None or wanted.lower() == "false":
        return RunHistory(settings)
    if wanted.lower() == "true":
        # Of a run with a moving average, one without it was cut off, or made by another recipe, which will be said.
        found = last_complete_checkpoint(recipe.folder, *([EMA_FILE] if recipe.model.ema_decay else []))
        found = found or last_complete_checkpoint(recipe.folder)
        if found is None:
            if recipe.training.process_index == 0:
                print(f"No complete checkpoint in {recipe.folder}: starting from the beginning.")
            return RunHistory(settings)
        wanted = found
    history = RunHistory(settings, read_checkpoint(Path(wanted)))
    history.check()
    if recipe.training.process_index == 0:
        print(history.announcement(), flush=True)
    return history


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a run was trained with, as it is kept in JSON: all arguments and the number of processes."""
    settings = recipe.training.to_dict()
    for group in (recipe.model, recipe.data, recipe.augmentation, recipe.loss, recipe.optimizer, recipe.card):
        settings |= dataclasses.asdict(group)
    for name in ("dataset_name", "model_name_or_path"):
        if settings[name] is not None and os.path.exists(settings[name]):
            # The same folder may be named from elsewhere.
            settings[name] = os.path.realpath(settings[name])
    settings = {name: value for name, value in settings.items() if name not in LEFT_OUT}
    return json.loads(json.dumps(settings | {"processes": recipe.training.world_size}, default=str))


def is_fixed(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether an argument must stay as it was when a run with these settings was begun."""
    if name in ("max_steps", "num_train_epochs"):
        # Of a run that ends by its epochs it isn't known how many steps are left.
        return settings["max_steps"] <= 0
    if name == "dataloader_num_workers":
        # Each worker of a stream reads files of its own.
        return settings["streaming"]
    return name == "processes" or name in FIXED or (name in OWN and name not in FREE)


def read_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint's state and recipe, after a look at each of its files.

    Raises:
        `FCNError`: with a sentence, if there is none, or one of its files is missing or was cut off.
    """
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
        there = f"there are {', '.join(others)}" if others else f"{folder.parent} holds none"
        raise FCNError(f"There is no checkpoint {folder}; {there}.")
    broken = next((path.name for path in sorted(folder.iterdir()) if not _is_whole(path)), None)
    missing = [what for what, names in NEEDED.items() if not any(any(folder.glob(name)) for name in names)]
    if missing or broken:
        reason = f"{broken} is damaged" if broken else f"it lacks {' and '.join(missing)}"
        raise FCNError(
            f"{folder} is no complete checkpoint: {reason}. Name another one; where it isn't in the way, "
            "--resume_from_checkpoint true finds the last one that is complete."
        )
    state = json.loads((folder / STATE_FILE).read_text())
    try:
        parts = [Part(0, None)]
        if (folder / RECIPE_FILE).is_file():
            parts = [Part(**part) for part in json.loads((folder / RECIPE_FILE).read_text())]
        return Checkpoint(folder, int(state["global_step"]), int(state["max_steps"]), tuple(parts))
    except (KeyError, TypeError, ValueError) as error:
        raise FCNError(
            f"{folder} is no checkpoint of this project: {STATE_FILE} or {RECIPE_FILE} is another's."
        ) from error


def _is_whole(path: Path) -> bool:
    """Whether a file of a checkpoint ends where it should; what it says isn't read."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_text()), dict | list)
    except (OSError, ValueError, SafetensorError):
        return False
    # torch.save makes zip archives, whose table of contents comes last.
    return path.suffix not in (".pt", ".pth", ".bin") or zipfile.is_zipfile(path)


def _differences(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of the settings that both know, as versions of transformers don't know the same ones."""
    return {name: (value, new[name]) for name, value in (old or {}).items() if name in new and new[name] != value}


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed session had begun to write in a run's folder and its checkpoints."""
    for path in (folder, *folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        remove_left_aside(path)
