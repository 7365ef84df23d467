"""Classes of the datasets that the published nets were trained on, in the order of their outputs.

All names are those of the authors' release, misspellings included, so that they can be compared with other tools':
`data/pascal-context/classes-59.txt`, `data/sift-flow/classes.txt`, `data/nyud/classes.txt`; PASCAL VOC's are those of
its development kit. The nets ignore the label 255. SIFT Flow's and NYUDv2's own label files count the classes from 1
and hold 0 where nothing is labelled (SIFT Flow's geometry -1, to be made 0): `do_reduce_labels=True` is for those.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelSet:
    """
    The classes of one dataset.

    Attributes:
        name (`str`): what the dataset is called.
        labels (`tuple[str, ...]`): class names, each at the index that is its id.
    """

    name: str
    labels: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """Class name of each id, as a model's configuration wants it."""
        return dict(enumerate(self.labels))


def class_names(labels: LabelSet | None, count: int) -> dict[int, str]:
    """Class name of each id: those of `labels` if it has `count` of them, else numbered ones."""
    if labels is not None and len(labels.labels) == count:
        return labels.id2label
    return {index: f"class {index}" for index in range(count)}


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


VOC = LabelSet(
    "PASCAL VOC",
    _split("""
        background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
        motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
    """),
)

# The 59 classes of the task and, before them, background: VOC's, then more in an order of their own.
PASCAL_CONTEXT = LabelSet(
    "PASCAL-Context",
    VOC.labels
    + _split("""
        bag, bed, bench, book, building, cabinet, ceiling, clothes, computer, cup, door, fence, floor, flower, food,
        grass, ground, keyboard, light, mountain, mouse, curtain, platform, sign, plate, road, rock, shelves, sidewalk,
        sky, snow, bedcloth, track, tree, truck, wall, water, window, wood
    """),
)

# No picture of the test split shows cow, desert or moon: the release leaves them out of its scores.
SIFT_FLOW = LabelSet(
    "SIFT Flow",
    _split("""
        awning, balcony, bird, boat, bridge, building, bus, car, cow, crosswalk, desert, door, fence, field, grass,
        moon, mountain, person, plant, pole, river, road, rock, sand, sea, sidewalk, sign, sky, staircase, streetlight,
        sun, tree, window
    """),
)

# The dataset's second labelling, which the nets' second head predicts.
SIFT_FLOW_GEOMETRIC = LabelSet("SIFT Flow, geometric", ("sky", "horizontal", "vertical"))

NYUD_40 = LabelSet(
    "NYUDv2, 40 classes",
    _split("""
        wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves,
        curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refridgerator, television, paper, towel,
        shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, otherstructure,
        otherfurniture, otherprop
    """),
)
