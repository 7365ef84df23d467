"""What Trainer costs beside a bare loop, and whether decoding and augmenting pictures keep up with the training.

    pip install -e ".[train,timm]"
    python -m benchmarks.training --json training.json

The first two rows train the same net on the same batches, which are in memory already, in turns: a loop of five lines,
and `FCNTrainer` with the same optimiser. The others fetch batches of examples decoded and augmented from drawn streets,
with 0, 1 and 2 workers, and train nothing; and then train on them. Where a step on them takes what it takes on batches
in memory, the data keep up. Figures are medians over steps; the first ones of each run, with the start of its workers,
don't count.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from benchmarks.timing import parser, report
from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor
from fcn_hf.memory import keep_freed_memory
from training.augmentation import AugmentationArguments, training_augmentation
from training.examples import Collator, SegmentationDataset
from training.streets import streets_dataset
from training.trainer import FCNTrainer

LEARNING_RATE, IGNORE_INDEX = 1e-4, 255
UNCOUNTED = 2
"""Steps at the start of a run whose times don't count."""


def main(given: Sequence[str] | None = None) -> None:
    command_line = parser(__doc__, repeats=3)
    command_line.add_argument("--model", default="space/models/street/fcn-8s", help="FCN to be trained, of 11 classes")
    command_line.add_argument("--steps", type=int, default=12, help="of each run")
    command_line.add_argument("--batch", type=int, default=4, help="pictures of one step")
    command_line.add_argument("--size", type=int, nargs=2, default=(360, 480), help="height and width of drawn streets")
    command_line.add_argument("--crop", type=int, nargs=2, default=(240, 320), help="height and width of examples")
    arguments = command_line.parse_args(given)

    keep_freed_memory()
    model = FCNForSemanticSegmentation.from_pretrained(arguments.model).to(memory_format=torch.channels_last)
    steps, batch = arguments.steps + UNCOUNTED, arguments.batch
    with tempfile.TemporaryDirectory() as folder:
        streets = streets_dataset(4 * batch, 0, *arguments.size, cache_dir=folder)
        processor = FCNImageProcessor.from_pretrained(arguments.model, do_resize=False)
        augmentation = training_augmentation(AugmentationArguments(list(arguments.crop)), IGNORE_INDEX)
        drawn = SegmentationDataset(streets, ("image", "label"), processor, augmentation)
        in_memory = [drawn[index] for index in range(4 * batch)]

        bare, trainer = "bare loop", "FCNTrainer"
        seconds: dict[str, list[float]] = {bare: [], trainer: []}
        for _ in range(arguments.repeats):
            seconds[bare] += counted(bare_loop(deepcopy(model), in_memory, batch, steps))
            seconds[trainer] += counted(trained(deepcopy(model), in_memory, batch, steps, 0, folder))
        for workers in range(3):
            data, on_data = f"data alone, num_workers={workers}", f"FCNTrainer on them, num_workers={workers}"
            seconds[data] = counted(fetched(drawn, batch, steps, workers))
            seconds[on_data] = counted(trained(deepcopy(model), drawn, batch, steps, workers, folder))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    rows = {
        name: {"ms a step": round(1000 * each, 1), "this / bare loop": round(each / medians[bare], 3)}
        for name, each in medians.items()
    }
    report(f"batches of {batch}x{arguments.crop[0]}x{arguments.crop[1]}", rows, arguments)


def counted(moments: Iterable[float]) -> list[float]:
    """Moments at which steps ended -> seconds of those that count."""
    return [later - earlier for earlier, later in itertools.pairwise(moments)][UNCOUNTED - 1 :]


def batches(examples: Any, batch: int, workers: int = 0) -> Iterator[dict[str, torch.Tensor]]:
    """Batches without end, in a new order with each pass."""
    loader = DataLoader(
        examples, batch, shuffle=True, collate_fn=Collator(IGNORE_INDEX), num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    while True:
        yield from loader


def bare_loop(model: FCNForSemanticSegmentation, examples: Any, batch: int, steps: int) -> Iterator[float]:
    """Train for some steps; the moments at which they ended."""
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    model.train()
    for inputs in itertools.islice(batches(examples, batch), steps):
        logits = model(pixel_values=inputs["pixel_values"]).logits
        F.cross_entropy(logits, inputs["labels"], ignore_index=IGNORE_INDEX).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter()


class Moments(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())


def trained(
    model: FCNForSemanticSegmentation, examples: Any, batch: int, steps: int, workers: int, folder: str
) -> list[float]:
    """As `bare_loop`, by the trainer."""
    moments = Moments()
    arguments = TrainingArguments(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0, optim="sgd", learning_rate=LEARNING_RATE, max_grad_norm=0,
        lr_scheduler_type="constant", use_cpu=True, remove_unused_columns=False, report_to="none", save_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    trainer = FCNTrainer(
        model, args=arguments, train_dataset=examples, data_collator=Collator(IGNORE_INDEX), callbacks=[moments]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return moments.moments


def fetched(examples: Any, batch: int, steps: int, workers: int) -> Iterator[float]:
    """Fetch some batches; the moments at which each was there."""
    for _ in itertools.islice(batches(examples, batch, workers), steps):
        yield time.perf_counter()


if __name__ == "__main__":
    main()
