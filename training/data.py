"""Rows of a dataset -> augmented training examples: label names, class weights, joint augmentation, batches."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcn_hf.evaluation import DatasetError


def find_id2label(name: str, dataset: datasets.Dataset, label_column: str, ignore_index: int) -> dict[int, str]:
    """Class names from `id2label.json` in the dataset's folder or Hub repo, else numbers up to the largest id seen.

    Args:
        name: Hub id or folder of the dataset.
        dataset: split whose labels are scanned where no file names the classes.
    """
    path: str | Path = Path(name) / "id2label.json"
    if not Path(name).is_dir():
        try:
            path = hf_hub_download(name, "id2label.json", repo_type="dataset")
        except (HfHubHTTPError, HFValidationError, OSError):
            pass
    if Path(path).is_file():
        return {int(index): label for index, label in json.loads(Path(path).read_text()).items()}
    seen = class_counts(dataset, label_column, 256, ignore_index).nonzero()[0]
    return {index: f"class {index}" for index in range(int(seen.max()) + 1)}


def class_counts(dataset: datasets.Dataset, label_column: str, num_labels: int, ignore_index: int) -> np.ndarray:
    """Pixels of each class over a whole split: int64 of shape `(num_labels,)`.

    Raises:
        `DatasetError`: naming the row, if a label is neither in 0..num_labels-1 nor `ignore_index`.
    """
    counts = np.zeros(num_labels, dtype=np.int64)
    for row, label in enumerate(dataset.select_columns([label_column])):
        ids, pixels = np.unique(np.asarray(label[label_column]), return_counts=True)
        wrong = [int(i) for i in ids if i != ignore_index and not 0 <= i < num_labels]
        if wrong:
            raise DatasetError(
                f"Row {row}: label ids {wrong} are outside 0..{num_labels - 1} and not the ignored {ignore_index}; "
                "fix id2label or set semantic_loss_ignore_index."
            )
        known = ids != ignore_index
        counts[ids[known]] += pixels[known]
    return counts


def median_frequency_weights(counts: np.ndarray, power: float = 1.0, maximum: float | None = None) -> torch.Tensor:
    """Class weights `(median frequency / frequency) ** power`, at most `maximum`; float32 of shape `(num_labels,)`.

    Median-frequency balancing is that of Eigen and Fergus (arXiv:1411.4734, section 4.3.2), with a class's frequency
    taken over the whole split; a power of 0.5 takes its root. A class without a pixel gets weight 1.
    """
    frequencies = counts / counts.sum()
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = (np.median(frequencies[present]) / frequencies[present]) ** power
    return torch.from_numpy(np.minimum(weights, maximum) if maximum else weights).float()


def training_augmentation(
    crop_size: tuple[int, int],
    scale: tuple[float, float] = (0.5, 1.5),
    mirror: float = 0.5,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    ignore_index: int = 255,
) -> v2.Transform:
    """Joint augmentation of a `tv_tensors.Image` and its `tv_tensors.Mask`: scale, crop, mirror, colour.

    Args:
        crop_size: (height, width) of what comes out, in pixels; smaller pictures are padded, their labels ignored.
        scale: range of the factor by which a picture is resized before it is cropped.
        mirror: probability of a left-right flip, in 0..1.
        brightness, contrast, saturation: as in torchvision's `ColorJitter`.
    """
    return v2.Compose(
        [
            RandomScale(scale),
            v2.RandomCrop(
                crop_size, pad_if_needed=True, fill={tv_tensors.Image: 127, tv_tensors.Mask: ignore_index, "others": 0}
            ),
            v2.RandomHorizontalFlip(mirror),
            v2.ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation),
        ]
    )


class RandomScale(v2.Transform):
    """Resize picture and mask by one factor, drawn evenly from a range; bilinear and nearest, as torchvision does."""

    def __init__(self, scale: tuple[float, float]):
        super().__init__()
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = float(torch.empty(()).uniform_(*self.scale))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(v2.functional.resize, inpt, size=params["size"], antialias=True)


class SegmentationDataset(torch.utils.data.Dataset):
    """Rows of a map-style dataset as `pixel_values` and `labels`, augmented where an augmentation is given.

    What is drawn for an example follows from `(seed, epoch, index)` alone: neither the number of workers nor a restart
    changes it.

    Args:
        dataset: rows with a picture and a label map.
        columns: names of the two.
        image_processor: an `FCNImageProcessor`.
        augmentation: of a `tv_tensors.Image` and a `tv_tensors.Mask`; none for evaluation.
        seed: of the augmentation.
    """

    def __init__(self, dataset, columns: tuple[str, str], image_processor, augmentation=None, seed: int = 0):
        self.dataset = dataset
        self.image_column, self.label_column = columns
        self.image_processor = image_processor
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Mapping[str, torch.Tensor]:
        row = self.dataset[index]
        picture, label = row[self.image_column], row[self.label_column]
        if picture.size != label.size:
            raise ValueError(
                f"Row {index}: the picture is {picture.size} and its label map {label.size} (width, height); they "
                "must agree."
            )
        if self.augmentation is not None:
            image = tv_tensors.Image(v2.functional.pil_to_tensor(picture.convert("RGB")))
            mask = tv_tensors.Mask(torch.from_numpy(np.array(label)))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash_seed(self.seed, self.epoch, index))
                picture, label = self.augmentation(image, mask)
        features = self.image_processor(picture, segmentation_maps=label, return_tensors="pt")
        return {"pixel_values": features["pixel_values"][0], "labels": features["labels"][0]}


def hash_seed(*numbers: int) -> int:
    """One 64-bit seed from several numbers, without the collisions of sums."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Collator:
    """Stack examples of any sizes: pictures padded right and bottom with 0, labels with the ignored id.

    Returns `pixel_values` (B, C, H, W) float32 in channels-last memory, which CPU convolutions prefer, and `labels`
    (B, H, W) int64.
    """

    def __init__(self, ignore_index: int = 255):
        self.ignore_index = ignore_index

    def __call__(self, examples: list[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        height = max(example["labels"].shape[0] for example in examples)
        width = max(example["labels"].shape[1] for example in examples)

        def pad(tensor: torch.Tensor, value: float) -> torch.Tensor:
            missing = (0, width - tensor.shape[-1], 0, height - tensor.shape[-2])
            return torch.nn.functional.pad(tensor, missing, value=value)

        pixel_values = torch.stack([pad(example["pixel_values"], 0.0) for example in examples])
        labels = torch.stack([pad(example["labels"], self.ignore_index) for example in examples])
        return {"pixel_values": pixel_values.contiguous(memory_format=torch.channels_last), "labels": labels}
