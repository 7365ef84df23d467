"""What stands beside the road: trees, hedges, fences, lamp posts, signs, traffic lights and bins."""

import math
from itertools import pairwise
from random import Random

from training.streets.camera import Colour, Pixel, Point, scaled
from training.streets.canvas import CLUTTER, FENCE, LEAVES, POLE, SIGN, TREE, UPWARDS, Canvas

Outline = list[Pixel]
# What is drawn from flat shapes, in metres around its middle, one over the other.
Layers = list[tuple[Outline, Colour]]

GREENS: list[Colour] = [(74, 96, 44), (62, 88, 46), (88, 104, 50), (96, 110, 46), (56, 80, 50), (120, 112, 52)]
BARKS: list[Colour] = [(74, 64, 54), (88, 80, 70), (60, 54, 48)]
STEELS: list[Colour] = [(120, 124, 126), (96, 100, 102), (150, 152, 152), (44, 58, 50), (38, 40, 44)]
RED, WHITE, BLACK, BLUE, YELLOW = (196, 28, 34), (236, 236, 232), (24, 24, 26), (28, 72, 160), (228, 190, 44)


def _box(x: float, y: float, wide: float, tall: float) -> Outline:
    dx, dy = wide / 2, tall / 2
    return [(x - dx, y - dy), (x - dx, y + dy), (x + dx, y + dy), (x + dx, y - dy)]


def _disc(x: float, y: float, radius: float) -> Outline:
    return [(x + radius * math.cos(math.pi * i / 8), y + radius * math.sin(math.pi * i / 8)) for i in range(16)]


def _triangle(wide: float, tall: float) -> Outline:
    return [(-wide / 2, -tall / 2), (0.0, tall / 2), (wide / 2, -tall / 2)]


def _arrow(x: float, tall: float) -> Outline:
    return [(x, tall / 2), (x + 0.15, 0.0), (x + 0.05, 0.0), (x + 0.05, -tall / 2), (x - 0.05, -tall / 2),
            (x - 0.05, 0.0), (x - 0.15, 0.0)]  # fmt: skip


def _words(x: float, y: float, rows: int, colour: Colour) -> Layers:
    return [(_box(x, y - 0.14 * row, 0.36 - 0.08 * (row % 2), 0.06), colour) for row in range(rows)]


SIGNS: dict[str, Layers] = {
    "limit": [
        (_disc(0, 0, 0.34), RED), (_disc(0, 0, 0.26), WHITE), (_box(-0.09, 0, 0.13, 0.27), BLACK),
        (_box(-0.11, 0.07, 0.1, 0.06), WHITE), (_box(-0.11, -0.07, 0.1, 0.06), WHITE),
        (_box(0.09, 0, 0.13, 0.27), BLACK), (_box(0.09, 0, 0.05, 0.18), WHITE),
    ],
    "no entry": [(_disc(0, 0, 0.34), RED), (_box(0, 0, 0.5, 0.12), WHITE)],
    "ahead": [(_disc(0, 0, 0.34), BLUE), (_arrow(0, 0.44), WHITE)],
    "warning": [(_triangle(0.84, 0.75), RED), (_triangle(0.5, 0.44), WHITE), (_box(0, -0.04, 0.09, 0.24), BLACK)],
    "give way": [(_triangle(-0.84, -0.75), RED), (_triangle(-0.5, -0.44), WHITE)],
    "parking": [
        (_box(0, 0, 0.6, 0.76), WHITE), (_box(0, 0, 0.54, 0.7), BLUE), (_box(-0.07, 0, 0.07, 0.4), WHITE),
        (_disc(0.01, 0.1, 0.11), WHITE), (_disc(0.01, 0.1, 0.055), BLUE),
    ],
    "panel": [(_box(0, 0, 0.6, 0.76), BLACK), (_box(0, 0, 0.54, 0.7), YELLOW), *_words(0, 0.2, 4, BLACK)],
    "directions": [
        (_box(0, 0, 2.0, 1.2), WHITE), (_box(0, 0, 1.9, 1.1), (30, 70, 150)), *_words(-0.6, 0.3, 5, WHITE),
        *_words(-0.1, 0.3, 3, WHITE), (_arrow(0.6, 0.8), WHITE),
    ],
}  # fmt: skip
LAMPS: list[Colour] = [(255, 60, 44), (255, 180, 50), (70, 250, 150)]
TRAFFIC_LIGHT: Layers = [
    (_box(0, 0, 0.54, 1.24), (200, 200, 196)), (_box(0, 0, 0.48, 1.16), (24, 25, 27)),
    *((_disc(0, 0.37 * (1 - i), 0.13), scaled(lamp, 0.3)) for i, lamp in enumerate(LAMPS)),
]  # fmt: skip
# None of the classes, so ignored. Heights are those above the pavement.
CLUTTERS: list[Layers] = [
    [
        (_disc(0, 1.5, 0.24), RED), (_box(0, 0.75, 0.44, 1.5), (172, 24, 28)), (_box(0, 0.12, 0.48, 0.24), BLACK),
        (_box(0, 1.3, 0.26, 0.06), BLACK), (_box(0, 1.02, 0.2, 0.28), WHITE),
    ],
    [(_box(0, 0.5, 0.54, 1.0), (34, 58, 44)), (_box(0, 1.02, 0.62, 0.1), (46, 78, 60))],
    [(_box(0, 0.45, 0.5, 0.9), (30, 32, 36)), (_box(0, 0.94, 0.58, 0.1), (44, 46, 50))],
]  # fmt: skip


def _draw_layers(canvas: Canvas, x: float, y: float, z: float, layers: Layers, code: int) -> None:
    for outline, colour in layers:
        canvas.face([(x + dx, y + dy, z) for dx, dy in outline], colour, code)


def draw_sign(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A traffic sign on its post, a board of directions on two."""
    paint, kind, y = rng.choice(STEELS), rng.choice(list(SIGNS)), rng.uniform(2.3, 2.9)
    for offset in (-0.55, 0.55) if kind == "directions" else (0.0,):
        canvas.limb((x + offset, 0, z), (x + offset, y + 0.3, z), 0.085, paint, POLE)
    _draw_layers(canvas, x, y, z, SIGNS[kind], SIGN)


def draw_traffic_light(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A traffic light; as in CamVid its head counts as sign and its post as pole."""
    canvas.limb((x, 0, z), (x, 3.3, z), 0.11, (70, 72, 74), POLE)
    _draw_layers(canvas, x, 2.85, z, TRAFFIC_LIGHT, SIGN)
    lamp = rng.randrange(3)
    canvas.face([(x + dx, 3.22 - 0.37 * lamp + dy, z) for dx, dy in _disc(0, 0, 0.13)], LAMPS[lamp], SIGN, None)


def draw_clutter(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A pillar box, a wheelie bin or a litter bin."""
    _draw_layers(canvas, x, 0.0, z, rng.choice(CLUTTERS), CLUTTER)


def draw_lamp_post(canvas: Canvas, rng: Random, x: float, z: float, tall: float, paint: Colour) -> None:
    """A lamp post whose arm reaches over the road."""
    inwards = -1 if x > 0 else 1
    canvas.limb((x, 0, z), (x, 1.4, z), 0.2, paint, POLE)
    canvas.limb((x, 1.3, z), (x, tall, z), 0.12, paint, POLE)
    arm = [(x + inwards * 1.5 * t, tall + 0.35 * t * (2 - t), z) for t in (0, 0.25, 0.5, 1.0)]
    for a, b in pairwise(arm):
        canvas.limb(a, b, 0.085, paint, POLE)
    head_x, head_y, _ = arm[-1]
    canvas.limb(arm[-1], (head_x + inwards * 0.6, head_y, z), 0.16, scaled(paint, 0.9), POLE)


def draw_tree(canvas: Canvas, rng: Random, x: float, z: float, tall: float, wide: float, bare: bool) -> None:
    """A tree `tall` metres high with a crown `wide` metres across; a bare one has twigs instead of leaves."""
    if not canvas.camera.sees(x, z, tall):
        return
    bark, trunk, fork = rng.choice(BARKS), 0.035 * tall * rng.uniform(0.8, 1.2), tall * rng.uniform(0.28, 0.38)
    top = (x + rng.uniform(-0.025, 0.025) * tall, fork, z)
    canvas.limb((x, 0, z), top, trunk, bark, TREE)
    _draw_branches(canvas, rng, top, math.pi / 2, tall * (0.3 if bare else 0.2), trunk * 0.7, 6 if bare else 2, bark)
    if not bare:
        _draw_crown(canvas, rng, (top[0], (fork * 0.8 + tall) / 2, z), wide / 2, (tall - fork * 0.8) / 2)


def _draw_branches(
    canvas: Canvas, rng: Random, start: Point, angle: float, length: float, thick: float, levels: int, bark: Colour
) -> None:
    for _ in range(2 if levels > 2 and rng.random() < 0.6 else 3):
        turn, reach = angle + rng.uniform(-0.75, 0.75), length * rng.uniform(0.65, 1.15)
        end = (start[0] + reach * math.cos(turn), start[1] + reach * math.sin(turn), start[2])
        canvas.limb(start, end, thick * 0.7, bark, TREE)
        if levels > 1:
            _draw_branches(canvas, rng, end, turn * 0.9 + 0.157, length * 0.7, thick * 0.6, levels - 1, bark)


def _draw_crown(canvas: Canvas, rng: Random, centre: Point, rx: float, ry: float) -> None:
    """Foliage: a dark ball for each lobe under leaves that are brighter towards the light."""
    x, y, z = centre
    green, (sun_x, sun_y, _) = rng.choice(GREENS), canvas.light.sun
    lobes = [(0.0, 0.0, 0.62)]
    for i in range(7):
        angle, reach = 0.9 * i + rng.uniform(0, 0.8), rng.uniform(0.45, 0.65)
        lobes.append((reach * math.cos(angle), reach * math.sin(angle), rng.uniform(0.3, 0.44)))
    for dx, dy, size in lobes:
        colour = scaled(green, 0.6 + 0.2 * dy)
        canvas.ball((x + dx * rx, y + dy * ry, z), size * rx, size * ry, colour, LEAVES, (0.0, 0.3, -0.3))
    count = int(min(420, max(16, canvas.camera.pixels_per_metre(z) * 2 * rx)))
    normal = (0.5 * sun_x, 0.35 + 0.6 * sun_y, -0.35)
    for i in range(count):
        dx, dy, size = lobes[i % len(lobes)]
        angle, reach, tint = rng.uniform(0, 2 * math.pi), size * math.sqrt(rng.random()), rng.random()
        dx, dy = dx + reach * math.cos(angle), dy + reach * math.sin(angle)
        shade = min(1.0, max(0.0, 0.45 + 0.4 * dy + 0.25 * sun_x * dx + 0.3 * (tint - 0.5)))
        radius = max(0.07, 0.85 / math.sqrt(count)) * rx * (0.55 + 0.7 * tint)
        spot = (x + dx * rx, y + dy * ry, z)
        canvas.ball(spot, radius, radius * 0.75, scaled(green, 0.45 + 0.75 * shade), LEAVES, normal)


def draw_hedge(canvas: Canvas, rng: Random, x: float, z0: float, z1: float, tall: float) -> None:
    """A clipped hedge along the road from z0 to z1, `tall` metres high."""
    green, side = rng.choice(GREENS), 1 if x > 0 else -1
    back, normal = x + side * 1.1, (-side, 0.2, 0.0)
    canvas.face([(x, 0, z0), (x, tall, z0), (back, tall, z0), (back, 0, z0)], scaled(green, 0.8), LEAVES)
    canvas.face([(x, 0, z0), (x, tall, z0), (x, tall, z1), (x, 0, z1)], scaled(green, 0.85), LEAVES, normal)
    for i in range(6, -1, -1):
        z = z0 + (z1 - z0) * i / 6
        canvas.ball((x + side * 0.3, tall - 0.12, z), 0.38, 0.26, scaled(green, 0.95), LEAVES, UPWARDS)
        tuft = scaled(green, rng.uniform(0.75, 1.1))
        canvas.ball((x, tall * rng.uniform(0.1, 1.0), z), 0.26, 0.2, tuft, LEAVES, normal)


def draw_fence(canvas: Canvas, rng: Random, x: float, z0: float, z1: float, kind: str) -> None:
    """A fence along the road at x from z0 to z1: "railing" or "boards"; the whole panel counts as fence."""
    boards = kind == "boards"
    paint: Colour = (118, 92, 64) if boards else (128, 132, 134) if kind == "railing" else (34, 38, 40)
    tall, wide, spacing = (1.75, 0.3, 0.3) if boards else (1.15, 0.025, 0.13)
    normal = (-1.0 if x > 0 else 1.0, 0.1, 0.0)

    def panel(a: float, b: float, low: float, high: float, colour: Colour | None) -> None:
        canvas.face([(x, low, a), (x, high, a), (x, high, b), (x, low, b)], colour, FENCE, normal)

    panel(z0, z1, 0.0, tall, None)
    bars = int((z1 - z0) / spacing)
    for i in range(bars, -1, -1):
        z = z0 + i * spacing
        panel(z, min(z + wide, z1), 0.05, tall, scaled(paint, rng.uniform(0.86, 1.08)))
    for y in (0.14, tall - 0.04):
        panel(z0, z1, y, y + 0.05, scaled(paint, 0.8) if boards else paint)
    if not boards:
        for z in (z1, z0):
            canvas.limb((x, 0, z), (x, tall + 0.03, z), 0.065, paint, FENCE)
