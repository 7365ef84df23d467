"""The pipeline of transformers, whose batches of an FCN may hold pictures of several sizes."""

from typing import Any

import torch
from transformers import ImageSegmentationPipeline
from transformers.modeling_outputs import SemanticSegmenterOutput

from .configuration_fcn import FCNConfig


class FCNImageSegmentationPipeline(ImageSegmentationPipeline):
    """What `pipeline("image-segmentation")` is once `fcn_hf` is imported: that of transformers, and the same for other
    models. Pictures of an FCN's batch that have one size go through the net together, those of several sizes after one
    another: padded to one size, the net would see the padding.
    """

    @property
    def _takes_any_size(self) -> bool:
        return self.model.config.model_type == FCNConfig.model_type

    def preprocess(self, *args: Any, **settings: Any) -> Any:
        inputs = super().preprocess(*args, **settings)
        if self._takes_any_size:
            # transformers leaves lists in a batch as they are; tensors it joins, which wants one size.
            inputs["pixel_values"] = list(inputs["pixel_values"])
        return inputs

    def _forward(self, model_inputs: Any) -> Any:  # type: ignore[override]  # as the task's own, which takes no more
        if not self._takes_any_size:
            return super()._forward(model_inputs)
        pictures = model_inputs["pixel_values"]
        if isinstance(pictures[0], torch.Tensor):  # one picture that is no batch
            return super()._forward({**model_inputs, "pixel_values": torch.stack(pictures)})
        by_size: dict[torch.Size, dict[int, torch.Tensor]] = {}
        for index, (picture,) in enumerate(pictures):
            by_size.setdefault(picture.shape, {})[index] = picture
        scores: dict[int, torch.Tensor] = {}
        for same in by_size.values():
            logits = self.model(pixel_values=torch.stack(list(same.values()))).logits
            scores.update(zip(same, logits, strict=True))
        outputs = SemanticSegmenterOutput()
        # Lists here, too, of what transformers hands to post-processing one by one.
        outputs["logits"] = [scores[index] for index in range(len(pictures))]
        outputs["target_size"] = model_inputs["target_size"]
        return outputs
