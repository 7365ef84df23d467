"""Which values the numbers of a recipe may have; one table for all of its groups of arguments."""

import dataclasses
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from fcn_hf.datasets import DatasetError
from fcn_hf.image_processing_fcn import LONGEST_EDGE


class Limit(NamedTuple):
    """What is said of a value that isn't allowed, and which ones are; NaN is within no range."""

    expected: str
    allows: Callable[[Any], bool]


def _within(low: float, high: float, expected: str) -> Limit:
    return Limit(expected, lambda value: low <= value <= high)


ABOVE_0 = Limit("above 0", lambda value: 0 < value < inf)
ZERO_OR_MORE = Limit("0 or more", lambda value: 0 <= value < inf)
ONE_OR_MORE = Limit("1 or more", lambda value: value >= 1)
PROBABILITY = _within(0, 1, "a probability, in 0..1")
SHARE = Limit("a share above 0 and up to 1", lambda value: 0 < value <= 1)
BELOW_1 = Limit("at least 0 and below 1", lambda value: 0 <= value < 1)
EDGE = _within(1, LONGEST_EDGE, f"whole pixels in 1..{LONGEST_EDGE}")
SEED = _within(0, 2**32 - 1, "a whole number in 0..4294967295")

LIMITS = {
    # The net
    "ema_decay": Limit("above 0 and below 1, such as 0.999; leave it out for none", lambda value: 0 < value < 1),
    "weights_dtype": Limit("float32, float16 or bfloat16", lambda value: value in ("float32", "float16", "bfloat16")),
    # The data
    "scan_rows": ZERO_OR_MORE,
    "shuffle_buffer_size": ONE_OR_MORE,
    "class_balanced_rows": PROBABILITY,
    "streets_scenes": ZERO_OR_MORE,
    "example_pictures": ZERO_OR_MORE,
    # Augmentation
    "crop_size": Limit(
        "height and width in pixels, or 0 0 for whole pictures",
        lambda sizes: len(sizes) == 2 and (min(sizes) >= 1 or not any(sizes)),
    ),
    "shortest_edge": EDGE,
    "longest_edge": EDGE,
    "scale": Limit(
        "two factors above 0, the smaller one first",
        lambda factors: len(factors) == 2 and 0 < factors[0] <= factors[1] < inf,
    ),
    "rotation": _within(0, 180, "degrees in 0..180"),
    "class_balanced_crops": PROBABILITY,
    "mirror": PROBABILITY,
    "brightness": ZERO_OR_MORE,
    "contrast": ZERO_OR_MORE,
    "saturation": ZERO_OR_MORE,
    "hue": _within(0, 0.5, "in 0..0.5"),
    "blur": PROBABILITY,
    "erasing": PROBABILITY,
    "patch_sampling": SHARE,
    # The loss
    "loss_reduction": Limit("mean or sum", lambda value: value in ("mean", "sum")),
    "class_weight_power": ZERO_OR_MORE,
    "class_weight_maximum": ZERO_OR_MORE,
    "hard_pixels": SHARE,
    "dice_loss_weight": ZERO_OR_MORE,
    "lovasz_loss_weight": ZERO_OR_MORE,
    "auxiliary_loss_weight": ZERO_OR_MORE,
    "teacher_loss_weight": ZERO_OR_MORE,
    # The optimiser
    "momentum": BELOW_1,
    "bias_learning_rate_factor": ZERO_OR_MORE,
    "trunk_learning_rate_factor": Limit("0 or more, such as 0.1", ZERO_OR_MORE.allows),
    "learning_rate": ABOVE_0,
    "warmup_steps": ZERO_OR_MORE,
    "weight_decay": ZERO_OR_MORE,
    "adam_beta1": BELOW_1,
    "adam_beta2": BELOW_1,
    "adam_epsilon": ZERO_OR_MORE,
    "max_grad_norm": ZERO_OR_MORE,
    # The run
    "max_steps": Limit("1 or more, or -1 where num_train_epochs decides", lambda value: value >= 1 or value == -1),
    "num_train_epochs": ABOVE_0,
    "per_device_train_batch_size": ONE_OR_MORE,
    "gradient_accumulation_steps": ONE_OR_MORE,
    "dataloader_num_workers": ZERO_OR_MORE,
    "dataloader_prefetch_factor": ONE_OR_MORE,
    "seed": SEED,
    "data_seed": SEED,
    "logging_steps": ABOVE_0,
    "save_steps": ABOVE_0,
    "save_total_limit": ONE_OR_MORE,
    "eval_steps": ABOVE_0,
    "eval_delay": ZERO_OR_MORE,
}


def check_value(name: str, value: Any) -> None:
    """Raise `DatasetError`, naming the argument, if there is a limit for it which `value` is beyond; None never is."""
    limit = LIMITS.get(name)
    if limit is not None and value is not None and not limit.allows(value):
        shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
        raise DatasetError(f"{name}={shown} must be {limit.expected}.")


def check_values(arguments: Any) -> None:
    """`check_value` for each argument of a group, a dataclass."""
    for field in dataclasses.fields(arguments):
        check_value(field.name, getattr(arguments, field.name))
