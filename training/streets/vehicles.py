"""Cars, vans and buses: small solids in metres, of flat panels."""

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from training.streets.camera import Colour, Pixel, Point, placed, scaled
from training.streets.canvas import CAR, Canvas

Outline = list[Pixel]
# A polygon, the direction it faces, both as (along, up, across), and its colour.
Panel = tuple[list[Point], Point, Colour]

GLASS: Colour = (50, 56, 64)
TYRE: Colour = (22, 22, 24)
RIM: Colour = (140, 142, 146)
BUS_PAINTS: list[Colour] = [(178, 30, 34), (206, 202, 190), (30, 84, 140), (34, 110, 80)]
PAINTS: list[Colour] = [
    (182, 184, 188), (150, 154, 160), (205, 206, 206), (40, 42, 46), (28, 30, 34), (96, 100, 108), (38, 58, 110),
    (70, 104, 150), (150, 28, 30), (176, 44, 36), (34, 74, 56), (104, 30, 40), (196, 178, 136), (224, 224, 220),
]  # fmt: skip


@dataclass(frozen=True)
class Vehicle:
    """A side profile (along, up) from rear bottom over the roof to front bottom, extruded across the width."""

    profile: Outline
    glass: tuple[int, ...]
    half_width: float
    belt: float
    lean: float
    wheels: tuple[float, float]
    radius: float
    windows: list[Outline]

    def half_width_at(self, up: float) -> float:
        return self.half_width - max(0.0, up - self.belt) * self.lean


VEHICLES = {
    "hatchback": Vehicle(
        profile=[(-1.88, 0.28), (-1.95, 0.62), (-1.86, 0.95), (-1.5, 1.38), (-0.9, 1.46), (0.1, 1.44), (1.0, 0.97),
                 (1.75, 0.82), (1.95, 0.6), (1.9, 0.28)],
        glass=(2, 5), half_width=0.85, belt=0.96, lean=0.34, wheels=(-1.22, 1.25), radius=0.31,
        windows=[[(-1.6, 1.0), (-1.36, 1.33), (-0.72, 1.36), (-0.68, 1.0)],
                 [(-0.58, 1.0), (-0.62, 1.36), (0.05, 1.35), (0.72, 1.0)]],
    ),
    "estate": Vehicle(
        profile=[(-2.25, 0.34), (-2.32, 0.7), (-2.28, 1.05), (-2.0, 1.58), (-1.4, 1.68), (0.15, 1.66), (0.95, 1.1),
                 (1.95, 0.98), (2.2, 0.7), (2.12, 0.34)],
        glass=(2, 5), half_width=0.92, belt=1.08, lean=0.34, wheels=(-1.35, 1.38), radius=0.36,
        windows=[[(-2.05, 1.12), (-1.85, 1.5), (-1.3, 1.55), (-1.28, 1.12)],
                 [(-1.2, 1.12), (-1.22, 1.56), (-0.5, 1.56), (-0.48, 1.12)],
                 [(-0.4, 1.12), (-0.42, 1.56), (0.1, 1.55), (0.68, 1.12)]],
    ),
    "van": Vehicle(
        profile=[(-2.5, 0.38), (-2.56, 0.7), (-2.55, 1.15), (-2.45, 2.1), (-2.2, 2.25), (0.9, 2.22), (1.7, 1.3),
                 (2.35, 1.08), (2.5, 0.7), (2.45, 0.38)],
        glass=(5,), half_width=0.98, belt=1.25, lean=0.05, wheels=(-1.6, 1.6), radius=0.35,
        windows=[[(0.35, 1.32), (0.35, 1.95), (0.92, 1.95), (1.42, 1.32)]],
    ),
    "bus": Vehicle(
        profile=[(-5.0, 0.35), (-5.05, 1.2), (-5.05, 2.1), (-5.0, 2.7), (-4.95, 3.6), (-4.7, 4.15), (4.8, 4.15),
                 (5.0, 3.6), (5.05, 2.75), (5.1, 2.2), (5.15, 1.1), (5.1, 0.35)],
        glass=(1, 3, 7, 9), half_width=1.25, belt=1.2, lean=0.05, wheels=(-2.8, 3.2), radius=0.48,
        windows=[[(a, y), (a, y + 0.8), (a + 1.35, y + 0.8), (a + 1.35, y)]
                 for y in (1.25, 2.72) for a in (-4.6, -3.1, -1.6, -0.1, 1.4, 2.9)],
    ),
}  # fmt: skip


def vehicle_footprint(kind: str, x: float, z: float, heading: float) -> tuple[Outline, float]:
    """The four ground corners (x, z) of a vehicle and its height in metres."""
    model = VEHICLES[kind]
    w, rear, front = model.half_width, model.profile[0][0], model.profile[-1][0]
    corners = placed([(rear, 0, -w), (rear, 0, w), (front, 0, w), (front, 0, -w)], x, z, heading)
    return [(corner_x, corner_z) for corner_x, _, corner_z in corners], max(up for _, up in model.profile)


def draw_vehicle(canvas: Canvas, rng: Random, kind: str, x: float, z: float, heading: float) -> None:
    """Draw a vehicle centred at (x, z); `heading` 0 drives away from the camera, pi towards it (radians)."""
    model, camera = VEHICLES[kind], canvas.camera
    paint = rng.choice(BUS_PAINTS if kind == "bus" else PAINTS)
    if kind == "van" and rng.random() < 0.65:
        paint = (226, 226, 222)
    sin, cos = math.sin(heading), math.cos(heading)
    eye_x = camera.x - x - camera.curve * z * z
    eye = (eye_x * sin - z * cos, camera.eye_height, eye_x * cos + z * sin)
    braking = canvas.light.kind == "dusk" or rng.random() < 0.3
    panels = [*_wheel_panels(model), *_panels_across(model, paint)]
    panels.sort(key=lambda panel: -abs(sum(corner[0] for corner in panel[0]) / 4 - eye[0]))
    for side in (-1, 1):
        panels += [*_flank_panels(model, paint, side), *_end_panels(model, side, braking)]
    for corners, normal, colour in panels:
        if sum(n * (e - c) for n, e, c in zip(normal, eye, corners[0], strict=True)) > 0:
            canvas.face(placed(corners, x, z, heading), colour, CAR, placed([normal], 0, 0, heading)[0])


def _wheel_panels(model: Vehicle) -> list[Panel]:
    """The treads of the tyres, as one sees them from ahead and from behind."""
    panels: list[Panel] = []
    for wheel in model.wheels:
        for side in (-1, 1):
            outer, inner = side * model.half_width * 0.97, side * (model.half_width - 0.22)
            for end in (-1, 1):
                a = wheel + end * model.radius * 0.45
                corners = [(a, 0.03, outer), (a, 0.5, outer), (a, 0.5, inner), (a, 0.03, inner)]
                panels.append((corners, (end, 0, 0), TYRE))
    return panels


def _panels_across(model: Vehicle, paint: Colour) -> list[Panel]:
    """Tail, rear window, roof, windscreen and bonnet."""
    panels: list[Panel] = []
    for i, ((a0, y0), (a1, y1)) in enumerate(pairwise(model.profile)):
        length = math.hypot(a1 - a0, y1 - y0)
        normal = (-(y1 - y0) / length, (a1 - a0) / length, 0.0)
        layers = [(0.0, 1.0, paint)] + ([(0.06, 0.9, GLASS)] if i in model.glass else [])
        for inset, share, colour in layers:
            corners = []
            for t, side in ((inset, -1), (1 - inset, -1), (1 - inset, 1), (inset, 1)):
                up = y0 + t * (y1 - y0)
                corners.append((a0 + t * (a1 - a0), up, side * share * model.half_width_at(up)))
            panels.append((corners, normal, colour))
    return panels


def _flank_panels(model: Vehicle, paint: Colour, side: int) -> list[Panel]:
    rear, front = model.profile[0][0], model.profile[-1][0]
    sill = [(rear, 0.28), (rear - 0.04, 0.42), (front + 0.04, 0.42), (front, 0.28)]
    crease = [(rear, 0.8), (rear + 0.05, 0.9), (front - 0.35, 0.84), (front, 0.74)]
    layers = [(model.profile, paint), (sill, scaled(paint, 0.6))]
    layers.append(([(a, up * model.belt) for a, up in crease], scaled(paint, 1.18)))
    layers += [(window, GLASS) for window in model.windows]
    for wheel in model.wheels:
        for radius, colour in ((1.2 * model.radius, (16, 16, 18)), (model.radius, TYRE), (0.64 * model.radius, RIM)):
            angles = [math.pi * i / 7 for i in range(14)]
            ring = [(wheel + radius * math.cos(t), model.radius + radius * math.sin(t)) for t in angles]
            layers.append(([(a, max(up, 0.0)) for a, up in ring], colour))
    return [
        ([(a, up, side * model.half_width_at(up)) for a, up in outline], (0.0, 0.12, side), colour)
        for outline, colour in layers
    ]


def _end_panels(model: Vehicle, facing: int, braking: bool) -> list[Panel]:
    """Bumper, lamps and number plate of the front (facing 1) or the rear (facing -1)."""
    w = model.half_width
    end = facing * (max(facing * along for along, _ in model.profile) + 0.02)
    high = min(0.85, model.belt * (0.6 if facing > 0 else 0.72) + 0.12)
    if facing > 0:
        lamp, plate, inner = (236, 236, 222), (226, 226, 222), 0.6
    else:
        lamp, plate, inner = (250, 30, 30) if braking else (130, 18, 20), (226, 190, 40), 0.72
    rectangles: list[tuple[float, float, float, float, Colour]] = [
        (-w * 0.96, w * 0.96, 0.3, 0.5, (44, 45, 48)),
        (-w * 0.97, -w * inner, high - 0.09, high + 0.1, lamp),
        (w * inner, w * 0.97, high - 0.09, high + 0.1, lamp),
        (-w * 0.45, w * 0.45, high - 0.1, high - 0.01, (30, 31, 34)),
        (-0.27, 0.27, 0.44, 0.56, plate),
    ]
    return [
        ([(end, low, left), (end, top, left), (end, top, right), (end, low, right)], (facing, 0, 0), colour)
        for left, right, low, top, colour in rectangles
    ]
