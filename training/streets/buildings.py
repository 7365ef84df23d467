"""Buildings along the road: brick terraces, shops and office blocks, each a box with a facade towards the road."""

from dataclasses import dataclass
from random import Random

from training.streets.camera import Colour, Pixel, Point, scaled
from training.streets.canvas import BUILDING, WALL, Canvas

BRICKS: list[Colour] = [(152, 128, 96), (164, 146, 112), (138, 84, 64), (150, 98, 76), (126, 92, 76), (170, 152, 128)]
RENDERS: list[Colour] = [(206, 200, 186), (192, 182, 160), (178, 186, 188), (196, 170, 152), (168, 178, 160)]
CONCRETES: list[Colour] = [(150, 148, 142), (168, 160, 148), (132, 134, 136), (178, 172, 160), *BRICKS[:3]]
WALLS = {"house": BRICKS * 2 + RENDERS, "shop": BRICKS * 2 + RENDERS, "office": CONCRETES}
ROOFS: list[Colour] = [(82, 84, 90), (96, 82, 76), (122, 84, 68), (72, 74, 80)]
DOORS: list[Colour] = [(110, 26, 30), (26, 44, 86), (24, 64, 46), (30, 30, 32), (196, 194, 186), (92, 60, 40)]
FASCIAS: list[Colour] = [(128, 26, 34), (24, 58, 110), (20, 78, 58), (36, 36, 40), (206, 160, 40), (210, 208, 200)]
TRIM: Colour = (222, 220, 212)
LAMPLIGHT: Colour = (196, 160, 106)


@dataclass(frozen=True)
class Building:
    """A box on one side (-1 left, 1 right) from z0 to z1, its facade `front` metres from the middle of the road."""

    side: int
    z0: float
    z1: float
    front: float
    depth: float
    style: str
    storeys: int
    storey_height: float
    rise: float

    @property
    def height(self) -> float:
        return self.storeys * self.storey_height + 0.4

    def footprint(self) -> list[Pixel]:
        near, far = self.side * self.front, self.side * (self.front + self.depth)
        return [(near, self.z0), (near, self.z1), (far, self.z1), (far, self.z0)]


@dataclass(frozen=True)
class Facade:
    """The road side of a building, drawn in rectangles by position along the road and height."""

    canvas: Canvas
    building: Building

    def rect(
        self, z0: float, z1: float, y0: float, y1: float, colour: Colour, code: int = BUILDING, shines: bool = False
    ) -> None:
        x = self.building.side * self.building.front
        normal = None if shines else (-self.building.side, 0.05, 0.0)
        self.canvas.face([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], colour, code, normal)

    def shows(self, z: float, metres: float, pixels: float) -> bool:
        """Whether something that long at z is that many pixels long, and not behind the camera."""
        return z > 1.0 and metres * self.canvas.camera.pixels_per_metre(z) > pixels


def draw_building(canvas: Canvas, rng: Random, building: Building) -> None:
    """Draw a building: gable, roof, chimney, and the facade with its windows and doors."""
    side, z0, z1, height = building.side, building.z0, building.z1, building.height
    near, far = side * building.front, side * (building.front + building.depth)
    middle, ridge = (near + far) / 2, height + building.rise
    wall = rng.choice(WALLS[building.style])
    facade = Facade(canvas, building)
    canvas.face([(near, 0, z0), (near, height, z0), (middle, ridge, z0), (far, height, z0), (far, 0, z0)], wall, WALL)
    if building.rise:
        if (building.front - side * canvas.camera.x) * building.rise > (height - 1.5) * building.depth / 2:
            eaves, low = near - side * 0.3, height - 0.1
            slope = [(eaves, low, z0), (middle, ridge, z0), (middle, ridge, z1), (eaves, low, z1)]
            canvas.face(slope, rng.choice(ROOFS), BUILDING, (-0.6 * side, 0.8, 0.0))
        if rng.random() < 0.75:
            _draw_chimney(canvas, (middle, ridge, z1 - 0.6), side, wall)
    facade.rect(z0, z1, 0, height, wall, WALL)
    if building.style == "shop":
        _draw_shop_front(facade, rng)
    elif building.style == "house":
        _draw_door(facade, rng)
    _draw_windows(facade, rng)
    facade.rect(z0, z1, height - 0.25, height, scaled(TRIM, 0.8) if building.rise else scaled(wall, 1.12))
    facade.rect(z0, z1, height - 0.35, height - 0.25, scaled(wall, 0.62))


def _draw_chimney(canvas: Canvas, foot: Point, side: int, wall: Colour) -> None:
    x, y, z = foot
    low, top, edge = y - 0.9, y + 1.0, x - side * 0.5
    front = [(x - 0.5, low, z), (x - 0.5, top, z), (x + 0.5, top, z), (x + 0.5, low, z)]
    canvas.face(front, scaled(wall, 0.9), BUILDING)
    flank = [(edge, low, z), (edge, top, z), (edge, top, z + 0.6), (edge, low, z + 0.6)]
    canvas.face(flank, wall, BUILDING, (-side, 0.05, 0.0))
    for pot in (x - 0.25, x + 0.2):
        canvas.limb((pot, top, z), (pot, top + 0.4, z), 0.2, (150, 92, 66), BUILDING)


def _draw_windows(facade: Facade, rng: Random) -> None:
    building, sky = facade.building, facade.canvas.light.horizon
    storey, span = building.storey_height, building.z1 - building.z0
    office = building.style == "office"
    bays = max(1, int(span / rng.uniform(2.0, 2.9)))
    wide, tall = (0.78 if office else 0.45) * span / bays, storey * 0.54
    frame, sash = rng.choice([TRIM, TRIM, TRIM, (60, 56, 54)]), not office and rng.random() < 0.7
    for floor in range(1 if building.style == "shop" else 0, building.storeys):
        low = floor * storey + storey * 0.3 + 0.15
        top, middle = low + tall, low + tall / 2
        for bay in range(bays - 1, -1, -1):
            z = building.z0 + span * (bay + 0.5) / bays
            door = floor == 0 and bay == 0 and building.style == "house"
            if door or not facade.shows(z, tall, 4):
                continue
            a, b, tint = z - wide / 2, z + wide / 2, rng.uniform(0.08, 0.27)
            glass = (27 + tint * sky[0], 30 + tint * sky[1], 35 + tint * sky[2])
            if facade.canvas.light.kind == "dusk" and rng.random() < 0.4:
                glass = scaled(LAMPLIGHT, rng.uniform(0.7, 1.0))
            facade.rect(a - 0.1, b + 0.1, low - 0.13, top + 0.15, scaled(TRIM, 0.85))
            facade.rect(a, b, low, top, frame)
            facade.rect(a + 0.07, b - 0.07, low + 0.07, top - 0.07, glass, shines=True)
            if sash and facade.shows(z, tall, 16):
                facade.rect(a, b, middle - 0.035, middle + 0.035, frame)
                facade.rect(z - 0.03, z + 0.03, low, top, frame)


def _draw_door(facade: Facade, rng: Random) -> None:
    z0, span = facade.building.z0, facade.building.z1 - facade.building.z0
    z = z0 + span * 0.5 / max(1, int(span / 2.6))
    if facade.shows(z, 2.0, 8):
        colour = rng.choice(DOORS)
        facade.rect(z - 0.6, z + 0.6, 0.0, 2.6, TRIM)
        facade.rect(z - 0.48, z + 0.48, 0.12, 2.1, colour)
        facade.rect(z - 0.34, z + 0.34, 0.3, 1.9, scaled(colour, 0.75))
        facade.rect(z - 0.46, z + 0.46, 2.16, 2.5, (44, 48, 53), shines=True)


def _draw_shop_front(facade: Facade, rng: Random) -> None:
    """Shop windows with goods in them, the name above, sometimes an awning."""
    building, canvas = facade.building, facade.canvas
    z0, z1, x, side = building.z0, building.z1, building.side * building.front, building.side
    colour, low, high = rng.choice(FASCIAS), 2.65, 3.3
    facade.rect(z0 + 0.1, z1 - 0.1, 0, low, scaled(colour, 0.72))
    panes = max(2, int((z1 - z0) / 1.7))
    step = (z1 - z0 - 0.4) / panes
    for i in range(panes - 1, -1, -1):
        a, b = z0 + 0.26 + i * step, z0 + 0.08 + (i + 1) * step
        base = rng.choice([0.1, 0.55, 0.55, 0.55])
        facade.rect(a, b, base, 2.5, LAMPLIGHT if canvas.light.kind == "dusk" else (44, 48, 52), shines=True)
        for _ in range(5 if facade.shows(a, 1.0, 14) else 0):
            z, top = rng.uniform(a, b - 0.3), base + rng.uniform(0.2, 0.9)
            facade.rect(z, z + 0.3, base + 0.05, top, scaled(rng.choice(FASCIAS + BRICKS), 0.55), shines=True)
    facade.rect(z0 + 0.05, z1 - 0.05, low, high, colour)
    facade.rect(z0, z1, high, high + 0.1, scaled(TRIM, 0.85))
    z = z0 + (z1 - z0) * 0.2
    for _ in range(rng.randint(4, 9)):
        wide = rng.uniform(0.14, 0.28)
        if facade.shows(z, 0.3, 4):
            facade.rect(z, z + wide * 0.7, low + 0.17, high - 0.17, TRIM if colour[0] < 150 else (40, 36, 40))
        z += wide + 0.06
    if rng.random() < 0.22:
        hem = x - side * 1.1
        awning = [(x, 2.9, z0 + 0.2), (x, 2.9, z1 - 0.2), (hem, 2.35, z1 - 0.2), (hem, 2.35, z0 + 0.2)]
        canvas.face(awning, rng.choice(FASCIAS), BUILDING, (-0.5 * side, 0.6, -0.2))
