"""What stands beside the road: trees, hedges, fences, lamp posts, signs, traffic lights and bins."""

import math
from itertools import pairwise

import numpy as np

from training.streets.canvas import (
    CLUTTER,
    FENCE,
    LEAVES,
    POLE,
    SIGN,
    TREE,
    Canvas,
    Colour,
    Point,
    pick,
    scaled,
    uniform,
)

GREENS: list[Colour] = [(74, 96, 44), (62, 88, 46), (88, 104, 50), (96, 110, 46), (56, 80, 50), (120, 112, 52)]
BARKS: list[Colour] = [(74, 64, 54), (88, 80, 70), (60, 54, 48)]
STEELS: list[Colour] = [(120, 124, 126), (96, 100, 102), (150, 152, 152), (44, 58, 50), (38, 40, 44)]
RED, WHITE, BLACK, BLUE = (196, 28, 34), (236, 236, 232), (24, 24, 26), (28, 72, 160)

Outline = list[tuple[float, float]]

# Strokes of the speed-limit numerals in a box one wide and two high.
DIGITS: dict[str, Outline] = {
    "0": [(0, 0), (1, 0), (1, 2), (0, 2), (0, 0)],
    "2": [(0, 2), (1, 2), (1, 1), (0, 1), (0, 0), (1, 0)],
    "3": [(0, 2), (1, 2), (1, 1), (0.3, 1), (1, 1), (1, 0), (0, 0)],
    "4": [(0, 2), (0, 1), (1, 1), (1, 2), (1, 0)],
}


def draw_tree(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, tall: float, wide: float, bare: bool, shadow: float
) -> None:
    """A tree `tall` metres high with a crown `wide` metres across; a bare one has twigs instead of leaves."""
    if not canvas.sees(x, z, tall):
        return
    bark = pick(rng, BARKS)
    light = canvas.light.on(-0.4, 0.1, -0.8, shadow * 0.5)
    trunk = 0.035 * tall * (0.8 + 0.4 * rng.random())
    fork = tall * (0.28 + 0.1 * rng.random())
    lean = (rng.random() - 0.5) * 0.05 * tall
    half = trunk / 2
    top = (x + lean, fork, z)
    shaded = 1 if canvas.light.sun[0] < 0 else -1
    for edge, colour in ((shaded, bark), (-shaded, scaled(bark, 1.25))):
        stem = [(x + edge * half * 1.3, 0, z), (x + edge * half * 0.8 + lean, fork, z), top, (x, 0, z)]
        canvas.face(stem, colour, TREE, light)
    detail = canvas.camera.pixels_per_metre(z) * wide
    if bare:
        _draw_branches(canvas, rng, top, 1.5708, tall * 0.3, trunk * 0.7, 6 if detail > 260 else 5, bark, light)
        return
    _draw_branches(canvas, rng, top, 1.5708, tall * 0.2, trunk * 0.7, 2, bark, light)
    _draw_crown(canvas, rng, (x + lean, (fork * 0.8 + tall) / 2, z), wide / 2, (tall - fork * 0.8) / 2, shadow)


def _draw_crown(canvas: Canvas, rng: np.random.Generator, centre: Point, rx: float, ry: float, shadow: float) -> None:
    """Foliage: a handful of lobes, each a dark ball under clusters of leaves that are brighter towards the light."""
    green = pick(rng, GREENS)
    x, y, z = centre
    sun_x, sun_y, _ = canvas.light.sun
    lobes = [(0.0, 0.0, 0.62)]
    for i in range(7):
        angle, reach = 0.9 * i + 0.8 * float(rng.random()), 0.45 + 0.2 * float(rng.random())
        lobes.append((reach * math.cos(angle), reach * math.sin(angle), 0.3 + 0.14 * float(rng.random())))
    dim = canvas.light.on(0.0, 0.3, -0.3, 1.0)
    for dx, dy, size in lobes:
        canvas.ball((x + dx * rx, y + dy * ry, z), size * rx, size * ry, scaled(green, 0.62 + 0.2 * dy), LEAVES, dim)
    pixels = canvas.camera.pixels_per_metre(z) * 2 * rx
    count = int(min(420, max(16, pixels)))
    leaf = max(0.07, 0.85 / math.sqrt(count)) * rx
    angles, reaches, tints = rng.random(count) * 2 * math.pi, np.sqrt(rng.random(count)), rng.random(count)
    lights = [canvas.light.on(0.5 * sun_x, 0.35 + 0.6 * sun_y, -0.35, max(shadow * 0.7, 1 - k / 4)) for k in range(5)]
    for i in range(count):
        dx, dy, size = lobes[i % len(lobes)]
        tint, angle, reach = float(tints[i]), float(angles[i]), float(reaches[i])
        across, up = reach * math.cos(angle), reach * math.sin(angle)
        shade = 0.5 + 0.22 * up + 0.25 * dy + 0.3 * sun_x * (0.5 * across + 0.5 * dx) + 0.2 * (tint - 0.5)
        shade = min(1.0, max(0.0, shade))
        k = 0.62 + 0.6 * shade
        colour = (green[0] * k + 12 * tint * k, green[1] * k + 6 * tint * k, green[2] * k)
        spot = (x + (dx + across * size) * rx, y + (dy + up * size) * ry, z)
        radius = leaf * (0.55 + 0.7 * tint)
        canvas.ball(spot, radius, radius * 0.75, colour, LEAVES, lights[int(shade * 4.99)])


def _draw_branches(
    canvas: Canvas,
    rng: np.random.Generator,
    start: Point,
    angle: float,
    length: float,
    thick: float,
    levels: int,
    bark: Colour,
    light: Colour,
) -> None:
    for _ in range(2 if levels > 2 and rng.random() < 0.6 else 3):
        turn = angle + (rng.random() - 0.5) * 1.5
        reach = length * (0.65 + 0.5 * rng.random())
        end = (start[0] + reach * math.cos(turn), start[1] + reach * math.sin(turn), start[2])
        canvas.limb(start, end, thick * 0.7, bark, TREE, light)
        if levels > 1:
            _draw_branches(canvas, rng, end, turn * 0.9 + 0.157, length * 0.7, thick * 0.6, levels - 1, bark, light)


def draw_hedge(
    canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float, tall: float, shadow: float
) -> None:
    """A clipped hedge along the road from z0 to z1, `tall` metres high."""
    green = pick(rng, GREENS)
    side = 1 if x > 0 else -1
    canvas.face(
        [(x, 0, z0), (x, tall, z0), (x + side * 1.1, tall, z0), (x + side * 1.1, 0, z0)],
        scaled(green, 0.8), LEAVES, canvas.light.on(0, 0.1, -1, shadow),
    )  # fmt: skip
    light = canvas.light.on(-side, 0.2, 0, shadow)
    canvas.face([(x, 0, z0), (x, tall, z0), (x, tall, z1), (x, 0, z1)], scaled(green, 0.85), LEAVES, light)
    top = canvas.light.on(0, 1, 0, shadow)
    steps = max(2, int((z1 - z0) / 0.55))
    for i in range(steps, -1, -1):
        z = z0 + (z1 - z0) * i / steps
        if z > 1.2:
            radius = 0.3 + 0.15 * rng.random()
            canvas.ball((x + side * 0.3, tall - 0.12, z), radius, radius * 0.7, scaled(green, 0.95), LEAVES, top)
            tuft = scaled(green, uniform(rng, 0.75, 1.1))
            canvas.ball((x, tall * uniform(rng, 0.1, 1.0), z), 0.26, 0.2, tuft, LEAVES, light)


def draw_fence(
    canvas: Canvas, rng: np.random.Generator, x: float, z0: float, z1: float, style: str, shadow: float
) -> None:
    """A fence along the road at x from z0 to z1: "railing" or "boards"; the whole panel counts as fence."""
    side = 1 if x > 0 else -1
    light = canvas.light.on(-side, 0.1, 0, shadow)
    if style == "boards":
        tall = 1.75
        wood = (118, 92, 64)
        boards = max(1, int((z1 - z0) / 0.3))
        for i in range(boards):
            a, b = z0 + (z1 - z0) * i / boards, z0 + (z1 - z0) * (i + 1) / boards
            board = [(x, 0, a), (x, tall, a), (x, tall, b), (x, 0, b)]
            canvas.face(board, scaled(wood, 0.86 + 0.22 * rng.random()), FENCE, light)
        cap = [(x, tall, z0), (x, tall + 0.06, z0), (x, tall + 0.06, z1), (x, tall, z1)]
        canvas.face(cap, scaled(wood, 0.7), FENCE, light)
        return
    tall = 1.15
    paint = (128, 132, 134) if style == "railing" else (34, 38, 40)
    canvas.mark([(x, 0.05, z0), (x, tall, z0), (x, tall, z1), (x, 0.05, z1)], FENCE)
    pixels_per_bar = 0.13 * canvas.camera.pixels_per_metre(z0) * abs(x - canvas.camera.x) / max(z0, 1.0)
    bars = max(2, int((z1 - z0) / (0.13 * max(1.0, 4.0 / max(pixels_per_bar, 0.1)))))
    for i in range(bars, -1, -1):
        z = z0 + (z1 - z0) * i / bars
        canvas.limb((x, 0.1, z), (x, tall - 0.05, z), 0.022, paint, FENCE, light)
    for y in (0.14, tall - 0.04):
        canvas.face([(x, y, z0), (x, y + 0.05, z0), (x, y + 0.05, z1), (x, y, z1)], paint, FENCE, light)
    for z in (z1, z0):
        canvas.limb((x, 0, z), (x, tall + 0.03, z), 0.065, paint, FENCE, light)


def draw_lamp_post(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, tall: float, paint: Colour, shadow: float
) -> None:
    """A lamp post whose arm reaches over the road."""
    side = 1 if x > 0 else -1
    light = canvas.light.on(-0.6 * side, 0.1, -0.7, shadow)
    canvas.limb((x, 0, z), (x, 1.4, z), 0.2, paint, POLE, light)
    canvas.limb((x, 1.3, z), (x, tall, z), 0.12, paint, POLE, light)
    arm = [(x - side * 1.5 * t, tall + 0.35 * t * (2 - t), z) for t in (0, 0.25, 0.5, 1.0)]
    for a, b in pairwise(arm):
        canvas.limb(a, b, 0.085, paint, POLE, light)
    head = arm[-1]
    glow = (1.0, 1.0, 1.0) if canvas.light.kind == "dusk" else light
    canvas.limb(head, (head[0] - side * 0.6, head[1] + 0.02, z), 0.16, scaled(paint, 0.9), POLE, light)
    lens = (255, 214, 150) if canvas.light.kind == "dusk" else (210, 210, 200)
    x, y, _ = head
    canvas.limb((x - side * 0.1, y - 0.06, z), (x - side * 0.5, y - 0.05, z), 0.07, lens, POLE, glow)


def draw_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float, shadow: float) -> None:
    """One or two traffic signs on a post."""
    light = canvas.light.on(0.0, 0.1, -1.0, shadow)
    paint = pick(rng, STEELS)
    base = 2.1 + 0.4 * rng.random()
    kinds = ["limit", "limit", "blue", "no entry", "warning", "warning", "give way", "panel", "parking", "direction"]
    kind = pick(rng, kinds)
    if kind == "direction":
        _draw_direction_board(canvas, rng, x, z, paint, light)
        return
    canvas.limb((x, 0, z), (x, base + 0.75, z), 0.085, paint, POLE, light)
    _draw_plate(canvas, rng, kind, x, base + 0.36, z - 0.05, light)
    if rng.random() < 0.35:
        _plate(canvas, x, base - 0.26, z - 0.05, _box(0.3, 0.15), WHITE, light)
        for row in (-0.05, 0.05):
            _plate(canvas, x, base - 0.26 + row, z - 0.06, _box(0.22, 0.02), (90, 90, 92), light)


def _draw_plate(
    canvas: Canvas, rng: np.random.Generator, kind: str, x: float, y: float, z: float, light: Colour
) -> None:
    size = 0.34
    if kind in ("limit", "blue", "no entry"):
        _plate(canvas, x, y, z, _disc(size), {"limit": RED, "blue": BLUE, "no entry": RED}[kind], light)
        if kind == "limit":
            _plate(canvas, x, y, z, _disc(size * 0.76), WHITE, light)
            for offset, digit in ((-0.17, pick(rng, ["2", "3", "4"])), (0.03, "0")):
                strokes = [(x + offset + 0.13 * a, y - 0.13 + 0.13 * b, z) for a, b in DIGITS[digit]]
                for a, b in pairwise(strokes):
                    canvas.limb(a, b, 0.05, BLACK, SIGN, light)
        elif kind == "no entry":
            _plate(canvas, x, y, z, _box(size * 0.72, size * 0.18), WHITE, light)
        else:
            half = [(0.05, 0.2), (0.05, -0.06), (0.13, -0.06), (0.0, -0.22)]
            arrow = half + [(-a, b) for a, b in reversed(half)]
            flip = pick(rng, [-1, 1])
            _plate(canvas, x, y, z, [(a, b * flip) for a, b in arrow], WHITE, light)
    elif kind in ("warning", "give way"):
        flip = 1 if kind == "warning" else -1
        for scale, colour in ((1.0, RED), (0.68, WHITE)):
            corners = [(-0.42, -0.3), (0.0, 0.45), (0.42, -0.3)]
            _plate(canvas, x, y - 0.02, z, [(a * scale, b * scale * flip) for a, b in corners], colour, light)
        if kind == "warning":
            _plate(canvas, x, y, z, [(-0.04, -0.12), (-0.05, 0.12), (0.05, 0.12), (0.04, -0.12)], BLACK, light)
    else:
        colour = BLUE if kind == "parking" else pick(rng, [(228, 190, 44), (20, 92, 60), WHITE])
        _plate(canvas, x, y, z, _box(0.3, 0.38), scaled(colour, 0.8), light)
        _plate(canvas, x, y, z, _box(0.27, 0.35), colour, light)
        ink = BLACK if colour[0] > 200 else WHITE
        if kind == "parking":
            _plate(canvas, x - 0.07, y, z, _box(0.035, 0.2), ink, light)
            _plate(canvas, x + 0.01, y + 0.1, z, _disc(0.11), ink, light)
            _plate(canvas, x + 0.01, y + 0.1, z, _disc(0.055), colour, light)
        else:
            for row in range(4):
                _plate(canvas, x - 0.04, y + 0.2 - 0.13 * row, z, _box(0.1 + 0.08 * rng.random(), 0.03), ink, light)


def _draw_direction_board(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, paint: Colour, light: Colour
) -> None:
    wide, tall, low = 1.4 + rng.random(), 0.9 + 0.6 * rng.random(), 1.6 + 0.6 * rng.random()
    for offset in (-0.3 * wide, 0.3 * wide):
        canvas.limb((x + offset, 0, z), (x + offset, low + tall, z), 0.1, paint, POLE, light)
    colour = pick(rng, [(22, 96, 62), (30, 70, 150), (232, 232, 226)])
    ink = BLACK if colour[0] > 200 else WHITE
    y = low + tall / 2
    _plate(canvas, x, y, z - 0.06, _box(wide / 2, tall / 2), ink, light)
    _plate(canvas, x, y, z - 0.06, _box(wide / 2 - 0.05, tall / 2 - 0.05), colour, light)
    rows = 3
    for row in range(rows):
        height = low + tall * (row + 0.7) / (rows + 0.4)
        length = wide * (0.2 + 0.25 * rng.random())
        start = x - wide * 0.38
        for word in range(int(length / 0.16)):
            letter = _box(0.055, uniform(rng, 0.07, 0.1))
            _plate(canvas, start + word * 0.16 + 0.05, height, z - 0.07, letter, ink, light)
    shaft = x + wide * 0.3
    _plate(canvas, shaft, y, z - 0.07, _box(0.05, tall * 0.28), ink, light)
    tip = [(-0.15, tall * 0.18), (0.0, tall * 0.36), (0.15, tall * 0.18)]
    _plate(canvas, shaft, y, z - 0.07, tip, ink, light)


def draw_traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, shadow: float) -> None:
    """A traffic light; as in CamVid its head counts as sign and its post as pole."""
    light = canvas.light.on(0.0, 0.1, -1.0, shadow)
    canvas.limb((x, 0, z), (x, 3.3, z), 0.11, (70, 72, 74), POLE, light)
    _plate(canvas, x, 2.85, z - 0.08, _box(0.27, 0.62), WHITE, scaled(light, 0.8))
    _plate(canvas, x, 2.85, z - 0.08, _box(0.24, 0.58), (24, 25, 27), light)
    burning = int(rng.random() * 3)
    lamps: list[Colour] = [(255, 60, 44), (255, 180, 50), (70, 250, 150)]
    for i, colour in enumerate(lamps):
        glow = (1.0, 1.0, 1.0) if i == burning else (0.2, 0.2, 0.2)
        _plate(canvas, x, 3.23 - 0.37 * i, z - 0.1, _disc(0.13), colour, glow)


def draw_clutter(canvas: Canvas, rng: np.random.Generator, x: float, z: float, shadow: float) -> None:
    """A pillar box, a litter bin or a wheelie bin: none of the classes, so ignored."""
    light = canvas.light.on(-0.3, 0.2, -0.9, shadow)
    kind = pick(rng, ["pillar box", "litter bin", "wheelie bin", "wheelie bin"])
    if kind == "pillar box":
        parts: list[tuple[float, float, float, Colour]] = [
            (0.75, 0.22, 0.75, (172, 24, 28)), (0.12, 0.24, 0.12, BLACK), (1.52, 0.26, 0.05, (150, 20, 24)),
            (1.3, 0.13, 0.03, BLACK), (1.02, 0.1, 0.14, WHITE),
        ]  # fmt: skip
        canvas.ball((x, 1.56, z), 0.24, 0.12, (184, 30, 32), CLUTTER, light)
        for y, half_width, half_height, colour in parts:
            _plate(canvas, x, y, z, _box(half_width, half_height), colour, light, CLUTTER)
        _plate(canvas, x + 0.14, 0.78, z, _box(0.07, 0.68), (140, 18, 22), light, CLUTTER)
        return
    colour = (34, 58, 44) if kind == "wheelie bin" else (30, 32, 36)
    _plate(canvas, x, 0.5, z - 0.3, [(-0.24, -0.5), (-0.29, 0.5), (0.29, 0.5), (0.24, -0.5)], colour, light, CLUTTER)
    _plate(canvas, x, 1.02, z - 0.3, _box(0.31, 0.05), scaled(colour, 1.35), light, CLUTTER)


def _plate(
    canvas: Canvas, x: float, y: float, z: float, outline: Outline, colour: Colour, light: Colour, code: int = SIGN
) -> None:
    canvas.face([(x + dx, y + dy, z) for dx, dy in outline], colour, code, light)


def _box(half_width: float, half_height: float) -> Outline:
    x, y = half_width, half_height
    return [(-x, -y), (-x, y), (x, y), (x, -y)]


def _disc(radius: float) -> Outline:
    return [(radius * math.cos(0.3927 * i), radius * math.sin(0.3927 * i)) for i in range(16)]
