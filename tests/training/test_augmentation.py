"""Augmentation: picture and mask together, at the size and in the shares that were asked for."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from fcn_hf.datasets import DatasetError
from training.augmentation import (
    AugmentationArguments,
    ClassBalancedCrop,
    PatchSampling,
    RandomScale,
    training_augmentation,
)


def test_augmentation_moves_picture_and_mask_together():
    # The red channel holds the class id, so wherever the two part company it shows.
    label = torch.arange(6).repeat_interleave(10)[None, :].repeat(40, 1)
    picture = torch.stack([label * 40] * 3).to(torch.uint8)
    augment = training_augmentation(
        AugmentationArguments([32, 48], scale=[0.7, 1.4], brightness=0, contrast=0, saturation=0)
    )
    padded = mirrored = 0
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = augment(tv_tensors.Image(picture), tv_tensors.Mask(label))
        assert image.shape == (3, 32, 48) and mask.shape == (32, 48)
        inside = mask != 255
        difference = (image[0].float() / 40 - mask)[inside].abs()
        # Bilinear and nearest may differ by one class on the seam between two, nowhere else.
        assert difference.max() <= 1 and (difference < 0.5).float().mean() > 0.9
        assert (image[:, ~inside] == 127).all()
        padded += bool((~inside).any())
        mirrored += bool(mask[inside][0] > mask[inside][-1])
    assert padded and 0 < mirrored < 20


def test_a_scale_of_one_gives_the_shorter_edge_that_the_recipe_asks_for():
    picture, mask = tv_tensors.Image(torch.zeros(3, 40, 60, dtype=torch.uint8)), tv_tensors.Mask(torch.zeros(40, 60))
    image, mask = RandomScale((1.0, 1.0), shortest_edge=80)(picture, mask)
    assert image.shape == (3, 80, 120) and mask.shape == (80, 120)


def test_balanced_crops_contain_the_rare_class():
    label = torch.zeros(60, 90, dtype=torch.uint8)
    label[57, 3] = 7
    for size, probability, least in (([20, 30], 1.0, 30), ([20, 30], 0.0, 0), ([70, 30], 1.0, 30)):
        crop = ClassBalancedCrop(size, probability, ignore_index=255, fill={tv_tensors.Mask: 255, "others": 0})
        torch.manual_seed(0)
        crops = [crop(tv_tensors.Mask(label)) for _ in range(100)]
        assert all(list(mask.shape) == size for mask in crops)
        found = sum(bool((mask == 7).any()) for mask in crops)
        # One of the two classes is drawn, so about every other crop is laid around the pixel.
        assert least <= found < 90, (size, probability)


def test_every_augmentation_leaves_ids_that_were_there_and_the_asked_for_size():
    arguments = AugmentationArguments(
        [40, 56], rotation=20, class_balanced_crops=0.5, hue=0.2, blur=1.0, erasing=1.0, scale=[0.4, 2.0]
    )
    augment, label = training_augmentation(arguments), torch.randint(0, 5, (50, 70))
    picture = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    for seed in range(10):
        torch.manual_seed(seed)
        image, mask = augment(tv_tensors.Image(picture), tv_tensors.Mask(label))
        assert image.shape == (3, 40, 56) and image.dtype == torch.uint8 and mask.shape == (40, 56)
        assert set(mask.unique().tolist()) <= {0, 1, 2, 3, 4, 255}


def test_patch_sampling_keeps_labels_in_its_share_of_whole_patches_and_leaves_pictures_alone():
    sample = PatchSampling(0.25, ignore_index=255)
    picture, label = tv_tensors.Image(torch.ones(3, 100, 330)), tv_tensors.Mask(torch.ones(100, 330, dtype=torch.uint8))
    torch.manual_seed(0)
    shares = []
    for _ in range(40):
        image, mask = sample(picture, label)
        assert torch.equal(image, picture)
        for y in range(0, 100, 32):
            for x in range(0, 330, 32):
                assert len(mask[y : y + 32, x : x + 32].unique()) == 1
        shares.append(float((mask == 1).float().mean()))
    assert abs(np.mean(shares) - 0.25) < 0.03 and len(set(shares)) > 30
    steps = [type(step) for step in training_augmentation(AugmentationArguments(patch_sampling=0.25)).transforms]
    assert steps[-1] is PatchSampling and PatchSampling not in map(
        type, training_augmentation(AugmentationArguments()).transforms
    )
    with pytest.raises(DatasetError, match="patch_sampling=1.5 must be a share"):
        AugmentationArguments(patch_sampling=1.5)
