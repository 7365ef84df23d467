"""Fully Convolutional Networks for Semantic Segmentation, the way models are used today."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_fcn import FCNConfig
from .convert import from_classifier
from .convert.convolutionalize import convolutionalize
from .explanation import explain_pixel
from .image_processing_fcn import FCNImageProcessor, FCNImageProcessorPil
from .metrics import ConfusionMatrix
from .modeling_fcn import FCNForSemanticSegmentation, FCNModel, FCNPreTrainedModel
from .optimization import optimize
from .pipeline import FCNImageSegmentationPipeline
from .prediction import predict
from .refinement import refinement
from .version import __version__

AutoConfig.register("fcn", FCNConfig, exist_ok=True)
AutoModel.register(FCNConfig, FCNModel, exist_ok=True)
AutoModelForSemanticSegmentation.register(FCNConfig, FCNForSemanticSegmentation, exist_ok=True)
AutoImageProcessor.register(
    FCNConfig,
    image_processor_classes={"torchvision": FCNImageProcessor, "pil": FCNImageProcessorPil},
    exist_ok=True,
)
# Without its name in this table `pipeline("image-segmentation")` runs an FCN but logs that it isn't supported.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES["fcn"] = "FCNForSemanticSegmentation"

# `register_pipeline` would warn of the task that is there, and have `save_pretrained` of pipelines ask for remote code.
PIPELINE_REGISTRY.supported_tasks["image-segmentation"]["impl"] = FCNImageSegmentationPipeline

# `save_pretrained` then writes `auto_map` and copies the defining files: every saved folder works as remote code.
FCNConfig.register_for_auto_class()
FCNModel.register_for_auto_class("AutoModel")
FCNForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
FCNImageProcessor.register_for_auto_class()
FCNImageProcessorPil.register_for_auto_class()


__all__ = [
    "ConfusionMatrix",
    "FCNConfig",
    "FCNForSemanticSegmentation",
    "FCNImageProcessor",
    "FCNImageProcessorPil",
    "FCNImageSegmentationPipeline",
    "FCNModel",
    "FCNPreTrainedModel",
    "__version__",
    "convolutionalize",
    "explain_pixel",
    "from_classifier",
    "optimize",
    "predict",
    "refinement",
]
