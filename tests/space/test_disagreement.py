"""Where networks differ, and who is right, counted by hand on small masks."""

import numpy as np
import pytest

from space.disagreement import disagreement

NAMES = ("FCN-32s", "FCN-16s", "FCN-8s")
MASKS = [np.array([row], dtype=np.uint8) for row in ([0, 0, 1, 2, 0], [0, 1, 1, 1, 0], [0, 1, 0, 0, 255])]


def test_pixels_are_grouped_by_the_number_of_different_answers():
    found = disagreement(MASKS, NAMES)
    assert found.names == ("2 different answers", "3 different answers")
    assert found.groups.tolist() == [[255, 0, 0, 1, 0]]
    assert found.shares == pytest.approx((0.6, 0.2)) and found.differing == pytest.approx(0.8)


def test_with_the_truth_pixels_are_grouped_by_who_is_right():
    truth = np.array([[0, 1, 2, 2, 255]], dtype=np.uint8)
    found = disagreement(MASKS, NAMES, truth)
    told = {name: share for name, share in zip(found.names, found.shares, strict=True) if share}
    each = ["only FCN-16s and FCN-8s are right", "none is right", "only FCN-32s is right"]
    assert told == dict.fromkeys(each, 0.25)
    assert [found.names[index] for index in found.groups[0, 1:4]] == each
    assert found.groups[0, 0] == found.groups[0, 4] == 255


def test_a_single_network_disagrees_with_the_truth_alone():
    assert disagreement(MASKS[:1], NAMES[:1]) is None
    found = disagreement(MASKS[:1], NAMES[:1], MASKS[1])
    assert (found.names, found.shares, found.differing) == (("wrong",), (0.4,), None)
    assert found.groups.tolist() == [[255, 0, 255, 0, 255]]
