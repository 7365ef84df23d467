"""The 15 nets of the authors' release: what they are and what they scored."""

from dataclasses import dataclass

from ..label_sets import NYUD_40, PASCAL_CONTEXT, SIFT_FLOW, VOC, LabelSet


@dataclass(frozen=True)
class PublishedNet:
    """One net of the release.

    Args:
        name: of its folder in the release and of its `.caffemodel`.
        labels: classes of its (first) head.
        prediction_stride: 32, 16 or 8.
        score: what the papers or the release's README say of it, with the split.
        backbone: "vgg" or "alexnet".
        inputs: what its input channels are.
        at_once: trained from VGG16 in one step, with scaled skips.
    """

    name: str
    labels: LabelSet
    prediction_stride: int
    score: str
    backbone: str = "vgg"
    inputs: tuple[str, ...] = ("color",)
    at_once: bool = False


# Scores: README of the release (VOC); PAMI, tables 4 to 6 (NYUDv2, SIFT Flow, PASCAL-Context).
PUBLISHED = [
    PublishedNet("voc-fcn32s", VOC, 32, "mean IU 63.6 on seg11valid"),
    PublishedNet("voc-fcn16s", VOC, 16, "mean IU 65.0 on seg11valid"),
    PublishedNet("voc-fcn8s", VOC, 8, "mean IU 65.5 on seg11valid, 67.2 on seg12test"),
    PublishedNet("voc-fcn8s-atonce", VOC, 8, "mean IU 65.4 on seg11valid", at_once=True),
    PublishedNet("voc-fcn-alexnet", VOC, 32, "mean IU 48.0 on seg11valid", backbone="alexnet"),
    PublishedNet("pascalcontext-fcn32s", PASCAL_CONTEXT, 32, "mean IU 31.8 on val"),
    PublishedNet("pascalcontext-fcn16s", PASCAL_CONTEXT, 16, "mean IU 34.8 on val"),
    PublishedNet("pascalcontext-fcn8s", PASCAL_CONTEXT, 8, "mean IU 35.1 on val"),
    PublishedNet("siftflow-fcn32s", SIFT_FLOW, 32, "not published"),
    PublishedNet("siftflow-fcn16s", SIFT_FLOW, 16, "mean IU 39.5, geometric accuracy 94.3 on test"),
    PublishedNet("siftflow-fcn8s", SIFT_FLOW, 8, "not published"),
    PublishedNet("nyud-fcn32s-color", NYUD_40, 32, "mean IU 29.2 on test"),
    PublishedNet("nyud-fcn32s-hha", NYUD_40, 32, "mean IU 24.2 on test", inputs=("hha",)),
    PublishedNet("nyud-fcn32s-color-d", NYUD_40, 32, "mean IU 30.5 on test", inputs=("color", "depth")),
    PublishedNet("nyud-fcn32s-color-hha", NYUD_40, 32, "mean IU 32.8 on test", inputs=("color", "hha")),
]
