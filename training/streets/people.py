"""Pedestrians and cyclists, put together from round bars."""

import math
from itertools import pairwise
from random import Random

from training.streets.camera import Colour, Point, placed, scaled
from training.streets.canvas import BICYCLIST, PEDESTRIAN, Canvas

# Start and end (along, up, across; across is positive on the side near the camera), thickness, what it is part of.
Bar = tuple[Point, Point, float, str]

CLOTHES: list[Colour] = [
    (34, 36, 44), (52, 56, 70), (28, 30, 32), (78, 70, 62), (110, 34, 40), (44, 66, 110), (140, 134, 124), (66, 82, 62),
    (176, 170, 160), (150, 96, 54), (96, 60, 96), (186, 186, 192), (30, 60, 74),
]  # fmt: skip
BRIGHT: list[Colour] = [(206, 214, 40), (232, 110, 30), (200, 40, 48), (60, 120, 200), (224, 224, 220), *CLOTHES[:4]]
TROUSERS: list[Colour] = [(38, 42, 58), (28, 28, 32), (60, 70, 96), (84, 80, 74), (120, 110, 94)]
SKINS: list[Colour] = [(214, 168, 142), (198, 148, 120), (150, 104, 78), (98, 66, 50), (226, 184, 160)]
HAIRS: list[Colour] = [(46, 34, 26), (24, 20, 18), (96, 70, 44), (150, 120, 78), (120, 116, 112), (84, 44, 28)]


def draw_person(canvas: Canvas, rng: Random, x: float, z: float, heading: float) -> None:
    """A pedestrian at (x, z), walking along `heading` (radians, 0 is away from the camera)."""
    tall, stride = rng.uniform(1.55, 1.9), rng.uniform(-0.28, 0.28)
    bars: list[Bar] = []
    for side in (-1, 1):
        knee, foot = (stride * side * 0.55, 0.28, side * 0.05), (stride * side, 0.035, side * 0.05)
        bars += [((0, 0.52, side * 0.045), knee, 0.085, "trousers"), (knee, foot, 0.066, "trousers")]
        bars.append((foot, (foot[0] + 0.09, 0.02, foot[2]), 0.045, "shoes"))
    arms: list[list[Bar]] = []
    for side in (-1, 1):
        elbow, hand = (-stride * side * 0.3, 0.62, side * 0.15), (0.05 - stride * side * 0.6, 0.49, side * 0.14)
        arms.append([((0, 0.79, side * 0.115), elbow, 0.062, "coat"), (elbow, hand, 0.05, "coat")])
        arms[-1].append((hand, (hand[0], 0.47, hand[2]), 0.055, "skin"))
    hem = rng.choice([0.36, 0.5, 0.5])
    torso: list[Bar] = [((0, 0.78, side * 0.065), (0, hem, side * 0.05), 0.125, "coat") for side in (-1, 1)]
    bars += [*arms[0], *torso, ((0, 0.84, 0), (0, 0.9, 0), 0.06, "skin"), *arms[1]]
    if rng.random() < 0.3:
        bars.append(((0, 0.5, 0.18), (0.02, 0.44, 0.18), 0.11, "bag"))
    _draw_figure(canvas, rng, bars, (0, 0.945, 0), tall, (x, z, heading), CLOTHES, PEDESTRIAN)


def draw_cyclist(canvas: Canvas, rng: Random, x: float, z: float, heading: float) -> None:
    """A cyclist riding along `heading`; rider and bicycle together are the class bicyclist."""
    pedal = rng.uniform(-0.17, 0.17)
    bars: list[Bar] = []
    for hub in (-0.53, 0.53):
        angles = [math.pi * i / 9 for i in range(19)]
        rim = [(hub + 0.34 * math.cos(t), 0.34 + 0.34 * math.sin(t), 0.0) for t in angles]
        canvas.face(placed(rim, x, z, heading), None, BICYCLIST)
        bars += [(a, b, 0.045, "tyre") for a, b in pairwise(rim)]
    rear, crank, seat, stem, front = [(-0.53, 0.34), (-0.05, 0.3), (-0.2, 0.88), (0.38, 0.88), (0.53, 0.34)]
    tubes = [(a, y, 0.0) for a, y in (crank, seat, stem, crank, rear, seat, stem, front)]
    bars += [(a, b, 0.04, "frame") for a, b in pairwise(tubes)]
    bars.append(((0.36, 1.02, -0.26), (0.36, 1.02, 0.26), 0.035, "tyre"))
    for side in (-1, 1):
        knee = (0.2, 0.66 + pedal * side * 0.6, side * 0.12)
        foot = (-0.05 + pedal * side, 0.28 + pedal * side, side * 0.11)
        bars += [((-0.18, 0.95, side * 0.09), knee, 0.15, "trousers"), (knee, foot, 0.11, "trousers")]
        bars.append((foot, (foot[0] + 0.1, foot[1] - 0.02, foot[2]), 0.08, "shoes"))
    arms: list[list[Bar]] = []
    for side in (-1, 1):
        elbow, hand = (0.3, 1.14, side * 0.26), (0.36, 1.04, side * 0.24)
        arms.append([((0.16, 1.36, side * 0.2), elbow, 0.1, "coat"), (elbow, hand, 0.08, "coat")])
    torso: list[Bar] = [((-0.17, 0.98, side * 0.07), (0.15, 1.36, side * 0.11), 0.23, "coat") for side in (-1, 1)]
    bars += [*arms[0], *torso]
    if rng.random() < 0.35:
        bars.append(((-0.2, 1.12, 0), (-0.02, 1.34, 0), 0.26, "bag"))
    _draw_figure(canvas, rng, [*bars, *arms[1]], (0.26, 1.6, 0), 1.0, (x, z, heading), BRIGHT, BICYCLIST)


def _draw_figure(
    canvas: Canvas, rng: Random, bars: list[Bar], head: Point, size: float, spot: Point, coats: list[Colour], code: int
) -> None:
    """Draw a figure made for a height of one metre (or in metres, at size 1) at `spot`: x, z and heading."""
    x, z, heading = spot
    near = 1 if math.sin(heading) > 0 else -1
    colours = {
        "coat": rng.choice(coats), "trousers": rng.choice(TROUSERS), "skin": rng.choice(SKINS), "shoes": (24, 22, 22),
        "bag": rng.choice(CLOTHES), "frame": rng.choice(BRIGHT), "tyre": (22, 22, 24),
    }  # fmt: skip

    def at(point: Point) -> Point:
        along, up, across = point
        return placed([(along * size, up * size, across * near * size)], x, z, heading)[0]

    for start, end, thickness, part in bars:
        shade = 0.8 if start[2] < 0 else 1.0
        canvas.limb(at(start), at(end), thickness * size, scaled(colours[part], shade), code)
    x, y, z = at(head)
    hair, skin = rng.choice(HAIRS), colours["skin"]
    seen_from_behind = math.cos(heading) > 0.3
    canvas.ball((x, y, z), 0.09, 0.118, skin, code)
    canvas.ball((x, y + 0.04, z), 0.097, 0.086, hair, code)
    canvas.ball((x, y - 0.02, z), 0.085, 0.095, hair if seen_from_behind else skin, code)
