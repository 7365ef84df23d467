"""What stands and moves along a street, and where: houses, trees, lamp posts, traffic, people."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from training.streets.buildings import Building, draw_building
from training.streets.canvas import BUILDING, LEAVES, ROAD, Canvas, Point, pick, uniform
from training.streets.furniture import (
    STEELS,
    draw_clutter,
    draw_fence,
    draw_hedge,
    draw_lamp_post,
    draw_sign,
    draw_traffic_light,
    draw_tree,
)
from training.streets.traffic import draw_cyclist, draw_person, draw_vehicle, vehicle_footprint

FAR = 150.0
# Shares of what stands along the road, per character of the street.
CHARACTERS: dict[str, dict[str, float]] = {
    "high street": {"shop": 0.74, "office": 0.12, "house": 0.06, "park": 0.08},
    "terrace": {"house": 0.84, "shop": 0.06, "park": 0.1},
    "suburb": {"villa": 0.5, "park": 0.38, "house": 0.12},
    "arterial": {"office": 0.45, "park": 0.4, "shop": 0.15},
}


@dataclass(frozen=True)
class Street:
    """Cross-section of the road (metres) and what lines it."""

    character: str
    half_width: float
    pavement: float
    verge: float
    parking: bool

    @property
    def lane(self) -> float:
        """Distance of the middle of each lane from the middle of the road."""
        return (self.half_width - (2.0 if self.parking else 0.0)) / 2

    @property
    def edge(self) -> float:
        """Distance of the pavement's far edge, where gardens and houses begin."""
        return self.half_width + self.verge + self.pavement


@dataclass
class Scene:
    """Things placed on a street, drawn from far to near, each with a random stream of its own."""

    canvas: Canvas
    street: Street
    seed: int
    things: list[tuple[float, float, Callable[..., None], bool]]
    taken: list[tuple[float, float]]

    def add(self, z: float, draw: Callable[..., None], x: float | None = None) -> None:
        self.things.append((z, 0.0 if x is None else x, draw, x is not None))

    def draw(self) -> None:
        order = sorted(range(len(self.things)), key=lambda i: -self.things[i][0])
        for i in order:
            z, x, draw, takes_shadow = self.things[i]
            rng = np.random.default_rng((self.seed, 1, i))
            if takes_shadow:
                draw(self.canvas, rng, shadow=self.canvas.shadow_at(x, z))
            else:
                draw(self.canvas, rng)


def furnish(scene: Scene, rng: np.random.Generator) -> None:
    """Put everything on the street that stands or moves there; nothing is drawn yet but shadows and side roads."""
    scene.add(1000.0, partial(_draw_backdrop, town=scene.street.character in ("high street", "terrace")))
    for side in (-1, 1):
        _line_side(scene, rng, side)
        _furnish_side(scene, rng, side)
    _place_cyclists(scene, rng)
    _place_traffic(scene, rng)
    _place_people(scene, rng)


def _draw_backdrop(canvas: Canvas, rng: np.random.Generator, town: bool) -> None:
    """Close the view: rows of trees and roofs far behind what lines the road."""
    light = canvas.light.on(0, 0.2, -1)
    for row, z in enumerate((260.0, 205.0, 165.0)):
        x = -170.0
        while x < 170:
            wide = uniform(rng, 6, 14)
            if not canvas.sees(x, z, 2 * wide):
                x += wide * 0.85
                continue
            if town and rng.random() < 0.5:
                tall = uniform(rng, 6, 12)
                outline = [(0.0, 0.0), (0.0, tall), (wide / 2, tall + 3), (wide, tall), (wide, 0.0)]
                house: list[Point] = [(x + dx, y, z) for dx, y in outline]
                canvas.face(house, pick(rng, [(132, 112, 92), (120, 92, 78), (150, 144, 134)]), BUILDING, light)
            else:
                tall = uniform(rng, 4, 9) - row
                low = tall * 0.7
                canvas.face([(x, 0, z), (x, low, z), (x + wide, low, z), (x + wide, 0, z)], (70, 84, 52), LEAVES, light)
                for _ in range(5):
                    shade = uniform(rng, 0.85, 1.15)
                    spot = (x + uniform(rng, 0, wide), tall * uniform(rng, 0.55, 0.95), z)
                    canvas.ball(spot, wide * 0.22, tall * 0.22, (72 * shade, 88 * shade, 52 * shade), LEAVES, light)
            x += wide * 0.85


def _line_side(scene: Scene, rng: np.random.Generator, side: int) -> None:
    """Put houses, shops, offices, gardens and side roads along one side of the road."""
    street = scene.street
    shares = CHARACTERS[street.character]
    line = street.edge
    setback = uniform(rng, 0.0, 0.4) if street.character == "high street" else uniform(rng, 0.8, 3.5)
    junction = uniform(rng, 14, 60) if rng.random() < 0.55 else 1e9
    z = uniform(rng, -14, -4)
    while z < FAR:
        if z <= junction < z + 12:
            asphalt = (92, 93, 96)
            scene.canvas.strip(side * street.half_width, side * 80, z + 1, z + 7.5, asphalt, ROAD)
            z, junction = z + 8.5, 1e9
            continue
        draw, total, kind = float(rng.random()), 0.0, "park"
        for name, share in shares.items():
            total += share
            if draw < total:
                kind = name
                break
        if kind == "park":
            z = _place_park(scene, rng, side, line, z)
        elif kind == "villa":
            z = _place_villa(scene, rng, side, line, z)
        else:
            z = _place_row(scene, rng, side, line + (setback if kind != "shop" else 0.0), kind, z)


def _place_building(scene: Scene, building: Building) -> None:
    scene.canvas.cast(building.footprint(), 0.0, building.height + building.rise * 0.6, on_things=True)
    scene.add(building.z1, partial(draw_building, building=building))


def _place_row(scene: Scene, rng: np.random.Generator, side: int, front: float, kind: str, z: float) -> float:
    if kind == "office":
        storeys, length = 3 + int(rng.random() * 3), uniform(rng, 14, 26)
        _place_building(scene, Building(side, z, z + length, front, 12.0, "office", storeys, 3.3, 0.0))
        return z + length + uniform(rng, 0, 4)
    storeys = 2 + int(rng.random() * 2)
    wide = uniform(rng, 4.8, 6.6) if kind == "house" else uniform(rng, 5.5, 9)
    for _ in range(2 + int(rng.random() * 4)):
        if kind == "shop":
            storeys = max(2, min(4, storeys + int(rng.random() * 3) - 1))
        rise = 0.0 if kind == "shop" and rng.random() < 0.45 else uniform(rng, 2.2, 3.4)
        height = uniform(rng, 2.8, 3.2)
        if front - scene.street.edge > 1.6 and rng.random() < 0.8:
            _place_boundary(scene, rng, side, scene.street.edge, z, z + wide, low=True)
        _place_building(scene, Building(side, z, z + wide, front, 9.0, kind, storeys, height, rise))
        z += wide
    return z + (0.0 if rng.random() < 0.6 else uniform(rng, 1, 3))


def _place_villa(scene: Scene, rng: np.random.Generator, side: int, line: float, z: float) -> float:
    length = uniform(rng, 8, 12)
    _place_boundary(scene, rng, side, line, z - 2, z + length + 3, low=False)
    front, rise = line + uniform(rng, 4, 8), uniform(rng, 2.4, 3.6)
    _place_building(scene, Building(side, z, z + length, front, 8.0, "house", 2, 2.9, rise))
    if rng.random() < 0.6:
        _place_tree(scene, rng, side * (line + 2.2), z + uniform(rng, 0, length), uniform(rng, 4, 8))
    return z + length + uniform(rng, 3, 6)


def _place_park(scene: Scene, rng: np.random.Generator, side: int, line: float, z: float) -> float:
    length = uniform(rng, 10, 26)
    if rng.random() < 0.8:
        _place_boundary(scene, rng, side, line, z, z + length, low=False)
    for _ in range(int(length / 4)):
        _place_tree(scene, rng, side * (line + uniform(rng, 2.0, 12)), z + uniform(rng, 0, length), uniform(rng, 6, 13))
    return z + length


def _place_tree(scene: Scene, rng: np.random.Generator, x: float, z: float, tall: float) -> None:
    wide = tall * uniform(rng, 0.5, 0.75)
    bare = rng.random() < 0.22
    if z < 2.5:
        return
    corners = [(x + 0.42 * wide * math.cos(t * 0.785), z + 0.42 * wide * math.sin(t * 0.785)) for t in range(8)]
    if not bare:
        scene.canvas.cast(corners, tall * 0.45, tall * 0.85)
    scene.canvas.cast([(x - 0.12, z), (x, z + 0.12), (x + 0.12, z), (x, z - 0.12)], 0.0, tall * 0.5)
    scene.add(z, partial(draw_tree, x=x, z=z, tall=tall, wide=wide, bare=bare), x=x)


def _place_boundary(
    scene: Scene, rng: np.random.Generator, side: int, line: float, z0: float, z1: float, low: bool
) -> None:
    """A hedge or fence in pieces of three metres, so that people in front of it and trees behind it sort well."""
    low_kinds, high_kinds = (
        ["railing", "black railing", "hedge"],
        ["boards", "black railing", "hedge", "boards", "hedge"],
    )
    kind = pick(rng, low_kinds if low else high_kinds)
    tall = uniform(rng, 0.9, 1.3) if low else uniform(rng, 1.2, 2.0)
    x = side * (line + 0.08)
    z0 = max(z0, 1.5)
    while z0 < z1 - 0.5:
        end = min(z1, z0 + 3.0)
        if kind == "hedge":
            draw = partial(draw_hedge, x=x, z0=z0, z1=end, tall=tall)
        else:
            draw = partial(draw_fence, x=x, z0=z0, z1=end, style=kind)
        scene.add(end, draw, x=x)
        footprint = [(x, z0), (x, end), (x + 0.1 * side, end), (x + 0.1 * side, z0)]
        if kind in ("hedge", "boards"):
            scene.canvas.cast(footprint, 0.0, 1.5)
        scene.canvas.contact(footprint, 120)
        z0 = end


def _furnish_side(scene: Scene, rng: np.random.Generator, side: int) -> None:
    """Lamp posts, signs, traffic lights, kerb railings, street trees and bins along one kerb."""
    canvas, street = scene.canvas, scene.street
    kerb = side * (street.half_width + 0.45)

    def post(x: float, z: float, tall: float, draw: Callable[..., None]) -> None:
        canvas.cast([(x - 0.05, z - 0.05), (x + 0.05, z - 0.05), (x + 0.05, z + 0.05), (x - 0.05, z + 0.05)], 0.0, tall)
        scene.add(z, draw, x=x)

    spacing, tall, paint = uniform(rng, 18, 32), uniform(rng, 5.5, 8.5), pick(rng, STEELS)
    z = uniform(rng, 5, 5 + spacing)
    while z < 120:
        post(kerb, z, tall, partial(draw_lamp_post, x=kerb, z=z, tall=tall, paint=paint))
        z += spacing
    z = 5 + 12 * float(rng.random())
    while z < 80:
        x = side * (street.half_width + uniform(rng, 0.4, 0.8))
        post(x, z, 2.4, partial(draw_sign, x=x, z=z))
        z += uniform(rng, 7, 26)
    if rng.random() < 0.3:
        z = uniform(rng, 9, 26)
        post(kerb, z, 3.3, partial(draw_traffic_light, x=kerb, z=z))
    if rng.random() < 0.3:
        start = uniform(rng, 4, 16)
        end = start + uniform(rng, 8, 22)
        style = pick(rng, ["railing", "black railing"])
        while start < end:
            x = side * (street.half_width + 0.28)
            scene.add(start + 2.0, partial(draw_fence, x=x, z0=start, z1=start + 2.0, style=style), x=x)
            start += 2.0
    trees = street.verge > 0 or (street.character != "high street" and rng.random() < 0.25)
    if trees:
        spacing, z = uniform(rng, 9, 20), uniform(rng, 6, 20)
        x = side * (street.half_width + max(0.8, street.verge / 2))
        while z < 110:
            _place_tree(scene, rng, x, z + uniform(rng, -2, 2), uniform(rng, 5, 9))
            z += spacing
    for _ in range(int(rng.random() * 3)):
        x, z = side * (street.half_width + street.verge + street.pavement - 0.5), uniform(rng, 5, 40)
        scene.add(z, partial(draw_clutter, x=x, z=z), x=x)


def _place_vehicle(
    scene: Scene, rng: np.random.Generator, x: float, z: float, heading: float, kind: str | None = None
) -> None:
    reach = 9.0 if kind == "bus" else 6.2
    if z < 6.5 or any(abs(x - a) < 2.3 and abs(z - b) < reach for a, b in scene.taken):
        return
    kind = kind or pick(rng, ["hatchback", "hatchback", "saloon", "estate", "estate", "van"])
    corners, tall = vehicle_footprint(kind, x, z, heading)
    scene.canvas.cast(corners, 0.2, tall * 0.85)
    scene.canvas.contact(corners)
    scene.taken.append((x, z))
    scene.add(z, partial(draw_vehicle, kind=kind, x=x, z=z, heading=heading), x=x)


def _place_traffic(scene: Scene, rng: np.random.Generator) -> None:
    street = scene.street
    if rng.random() < 0.3:
        turn = pick(rng, [-1, 1]) * uniform(rng, 0.5, 2.4)
        _place_vehicle(scene, rng, uniform(rng, -0.5, 2.5), uniform(rng, 11, 28), turn)
    if rng.random() < 0.12:
        _place_vehicle(scene, rng, street.lane + 0.2, uniform(rng, 16, 45), math.pi, "bus")
    z = 9 + 34 * float(rng.random())
    while z < 110:
        _place_vehicle(scene, rng, -street.lane + uniform(rng, -0.2, 0.2), z, uniform(rng, -0.03, 0.03))
        z += 8 + 55 * float(rng.random())
    z = 8 + 26 * float(rng.random())
    while z < 110:
        _place_vehicle(scene, rng, street.lane + uniform(rng, -0.2, 0.2), z, math.pi + uniform(rng, -0.03, 0.03))
        z += 8 + 40 * float(rng.random())
    if street.parking:
        for side in (-1, 1):
            z = uniform(rng, 7, 15)
            while z < 100:
                if rng.random() < 0.55:
                    heading = (0.0 if side < 0 or rng.random() < 0.3 else math.pi) + uniform(rng, -0.02, 0.02)
                    _place_vehicle(scene, rng, side * (street.half_width - 1.05), z, heading)
                z += uniform(rng, 6.2, 8)


def _place_people(scene: Scene, rng: np.random.Generator) -> None:
    street = scene.street
    inner, outer = street.half_width + street.verge + 0.5, street.half_width + street.verge + street.pavement - 0.35
    busy = {"high street": 18, "terrace": 9, "suburb": 6, "arterial": 6}[street.character]
    for _ in range(1 + int(rng.random() * busy)):
        x, z = pick(rng, [-1, 1]) * uniform(rng, inner, outer), 5.5 * 9.0 ** float(rng.random())
        heading = pick(rng, [0.0, math.pi]) + uniform(rng, -0.4, 0.4)
        for _ in range(1 if rng.random() < 0.7 else 2):
            _place_walker(scene, draw_person, x, z, heading)
            x, z = x + uniform(rng, 0.5, 0.65), z + uniform(rng, -0.2, 0.3)
    if rng.random() < 0.22:
        x, z = uniform(rng, -street.half_width, street.half_width), uniform(rng, 9, 25)
        if all(abs(x - a) > 2 or abs(z - b) > 3.5 for a, b in scene.taken):
            _place_walker(scene, draw_person, x, z, pick(rng, [-1, 1]) * math.pi / 2)


def _place_cyclists(scene: Scene, rng: np.random.Generator) -> None:
    street = scene.street
    for _ in range(int(rng.random() * 3.6)):
        side = pick(rng, [-1, 1])
        x, z = side * (street.lane * 2 - 0.7), 6.0 * 6.0 ** float(rng.random())
        heading = (0.0 if side < 0 else math.pi) + uniform(rng, -0.35, 0.35)
        if rng.random() < 0.2:
            heading += 1.2
        if all(abs(x - a) > 1.5 or abs(z - b) > 3.6 for a, b in scene.taken):
            _place_walker(scene, draw_cyclist, x, z, heading)
            scene.taken.append((x, z))


def _place_walker(scene: Scene, draw: Callable[..., None], x: float, z: float, heading: float) -> None:
    body = [(x - 0.18, z - 0.12), (x + 0.18, z - 0.12), (x + 0.18, z + 0.12), (x - 0.18, z + 0.12)]
    scene.canvas.cast(body, 0.0, 1.65)
    scene.canvas.contact(body, 110)
    scene.add(z, partial(draw, x=x, z=z, heading=heading), x=x)
