"""Names of the published nets' classes."""

import dataclasses

import pytest

from fcn_hf.label_sets import NYUD_40, PASCAL_CONTEXT, SIFT_FLOW, SIFT_FLOW_GEOMETRIC, VOC

SETS = (VOC, PASCAL_CONTEXT, SIFT_FLOW, SIFT_FLOW_GEOMETRIC, NYUD_40)


@pytest.mark.parametrize("label_set, count", zip(SETS, (21, 60, 33, 3, 40), strict=True), ids=[s.name for s in SETS])
def test_a_set_has_a_name_for_each_class(label_set, count):
    assert len(label_set.labels) == len(set(label_set.labels)) == count
    assert all(label and label == label.strip() and "\n" not in label for label in label_set.labels)
    assert list(label_set.id2label.items()) == list(enumerate(label_set.labels))


# Ids of the nets' outputs; the release's files count SIFT Flow and NYUDv2 from 1.
@pytest.mark.parametrize(
    "label_set, names",
    [
        (VOC, {0: "background", 1: "aeroplane", 11: "diningtable", 15: "person", 20: "tvmonitor"}),
        (PASCAL_CONTEXT, {0: "background", 20: "tvmonitor", 21: "bag", 42: "curtain", 52: "bedcloth", 59: "wood"}),
        (SIFT_FLOW, {0: "awning", 8: "cow", 15: "moon", 21: "road", 27: "sky", 32: "window"}),
        (SIFT_FLOW_GEOMETRIC, {0: "sky", 1: "horizontal", 2: "vertical"}),
        (NYUD_40, {0: "wall", 19: "floor mat", 27: "shower curtain", 31: "night stand", 39: "otherprop"}),
    ],
    ids=[s.name for s in SETS],
)
def test_classes_are_in_the_order_of_the_release(label_set, names):
    assert {index: label_set.labels[index] for index in names} == names


def test_a_set_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        VOC.name = "other"
