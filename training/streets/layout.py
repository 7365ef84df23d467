"""What stands and moves along a street, and where: houses, trees, lamp posts, traffic, people."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import NamedTuple

from training.streets import furniture
from training.streets.buildings import Building, draw_building
from training.streets.camera import Pixel, scaled
from training.streets.canvas import BUILDING, LEAVES, ROAD, Canvas
from training.streets.people import draw_cyclist, draw_person
from training.streets.vehicles import draw_vehicle, vehicle_footprint

FAR = 150.0
# What lines the road, as often as it is named, per character of the street.
CHARACTERS = {
    "high street": ["shop"] * 9 + ["office", "house", "park"],
    "terrace": ["house"] * 10 + ["shop", "park"],
    "suburb": ["villa"] * 4 + ["park"] * 3 + ["house"],
    "arterial": ["office"] * 3 + ["park"] * 3 + ["shop"],
}
PEDESTRIANS = {"high street": 18, "terrace": 9, "suburb": 6, "arterial": 6}
CARS = ["hatchback", "hatchback", "estate", "estate", "van"]


class Plot(NamedTuple):
    """A row of like buildings; ranges of numbers and metres."""

    style: str
    buildings: tuple[int, int]
    length: tuple[float, float]
    setback: tuple[float, float]
    storeys: tuple[int, int]
    rises: Sequence[float]
    gap: tuple[float, float]


PLOTS = {
    "office": Plot("office", (1, 1), (14, 26), (0.5, 2), (3, 5), [0.0], (0, 4)),
    "shop": Plot("shop", (1, 4), (5.5, 9), (0, 0), (2, 4), [0.0, 2.4, 3.2], (0, 1.5)),
    "house": Plot("house", (2, 5), (4.8, 6.6), (0.8, 3), (2, 3), [2.2, 2.8, 3.4], (0, 2)),
    "villa": Plot("house", (1, 1), (8, 12), (4, 8), (2, 2), [2.4, 3.6], (3, 6)),
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
    things: list[tuple[float, float, Callable[[Canvas, Random], None]]] = field(default_factory=list)
    taken: list[Pixel] = field(default_factory=list)

    def add(self, draw: Callable[..., None], x: float, z: float, footprint: Sequence[Pixel], tall: float) -> None:
        """Place what `draw` draws at (x, z), with its shadow."""
        shadow = self.canvas.shadow_at(x, z)
        self.canvas.cast(footprint, 0.0, tall)
        self.canvas.shade(footprint, 160)
        self.things.append((z, shadow, draw))

    def is_free(self, x: float, z: float, across: float, along: float) -> bool:
        return all(abs(x - a) > across or abs(z - b) > along for a, b in self.taken)

    def draw(self) -> None:
        for i, (_, shadow, draw) in sorted(enumerate(self.things), key=lambda item: -item[1][0]):
            self.canvas.shadow = shadow
            draw(self.canvas, Random(f"{self.seed} {i}"))


def furnish(scene: Scene, rng: Random) -> None:
    """Put everything on the street that stands or moves there; nothing is drawn yet but shadows and side roads."""
    town = scene.street.character in ("high street", "terrace")
    scene.things.append((1000.0, 0.0, partial(_draw_backdrop, town=town)))
    for side in (-1, 1):
        _line_side(scene, rng, side)
        _furnish_side(scene, rng, side)
    _place_cyclists(scene, rng)
    _place_traffic(scene, rng)
    _place_people(scene, rng)


def _square(x: float, z: float, half: float) -> list[Pixel]:
    return [(x - half, z - half), (x - half, z + half), (x + half, z + half), (x + half, z - half)]


def _draw_backdrop(canvas: Canvas, rng: Random, town: bool) -> None:
    """Close the view: rows of trees and roofs far behind what lines the road."""
    for z in (260.0, 205.0, 165.0):
        x = -170.0
        while x < 170:
            wide = rng.uniform(6, 14)
            if town and rng.random() < 0.5:
                tall, colour = rng.uniform(6, 12), rng.choice([(132, 112, 92), (120, 92, 78), (150, 144, 134)])
                roof = [(x, tall, z), (x + wide / 2, tall + 3, z), (x + wide, tall, z)]
                canvas.face([(x, 0, z), *roof, (x + wide, 0, z)], colour, BUILDING)
            else:
                for _ in range(6):
                    spot = (x + rng.uniform(0, wide), rng.uniform(0, 6), z)
                    canvas.ball(spot, wide * 0.3, 2.5, scaled((72, 88, 52), rng.uniform(0.85, 1.15)), LEAVES)
            x += wide * 0.85


def _line_side(scene: Scene, rng: Random, side: int) -> None:
    """Put houses, shops, offices, gardens and side roads along one side of the road."""
    street = scene.street
    junction = rng.uniform(14, 60) if rng.random() < 0.55 else math.inf
    z = rng.uniform(-14, -4)
    while z < FAR:
        kind = rng.choice(CHARACTERS[street.character])
        if z + 12 > junction:
            scene.canvas.strip(side * street.half_width, side * 80, z + 1, z + 7.5, (92, 93, 96), ROAD)
            z, junction = z + 8.5, math.inf
        elif kind == "park":
            length = rng.uniform(10, 26)
            if rng.random() < 0.8:
                _place_boundary(scene, rng, side * street.edge, z, z + length, ["boards", "black railing", "hedge"])
            for _ in range(int(length / 4)):
                x = side * (street.edge + rng.uniform(2, 12))
                _place_tree(scene, rng, x, z + rng.uniform(0, length), rng.uniform(6, 13))
            z += length
        else:
            z = _place_row(scene, rng, side, PLOTS[kind], z)


def _place_row(scene: Scene, rng: Random, side: int, plot: Plot, z: float) -> float:
    edge, setback, length = scene.street.edge, rng.uniform(*plot.setback), rng.uniform(*plot.length)
    storeys, storey = rng.randint(*plot.storeys), rng.uniform(2.8, 3.3)
    for _ in range(rng.randint(*plot.buildings)):
        rise = rng.choice(plot.rises)
        building = Building(side, z, z + length, edge + setback, 9.0, plot.style, storeys, storey, rise)
        scene.canvas.cast(building.footprint(), 0.0, building.height + rise * 0.6)
        scene.things.append((building.z1, 0.0, partial(draw_building, building=building)))
        if setback > 1.6:
            kinds = ["boards", "black railing", "hedge", "hedge"] if setback > 4 else ["railing", "hedge"]
            _place_boundary(scene, rng, side * edge, z, z + length, kinds)
        if setback > 4 and rng.random() < 0.6:
            _place_tree(scene, rng, side * (edge + 2.2), z + rng.uniform(0, length), rng.uniform(4, 8))
        z += length
    return z + rng.uniform(*plot.gap)


def _place_tree(scene: Scene, rng: Random, x: float, z: float, tall: float) -> None:
    wide, bare = tall * rng.uniform(0.5, 0.75), rng.random() < 0.22
    if z > 2.5:
        if not bare:
            scene.canvas.cast(_square(x, z, wide * 0.35), tall * 0.45, tall * 0.85)
        draw = partial(furniture.draw_tree, x=x, z=z, tall=tall, wide=wide, bare=bare)
        scene.add(draw, x, z, _square(x, z, 0.12), tall * 0.5)


def _place_boundary(scene: Scene, rng: Random, x: float, z0: float, z1: float, kinds: list[str]) -> None:
    """A hedge or fence in pieces of three metres, so that people in front of it and trees behind it sort well."""
    kind, tall, z = rng.choice(kinds), rng.uniform(0.9, 1.8), max(z0, 1.5)
    while z < z1 - 0.5:
        end = min(z1, z + 3.0)
        footprint = [(x, z), (x, end), (x * 1.02, end), (x * 1.02, z)]
        if kind == "hedge":
            scene.add(partial(furniture.draw_hedge, x=x, z0=z, z1=end, tall=tall), x, end, footprint, tall)
        else:
            draw = partial(furniture.draw_fence, x=x, z0=z, z1=end, kind=kind)
            scene.add(draw, x, end, footprint, 1.5 if kind == "boards" else 0.0)
        z = end


def _furnish_side(scene: Scene, rng: Random, side: int) -> None:
    """Lamp posts, signs, traffic lights, bins, kerb railings and street trees along one kerb."""
    street = scene.street
    tall = rng.uniform(5.5, 8.5)
    lamp_post = partial(furniture.draw_lamp_post, tall=tall, paint=rng.choice(furniture.STEELS))
    kerb, wall, spacing = street.half_width + 0.45, street.edge - 0.5, rng.uniform(18, 32)
    series: list[tuple[Callable[..., None], float, float, float, float, float]] = [
        (lamp_post, kerb, tall, rng.uniform(5, 30), spacing, spacing),
        (furniture.draw_sign, kerb, 2.4, rng.uniform(5, 17), 7, 26),
        (furniture.draw_clutter, wall, 1.0, rng.uniform(5, 60), 15, 80),
        (furniture.draw_traffic_light, kerb, 3.3, rng.uniform(9, 160), FAR, FAR),
    ]
    for draw, distance, height, z, shortest, longest in series:
        x = side * (distance + rng.uniform(-0.05, 0.2))
        while z < (110 if draw is lamp_post else 80):
            scene.add(partial(draw, x=x, z=z), x, z, _square(x, z, 0.05), height)
            z += rng.uniform(shortest, longest)
    if rng.random() < 0.3:
        start = rng.uniform(4, 16)
        end = start + rng.uniform(8, 22)
        _place_boundary(scene, rng, side * (street.half_width + 0.28), start, end, ["railing", "black railing"])
    if street.verge > 0 or (street.character != "high street" and rng.random() < 0.25):
        x, z, spacing = side * (street.half_width + max(0.8, street.verge / 2)), rng.uniform(6, 20), rng.uniform(9, 20)
        while z < 110:
            _place_tree(scene, rng, x, z, rng.uniform(5, 9))
            z += spacing


def _place_traffic(scene: Scene, rng: Random) -> None:
    street = scene.street
    if rng.random() < 0.3:
        _place_vehicle(scene, rng, rng.uniform(-0.5, 2.5), rng.uniform(11, 28), rng.uniform(0.5, 5.8), CARS)
    rows = [(-street.lane, 0.0, 63), (street.lane, math.pi, 48)]
    if street.parking:
        rows += [(0.95 - street.half_width, 0.0, 14), (street.half_width - 0.95, math.pi, 14)]
    for x, heading, longest in rows:
        z = rng.uniform(8, 8 + longest / 2)
        while z < 110:
            kinds = [*CARS * 2, "bus"] if longest > 20 else CARS
            _place_vehicle(scene, rng, x + rng.uniform(-0.15, 0.15), z, heading + rng.uniform(-0.03, 0.03), kinds)
            z += rng.uniform(7, longest)


def _place_vehicle(scene: Scene, rng: Random, x: float, z: float, heading: float, kinds: list[str]) -> None:
    kind = rng.choice(kinds)
    if z > (12 if kind == "bus" else 6.5) and scene.is_free(x, z, 2.3, 9.0 if kind == "bus" else 6.2):
        footprint, tall = vehicle_footprint(kind, x, z, heading)
        scene.taken.append((x, z))
        draw = partial(draw_vehicle, kind=kind, x=x, z=z, heading=heading)
        scene.add(draw, x, z, footprint, tall * 0.85)


def _place_cyclists(scene: Scene, rng: Random) -> None:
    for _ in range(rng.randint(0, 3)):
        side = rng.choice([-1, 1])
        x, z = side * (scene.street.lane * 2 - 0.7), 6.0 * 6.0 ** rng.random()
        heading = (0.0 if side < 0 else math.pi) + rng.choice([0, 0, 0, 0, 1.2]) + rng.uniform(-0.35, 0.35)
        if scene.is_free(x, z, 1.5, 3.6):
            scene.taken.append((x, z))
            scene.add(partial(draw_cyclist, x=x, z=z, heading=heading), x, z, _square(x, z, 0.15), 1.65)


def _place_people(scene: Scene, rng: Random) -> None:
    street = scene.street
    inner, outer = street.half_width + street.verge + 0.5, street.edge - 0.35
    spots = []
    for _ in range(rng.randint(1, PEDESTRIANS[street.character])):
        x, z = rng.choice([-1, 1]) * rng.uniform(inner, outer), 5.5 * 9.0 ** rng.random()
        heading = rng.choice([0.0, math.pi]) + rng.uniform(-0.4, 0.4)
        spots += [(x + 0.55 * i, z + 0.1 * i, heading) for i in range(rng.choice([1, 1, 2]))]
    x, z = rng.uniform(-street.half_width, street.half_width), rng.uniform(9, 25)
    if rng.random() < 0.22 and scene.is_free(x, z, 2, 3.5):
        spots.append((x, z, rng.choice([-1, 1]) * math.pi / 2))
    for x, z, heading in spots:
        scene.add(partial(draw_person, x=x, z=z, heading=heading), x, z, _square(x, z, 0.15), 1.65)
