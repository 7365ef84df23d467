"""Recipes: YAML files and overrides from the command line -> the arguments of a run, one after the other for stages.

A recipe may name another as its `base` and then holds only what differs; null leaves an argument at its default.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks

from fcn_hf.datasets import DatasetError
from fcn_hf.errors import FCNError, in_one_line
from training.augmentation import AugmentationArguments
from training.data import STRUCTURED, DataArguments, read_yaml
from training.limits import check_values
from training.losses import LossArguments
from training.model import ModelArguments, net_config
from training.trainer import OptimizerArguments, check_momentum

# What every run here needs: examples aren't rows with columns of a dataset, and each step uses every parameter.
DEFAULTS = {"remove_unused_columns": False, "ddp_find_unused_parameters": False}


@dataclass
class CardArguments:
    """What a card says and shows besides what was measured."""

    model_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})
    usage_note: str | None = field(default=None, metadata={"help": "What the data ask of users, for the card."})
    example_pictures: int = field(
        default=4,
        metadata={
            "help": "Evaluation pictures that are shown with their masks, in the card and, after each evaluation, by "
            "TensorBoard, Weights & Biases or trackio; 0 where the data mustn't be shown."
        },
    )

    def __post_init__(self):
        check_values(self)


GROUPS: Any = (
    ModelArguments, DataArguments, AugmentationArguments, LossArguments, OptimizerArguments, CardArguments,
    TrainingArguments,
)  # fmt: skip
KNOWN = {argument.name for group in GROUPS for argument in dataclasses.fields(group) if argument.init}


@dataclass
class Recipe:
    """The arguments of one run.

    Attributes:
        model, data, augmentation, loss, optimizer, card, training: its groups of arguments.
        given: those that the file or the command line set, for the card.
    """

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    loss: LossArguments
    optimizer: OptimizerArguments
    card: CardArguments
    training: TrainingArguments
    given: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the run leaves its checkpoints and its model."""
        return Path(str(self.training.output_dir))


class _Parser(HfArgumentParser):
    """Says what is wrong in a sentence, without the usage of two hundred arguments before it."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"The recipe can't be used: {message}.")

    @property
    def lists(self) -> dict[str, Any]:
        """The arguments that take several values, and their defaults."""
        return {action.dest: action.default for action in self._actions if action.nargs == "+"}


def bfloat16_is_native() -> bool:
    """Whether this machine's GPU or CPU computes in bfloat16 rather than emulating it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def read_recipes(path: Path, overrides: list[str]) -> list[Recipe]:
    """The run that a recipe describes, or its `stages`, in their order.

    A staged recipe holds `stages`, a list of recipe files beside it, and arguments for all of them. Each stage starts
    from the folder that the one before it leaves: that in `output_dir` with the name of its file. Overrides are for all
    stages, but `--model_name_or_path` is for the first one.

    Args:
        path: of the recipe.
        overrides: `--argument value` pairs, as a shell hands them over.

    Raises:
        `DatasetError`: with a sentence, if there is no such file, or it isn't of this form.
        Whatever `read_recipe` raises.
    """
    settings = _read_settings(path)
    if "stages" not in settings:
        return [read_recipe(settings, overrides)]
    stages = settings.pop("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, str) for stage in stages):
        raise DatasetError(f"stages of {str(path)!r} are {stages!r}; expected a list of recipe files beside it.")
    start, overrides = _take(overrides, "model_name_or_path")
    output_dir, overrides = _take(overrides, "output_dir")
    output_dir = output_dir or str(settings.get("output_dir") or "runs")
    recipes = []
    for file in [path.parent / stage for stage in stages]:
        stage_settings = {**_read_settings(file), **settings, "output_dir": str(Path(output_dir) / file.stem)}
        if start is not None:
            stage_settings["model_name_or_path"] = start
        recipes.append(read_recipe(stage_settings, overrides))
        start = stage_settings["output_dir"]
    return recipes


def read_recipe(settings: dict[str, Any], overrides: list[str]) -> Recipe:
    """A recipe's settings and overrides -> its groups of arguments.

    In `hub_model_id`, "{stride}" becomes the prediction stride, so that stages can go to repos of their own.

    Raises:
        `SystemExit`: with a sentence, if an argument isn't known or its value isn't of its type, or there is no such
            net.
        `FCNError`: with a sentence, if values are out of range, or contradict each other.
    """
    names = [*settings, *(_flag_name(flag) for flag in overrides if flag.startswith("--"))]
    _check_names(names)
    settings = dict(settings)
    if settings.get("bf16") == "auto":
        settings["bf16"] = bfloat16_is_native()
    # TrainingArguments refuses bf16 where it finds no accelerator, unless it is told that the CPU is meant.
    defaults = {**DEFAULTS, "use_cpu": not torch.accelerator.is_available()}
    parser = _Parser(GROUPS, allow_abbrev=False)
    flags = [flag for name, value in (defaults | settings).items() for flag in _flags(name, value, parser.lists)]
    try:
        parsed: Any = parser.parse_args_into_dataclasses(args=flags + overrides)
    except FCNError:
        raise
    except Exception as error:  # TrainingArguments ask other libraries what is there, whose errors are of any kind
        raise FCNError(f"The recipe can't be used: {in_one_line(error)}") from error
    values = {name: getattr(group, name) for name in names for group in parsed if hasattr(group, name)}
    given = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in values.items()
        if name not in ("output_dir", "resume_from_checkpoint", "disable_tqdm", "hub_token")
    }
    recipe = Recipe(*(*parsed, given))
    _check(recipe)
    if recipe.training.hub_model_id is not None:
        recipe.training.hub_model_id = recipe.training.hub_model_id.replace(
            "{stride}", str(recipe.model.prediction_stride)
        )
    return recipe


def _check_names(names: list[Any]) -> None:
    """Raise `SystemExit` with a sentence if one isn't that of an argument; a flag may say no to one."""
    for name in names:
        if name not in KNOWN and name != "help" and str(name).removeprefix("no_") not in KNOWN:
            close = get_close_matches(str(name), KNOWN, 3)
            meant = f"did you mean {' or '.join(close)}?" if close else "see --help for those that there are."
            raise SystemExit(f"The recipe can't be used: there is no argument {name!r}; {meant}")


def _flags(name: str, value: Any, lists: dict[str, Any]) -> list[str]:
    """An argument and its value in a recipe as on the command line; None leaves it out. `lists` take several values."""
    # A command line has no empty list; where it is the default, a recipe takes back its base's list with it.
    if value is None or (value == [] and lists.get(name) == []):
        return []
    if isinstance(value, dict) or name in STRUCTURED:
        try:
            return [f"--{name}={json.dumps(value)}"]
        except (TypeError, ValueError, RecursionError) as error:
            raise DatasetError(f"{name} in the recipe can't be written as JSON: {in_one_line(error)}.") from error
    if isinstance(value, list) and (name in lists or len(value) == 1):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"]


def _check(recipe: Recipe) -> None:
    """Raise `FCNError` or `SystemExit`, with a sentence, for what no single group of arguments can know."""
    training = recipe.training
    check_values(training)
    recipe.data.check(training.max_steps, recipe.model.semantic_loss_ignore_index)
    net_config(recipe.model)
    steps = max(1, training.max_steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=training.learning_rate)
    try:
        if training.optim_target_modules is None:
            check_momentum(Trainer.get_optimizer_cls_and_kwargs(training)[0], recipe.optimizer.momentum)
        warmup, more = training.get_warmup_steps(steps), cast(Any, training.lr_scheduler_kwargs)  # parsed by now
        get_scheduler(training.lr_scheduler_type, optimizer, warmup, steps, more)
        get_reporting_integration_callbacks(training.report_to)
    except FCNError:
        raise
    except Exception as error:  # each optimiser and schedule refuses in its own way
        values = training.to_dict()
        used = ", ".join(f"{name}={values[name]}" for name in ("optim", "lr_scheduler_type", "report_to"))
        raise FCNError(f"The recipe can't be used with {used}: {in_one_line(error)}") from error


def _read_settings(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a recipe sets, over what its `base` does, whose path is relative to the recipe's folder.

    `above` are the recipes that it is the base of.
    """
    if any(path == recipe or path.samefile(recipe) for recipe in above if os.path.isfile(path)):
        raise DatasetError(f"The recipe {str(path)!r} is its own base; end the circle of {_chain((*above, path))}.")
    if not os.path.isfile(path):  # unlike Path's, it takes any text
        needed = f", which is a base in {_chain((*above, path))}" if above else ""
        raise DatasetError(f"There is no recipe {str(path)!r}{needed}; those of the project are in training/recipes.")
    try:
        settings = read_yaml(path.read_text())
    except DatasetError as error:
        raise DatasetError(f"In {str(path)!r} {error}") from error
    except Exception as error:  # yaml's constructors raise more than YAMLError, as for a 13th month
        raise DatasetError(f"{str(path)!r} is no YAML: {in_one_line(error)}") from error
    if not isinstance(settings, dict):
        raise DatasetError(f"{str(path)!r} must be a YAML mapping of argument names to values.")
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise DatasetError(f"base of {str(path)!r} is {base!r}; expected one recipe file, by its path from there.")
    return {**_read_settings(path.parent / base, (*above, path)), **settings}


def _chain(recipes: tuple[Path, ...]) -> str:
    return " -> ".join(path.name for path in recipes)


def _take(overrides: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `--name value` or `--name=value` among the overrides, and the others."""
    rest, value = [], None
    arguments = iter(overrides)
    for argument in arguments:
        if argument.startswith("--") and _flag_name(argument) == name:
            value = argument.partition("=")[2] if "=" in argument else next(arguments, None)
        else:
            rest.append(argument)
    return value, rest


def _flag_name(argument: str) -> str:
    """`learning_rate` of "--learning-rate=0.1"; transformers takes dashes for underscores."""
    return argument[2:].partition("=")[0].replace("-", "_")
