"""Examples and batches: what is drawn for them, and how they are put together."""

import torch

from fcn_hf import FCNImageProcessor
from training.augmentation import AugmentationArguments, training_augmentation
from training.examples import Collator, SegmentationDataset
from training.streets import streets_dataset


def test_examples_depend_on_seed_epoch_and_index_alone(tmp_path):
    rows = streets_dataset(2, height=48, width=64, cache_dir=tmp_path)
    augment, processor = training_augmentation(AugmentationArguments([32, 48])), FCNImageProcessor(num_labels=11)

    def example(seed, epoch, index):
        dataset = SegmentationDataset(rows, ("image", "label"), processor, augment, seed)
        dataset.set_epoch(epoch)
        return dataset[index]["pixel_values"]

    first = example(0, 0, 1)
    torch.manual_seed(99)
    assert torch.equal(example(0, 0, 1), first)
    assert not torch.equal(example(0, 1, 1), first) and not torch.equal(example(1, 0, 1), first)


def test_collator_pads_pictures_with_zero_and_labels_with_the_ignored_id():
    examples = [
        {"pixel_values": torch.ones(3, h, w), "labels": torch.ones(h, w, dtype=torch.long)} for h, w in [(4, 6), (5, 3)]
    ]
    batch = Collator(ignore_index=255)(examples)
    assert batch["pixel_values"].shape == (2, 3, 5, 6) and batch["labels"].shape == (2, 5, 6)
    assert (batch["labels"][1, :, 3:] == 255).all() and batch["pixel_values"][1, :, :, 3:].sum() == 0
