"""Vehicles, pedestrians and cyclists: small 3-D models in metres, drawn on a street canvas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.streets.canvas import BICYCLIST, CAR, PEDESTRIAN, Canvas, Colour, Point, pick, scaled

Outline = list[tuple[float, float]]

TYRE: Colour = (22, 22, 24)
FULL: Colour = (1.0, 1.0, 1.0)
BUS_PAINTS: list[Colour] = [(178, 30, 34), (206, 202, 190), (30, 84, 140), (34, 110, 80)]
PAINTS: list[Colour] = [
    (182, 184, 188), (150, 154, 160), (205, 206, 206), (40, 42, 46), (28, 30, 34), (96, 100, 108), (38, 58, 110),
    (70, 104, 150), (150, 28, 30), (176, 44, 36), (34, 74, 56), (104, 30, 40), (196, 178, 136), (224, 224, 220),
]  # fmt: skip
CLOTHES: list[Colour] = [
    (34, 36, 44), (52, 56, 70), (28, 30, 32), (78, 70, 62), (110, 34, 40), (44, 66, 110), (140, 134, 124), (66, 82, 62),
    (176, 170, 160), (150, 96, 54), (96, 60, 96), (186, 186, 192), (30, 60, 74),
]  # fmt: skip
BRIGHT_CLOTHES: list[Colour] = [(206, 214, 40), (232, 110, 30), (200, 40, 48), (60, 120, 200), *CLOTHES[:5]]
TROUSERS: list[Colour] = [(38, 42, 58), (28, 28, 32), (60, 70, 96), (84, 80, 74), (120, 110, 94)]
SKINS: list[Colour] = [(214, 168, 142), (198, 148, 120), (150, 104, 78), (98, 66, 50), (226, 184, 160)]
HAIRS: list[Colour] = [(46, 34, 26), (24, 20, 18), (96, 70, 44), (150, 120, 78), (120, 116, 112), (84, 44, 28)]


@dataclass(frozen=True)
class Vehicle:
    """A side profile (along, up) from rear bottom over the roof to front bottom, extruded across the width."""

    profile: Outline
    glass: tuple[int, ...]
    half_width: float
    belt: float
    wheels: tuple[float, float]
    radius: float
    windows: list[Outline]


def _bus_windows() -> list[Outline]:
    rows = ((1.25, 2.05), (2.75, 3.5))
    return [
        [(a, low), (a, high), (a + 1.35, high), (a + 1.35, low)]
        for low, high in rows
        for a in (-4.6, -3.1, -1.6, -0.1, 1.4, 2.9)
    ]


VEHICLES = {
    "hatchback": Vehicle(
        profile=[(-1.88, 0.28), (-1.95, 0.62), (-1.86, 0.95), (-1.5, 1.38), (-0.9, 1.46), (0.1, 1.44), (1.0, 0.97),
                 (1.75, 0.82), (1.95, 0.6), (1.9, 0.28)],
        glass=(2, 5), half_width=0.85, belt=0.96, wheels=(-1.22, 1.25), radius=0.31,
        windows=[[(-1.6, 1.0), (-1.36, 1.33), (-0.72, 1.36), (-0.68, 1.0)],
                 [(-0.58, 1.0), (-0.62, 1.36), (0.05, 1.35), (0.72, 1.0)]],
    ),
    "saloon": Vehicle(
        profile=[(-2.2, 0.3), (-2.28, 0.6), (-2.2, 0.92), (-1.55, 0.98), (-0.9, 1.38), (-0.3, 1.43), (0.2, 1.4),
                 (1.05, 0.95), (2.05, 0.78), (2.22, 0.56), (2.15, 0.3)],
        glass=(3, 6), half_width=0.88, belt=0.95, wheels=(-1.35, 1.4), radius=0.32,
        windows=[[(-1.3, 1.0), (-0.82, 1.32), (-0.34, 1.35), (-0.32, 1.0)],
                 [(-0.22, 1.0), (-0.24, 1.35), (0.16, 1.32), (0.78, 0.99)]],
    ),
    "estate": Vehicle(
        profile=[(-2.25, 0.34), (-2.32, 0.7), (-2.28, 1.05), (-2.0, 1.58), (-1.4, 1.68), (0.15, 1.66), (0.95, 1.1),
                 (1.95, 0.98), (2.2, 0.7), (2.12, 0.34)],
        glass=(2, 5), half_width=0.92, belt=1.08, wheels=(-1.35, 1.38), radius=0.36,
        windows=[[(-2.05, 1.12), (-1.85, 1.5), (-1.3, 1.55), (-1.28, 1.12)],
                 [(-1.2, 1.12), (-1.22, 1.56), (-0.5, 1.56), (-0.48, 1.12)],
                 [(-0.4, 1.12), (-0.42, 1.56), (0.1, 1.55), (0.68, 1.12)]],
    ),
    "van": Vehicle(
        profile=[(-2.5, 0.38), (-2.56, 0.7), (-2.55, 1.15), (-2.45, 2.1), (-2.2, 2.25), (0.9, 2.22), (1.7, 1.3),
                 (2.35, 1.08), (2.5, 0.7), (2.45, 0.38)],
        glass=(5,), half_width=0.98, belt=1.25, wheels=(-1.6, 1.6), radius=0.35,
        windows=[[(0.35, 1.32), (0.35, 1.95), (0.92, 1.95), (1.42, 1.32)]],
    ),
    "bus": Vehicle(
        profile=[(-5.0, 0.35), (-5.05, 1.2), (-5.05, 2.1), (-5.0, 2.7), (-4.95, 3.6), (-4.7, 4.15), (4.8, 4.15),
                 (5.0, 3.6), (5.05, 2.75), (5.1, 2.2), (5.15, 1.1), (5.1, 0.35)],
        glass=(1, 3, 7, 9), half_width=1.25, belt=1.2, wheels=(-2.8, 3.2), radius=0.48, windows=_bus_windows(),
    ),
}  # fmt: skip


class PlacedVehicle:
    """A vehicle on its spot: from its own axes (along, up, across) to the street's, and its light and colours."""

    def __init__(
        self, canvas: Canvas, rng: np.random.Generator, kind: str, x: float, z: float, heading: float, shadow: float
    ) -> None:
        self.canvas, self.kind, self.model, self.shadow = canvas, kind, VEHICLES[kind], shadow
        self.x, self.z, self.sin, self.cos = x, z, math.sin(heading), math.cos(heading)
        self.paint = pick(rng, PAINTS)
        if kind == "bus":
            self.paint = pick(rng, BUS_PAINTS)
        elif kind == "van" and rng.random() < 0.65:
            self.paint = (226, 226, 222)
        r, g, b = canvas.light.horizon
        self.pane: Colour = (21 + 0.16 * r, 24 + 0.16 * g, 29 + 0.16 * b)
        camera = canvas.camera
        eye_x = camera.x - x - camera.curve * z * z
        self.eye_along, self.eye_across = eye_x * self.sin - z * self.cos, eye_x * self.cos + z * self.sin
        self.rear, self.front = self.model.profile[0][0], self.model.profile[-1][0]

    def half_width(self, up: float) -> float:
        lean = 0.05 if self.kind in ("bus", "van") else 0.34
        return self.model.half_width - max(0.0, up - self.model.belt) * lean

    def lit(self, along: float, up: float, across: float) -> Colour:
        """Light on a surface whose normal is given in the vehicle's axes."""
        nx, nz = across * self.cos + along * self.sin, along * self.cos - across * self.sin
        return self.canvas.light.on(nx, up, nz, self.shadow)

    def face(self, corners: Sequence[Point], colour: Colour, light: Colour) -> None:
        """Fill a polygon given as (along, up, across)."""
        points = [
            (self.x + across * self.cos + along * self.sin, up, self.z + along * self.cos - across * self.sin)
            for along, up, across in corners
        ]
        self.canvas.face(points, colour, CAR, light)


def draw_vehicle(
    canvas: Canvas, rng: np.random.Generator, kind: str, x: float, z: float, heading: float, shadow: float
) -> None:
    """Draw a vehicle centred at (x, z); `heading` 0 drives away from the camera, pi towards it (radians)."""
    vehicle = PlacedVehicle(canvas, rng, kind, x, z, heading, shadow)
    _draw_underside(vehicle)
    _draw_panels(vehicle)
    for side in (-1, 1):
        if side * vehicle.eye_across > vehicle.model.half_width:
            _draw_flank(vehicle, side)
    facing = 1 if vehicle.eye_along > vehicle.front else -1 if vehicle.eye_along < vehicle.rear else 0
    if facing:
        _draw_end(vehicle, facing, glowing=canvas.light.kind == "dusk" or bool(rng.random() < 0.3 and facing < 0))


def _draw_underside(vehicle: PlacedVehicle) -> None:
    model, unlit = vehicle.model, vehicle.lit(0, -0.6, 0)
    w = model.half_width * 0.95
    ends = ((vehicle.rear, -w), (vehicle.rear, w), (vehicle.front, w), (vehicle.front, -w))
    vehicle.face([(along, 0.3, across) for along, across in ends], (18, 18, 20), unlit)
    for wheel in sorted(model.wheels, key=lambda along: -abs(along - vehicle.eye_along)):
        for side in (-1, 1):
            outer, inner = side * model.half_width * 0.97, side * (model.half_width - 0.22)
            for end in (-1, 1):
                a = wheel + end * model.radius * 0.45
                if end * (vehicle.eye_along - a) > 0:
                    tread = [(a, 0.03, outer), (a, 0.5, outer), (a, 0.5, inner), (a, 0.03, inner)]
                    vehicle.face(tread, TYRE, unlit)


def _draw_panels(vehicle: PlacedVehicle) -> None:
    """The surfaces across the vehicle that face the camera: tail, windows, roof, bonnet."""
    model, eye_up = vehicle.model, vehicle.canvas.camera.eye_height
    panels = []
    for i, ((a0, y0), (a1, y1)) in enumerate(pairwise(model.profile)):
        length = math.sqrt((a1 - a0) ** 2 + (y1 - y0) ** 2)
        along, up = -(y1 - y0) / length, (a1 - a0) / length
        if along * (vehicle.eye_along - a0) + up * (eye_up - y0) > 0:
            panels.append((abs((a0 + a1) / 2 - vehicle.eye_along), i, vehicle.lit(along, up, 0.0)))
    for _, i, light in sorted(panels, key=lambda panel: -panel[0]):
        (a0, y0), (a1, y1) = model.profile[i], model.profile[i + 1]
        w0, w1 = vehicle.half_width(y0), vehicle.half_width(y1)
        vehicle.face([(a0, y0, -w0), (a1, y1, -w1), (a1, y1, w1), (a0, y0, w0)], vehicle.paint, light)
        if i in model.glass:
            inset = [(0.06, 0.9), (0.94, 0.9), (0.94, -0.9), (0.06, -0.9)]
            pane = [(a0 + t * (a1 - a0), y0 + t * (y1 - y0), k * (w0 + t * (w1 - w0))) for t, k in inset]
            vehicle.face(pane, vehicle.pane, FULL)


def _draw_flank(vehicle: PlacedVehicle, side: int) -> None:
    model, paint, rear, front = vehicle.model, vehicle.paint, vehicle.rear, vehicle.front
    light = vehicle.lit(0.0, 0.12, float(side))

    def panel(outline: Outline, colour: Colour, shade: Colour) -> None:
        vehicle.face([(a, y, side * vehicle.half_width(y)) for a, y in outline], colour, shade)

    panel(model.profile, paint, light)
    panel([(rear, 0.28), (rear - 0.04, 0.42), (front + 0.04, 0.42), (front, 0.28)], scaled(paint, 0.6), light)
    heights = (0.8, 0.9, 0.84, 0.74)
    crease = zip((rear - 0.02, rear + 0.05, front - 0.35, front), heights, strict=True)
    panel([(a, model.belt * y) for a, y in crease], scaled(paint, 1.18), light)
    for window in model.windows:
        panel(window, vehicle.pane, FULL)
    if vehicle.canvas.camera.pixels_per_metre(vehicle.z) > 25 and vehicle.kind != "bus":
        for a in (-0.6, 0.55):
            seam = [(a, 0.45), (a, model.belt), (a + 0.02, model.belt), (a + 0.02, 0.45)]
            panel(seam, scaled(paint, 0.55), light)
    for wheel in model.wheels:
        for radius, colour in ((1.22, (16, 16, 18)), (1.0, TYRE), (0.64, (140, 142, 146)), (0.2, (60, 60, 64))):
            ring = _circle(wheel, model.radius, model.radius * radius, 14)
            vehicle.face([(a, max(y, 0.0), side * (model.half_width + 0.01)) for a, y in ring], colour, light)


def _draw_end(vehicle: PlacedVehicle, facing: int, glowing: bool) -> None:
    """Bumper, lamps and number plate of the front (facing 1) or the rear (facing -1)."""
    model, light = vehicle.model, vehicle.lit(float(facing), 0.0, 0.0)
    w = model.half_width
    end = (max if facing > 0 else min)(along for along, _ in model.profile) + 0.02 * facing
    high = 0.85 if vehicle.kind == "bus" else model.belt * (0.6 if facing > 0 else 0.72) + 0.12
    lamp: Colour = (236, 236, 222) if facing > 0 else (200, 24, 24) if glowing else (130, 18, 20)

    def panel(left: float, right: float, low: float, top: float, colour: Colour, glow: Colour) -> None:
        vehicle.face([(end, low, left), (end, top, left), (end, top, right), (end, low, right)], colour, glow)

    panel(-w * 0.96, w * 0.96, 0.3, 0.5, (44, 45, 48), light)
    for side in (-1, 1):
        outer, inner = side * w * 0.97, side * w * (0.6 if facing > 0 else 0.72)
        panel(outer, inner, high - 0.09, high + (0.06 if facing > 0 else 0.14), lamp, FULL if glowing else light)
    panel(-0.27, 0.27, 0.44, 0.56, (226, 190, 40) if facing < 0 else (226, 226, 222), light)
    if facing > 0:
        panel(-w * 0.45, w * 0.45, high - 0.1, high - 0.01, (30, 31, 34), light)


def vehicle_footprint(kind: str, x: float, z: float, heading: float) -> tuple[Outline, float]:
    """The four ground corners (x, z) of a vehicle and its height in metres."""
    model = VEHICLES[kind]
    sin, cos = math.sin(heading), math.cos(heading)
    rear, front = model.profile[0][0], model.profile[-1][0]
    w = model.half_width
    ends = ((rear, -w), (rear, w), (front, w), (front, -w))
    corners = [(x + across * cos + along * sin, z + along * cos - across * sin) for along, across in ends]
    return corners, max(y for _, y in model.profile)


def draw_person(canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float, shadow: float) -> None:
    """A pedestrian on foot at (x, z), walking along `heading` (radians, 0 is away from the camera)."""
    tall = 1.55 + 0.35 * rng.random()
    stride = (rng.random() - 0.5) * 0.55
    coat, trousers, skin, hair = (pick(rng, palette) for palette in (CLOTHES, TROUSERS, SKINS, HAIRS))
    long_coat, bag, skirt = rng.random() < 0.35, rng.random() < 0.3, rng.random() < 0.2
    sin, cos = math.sin(heading), math.cos(heading)
    light = canvas.light.on(-0.3, 0.35, -0.9, shadow)
    dim = scaled(light, 0.8)

    def at(along: float, up: float, across: float) -> Point:
        return x + (across * cos + along * sin) * tall, up * tall, z + (along * cos - across * sin) * tall

    def bar(a: Point, b: Point, thick: float, colour: Colour, shade: Colour) -> None:
        canvas.limb(a, b, thick * tall, colour, PEDESTRIAN, shade)

    far = 1 if (at(0, 0, 1)[2] > at(0, 0, -1)[2]) else -1
    for side, shade in ((far, dim), (-far, light)):
        swing = stride * (1 if side > 0 else -1)
        knee, foot = at(swing * 0.55, 0.28, side * 0.05), at(swing, 0.035, side * 0.05)
        bar(at(0, 0.52, side * 0.045), knee, 0.085, trousers, shade)
        bar(knee, foot, 0.066, skin if skirt else trousers, shade)
        bar(foot, at(swing + 0.09, 0.02, side * 0.05), 0.045, (24, 22, 22), shade)
    swing = stride * 0.6
    bar(at(0, 0.79, far * 0.11), at(swing * far * -0.5, 0.6, far * 0.15), 0.06, coat, dim)
    for side in (-1, 1):
        hem = 0.36 if long_coat or skirt else 0.5
        bar(at(0, 0.78, side * 0.065), at(0, hem, side * 0.05), 0.125, coat, light if side == -far else dim)
    bar(at(0, 0.84, 0), at(0, 0.9, 0), 0.06, skin, dim)
    elbow, hand = at(swing * far * 0.5, 0.62, -far * 0.15), at(swing * far + 0.05, 0.49, -far * 0.14)
    bar(at(0, 0.79, -far * 0.115), elbow, 0.062, coat, scaled(light, 0.92))
    bar(elbow, hand, 0.05, coat, scaled(light, 0.92))
    canvas.ball(hand, 0.028 * tall, 0.03 * tall, skin, PEDESTRIAN, light)
    if bag:
        bar(at(0, 0.52, -far * 0.18), at(0.02, 0.44, -far * 0.18), 0.11, pick(rng, CLOTHES), light)
    _draw_head(canvas, at(0, 0.945, 0), tall, skin, hair, math.cos(heading) > 0.3, PEDESTRIAN, light)


def draw_cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float, shadow: float) -> None:
    """A cyclist riding along `heading`; rider and bicycle together are the class bicyclist."""
    coat, trousers, skin, hair = (pick(rng, palette) for palette in (BRIGHT_CLOTHES, TROUSERS, SKINS, HAIRS))
    frame = pick(rng, PAINTS)
    helmet = rng.random() < 0.5
    pedal = rng.random() * 0.34 - 0.17
    sin, cos = math.sin(heading), math.cos(heading)
    light = canvas.light.on(-0.3, 0.35, -0.9, shadow)
    dim = scaled(light, 0.78)

    def at(along: float, up: float, across: float = 0.0) -> Point:
        return x + across * cos + along * sin, up, z + along * cos - across * sin

    def bar(a: Point, b: Point, thick: float, colour: Colour, shade: Colour = light) -> None:
        canvas.limb(a, b, thick, colour, BICYCLIST, shade)

    for wheel in (-0.53, 0.53) if cos < 0 else (0.53, -0.53):
        rim = [at(a, y) for a, y in _circle(wheel, 0.34, 0.34, 18)]
        canvas.mark(rim, BICYCLIST)
        for a, b in zip(rim, rim[1:] + rim[:1], strict=True):
            bar(a, b, 0.045, TYRE)
        bar(at(wheel, 0.02), at(wheel, 0.66), 0.012, (120, 120, 124))
        bar(at(wheel - 0.32, 0.34), at(wheel + 0.32, 0.34), 0.012, (120, 120, 124))
    rear_hub, crank, seat, head_tube, front_hub = (
        at(a, y) for a, y in ((-0.53, 0.34), (-0.05, 0.3), (-0.2, 0.88), (0.38, 0.88), (0.53, 0.34))
    )
    tubes = [crank, seat, head_tube, crank, rear_hub, seat, head_tube, front_hub]
    for a, b in pairwise(tubes):
        bar(a, b, 0.04, frame)
    bar(at(0.36, 1.02, -0.26), at(0.36, 1.02, 0.26), 0.035, (40, 40, 42))
    far = 1 if at(0, 0, 1)[2] > at(0, 0, -1)[2] else -1
    hip, shoulder = at(-0.18, 0.96), at(0.16, 1.42)
    for side, shade in ((far, dim), (-far, light)):
        foot = at(-0.05 + pedal * side * far, 0.28 + pedal * side, side * 0.11)
        knee = at(0.2, 0.66 + pedal * side * 0.6, side * 0.12)
        bar(at(-0.18, 0.95, side * 0.09), knee, 0.15, trousers, shade)
        bar(knee, foot, 0.11, trousers, shade)
        bar(foot, at(0.05 + pedal * side * far, 0.26 + pedal * side, side * 0.11), 0.08, (26, 24, 24), shade)
    bar(at(0.16, 1.36, far * 0.18), at(0.36, 1.03, far * 0.25), 0.09, coat, dim)
    for side in (far, -far):
        bar(at(-0.17, 0.98, side * 0.07), at(0.15, 1.36, side * 0.11), 0.23, coat, light if side != far else dim)
    bar(hip, shoulder, 0.16, coat)
    if rng.random() < 0.35:
        bar(at(-0.2, 1.12), at(-0.02, 1.34), 0.26, pick(rng, CLOTHES))
    bar(at(0.16, 1.36, -far * 0.2), at(0.3, 1.14, -far * 0.26), 0.1, coat, scaled(light, 0.92))
    bar(at(0.3, 1.14, -far * 0.26), at(0.36, 1.04, -far * 0.24), 0.08, coat, scaled(light, 0.92))
    _draw_head(canvas, at(0.26, 1.6), 1.72, skin, pick(rng, PAINTS) if helmet else hair, cos > 0.3, BICYCLIST, light)


def _draw_head(
    canvas: Canvas, centre: Point, tall: float, skin: Colour, hair: Colour, from_behind: bool, code: int, light: Colour
) -> None:
    x, y, z = centre
    canvas.ball(centre, 0.052 * tall, 0.068 * tall, skin, code, light)
    canvas.ball((x, y + 0.026 * tall, z), 0.056 * tall, 0.05 * tall, hair, code, light)
    if from_behind:
        canvas.ball((x, y + 0.008 * tall, z), 0.055 * tall, 0.062 * tall, hair, code, light)
    else:
        canvas.ball((x, y - 0.014 * tall, z), 0.045 * tall, 0.05 * tall, skin, code, light)


def _circle(along: float, up: float, radius: float, corners: int) -> Outline:
    angles = [2 * math.pi * i / corners for i in range(corners)]
    return [(along + radius * math.cos(t), up + radius * math.sin(t)) for t in angles]
