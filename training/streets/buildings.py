"""Buildings along the road: brick terraces, shops and office blocks, each a box with a facade towards the road."""

from dataclasses import dataclass

import numpy as np

from training.streets.canvas import BUILDING, SIGN, WALL, Canvas, Colour, Point, pick, scaled, uniform

BRICKS: list[Colour] = [(152, 128, 96), (164, 146, 112), (138, 84, 64), (150, 98, 76), (126, 92, 76), (170, 152, 128)]
RENDERS: list[Colour] = [
    (206, 200, 186),
    (192, 182, 160),
    (178, 186, 188),
    (196, 170, 152),
    (212, 208, 200),
    (168, 178, 160),
]
CONCRETES: list[Colour] = [(150, 148, 142), (168, 160, 148), (132, 134, 136), (178, 172, 160)]
ROOFS: list[Colour] = [(82, 84, 90), (96, 82, 76), (122, 84, 68), (72, 74, 80)]
DOORS: list[Colour] = [(110, 26, 30), (26, 44, 86), (24, 64, 46), (30, 30, 32), (196, 194, 186), (92, 60, 40)]
FASCIAS: list[Colour] = [
    (128, 26, 34),
    (24, 58, 110),
    (20, 78, 58),
    (36, 36, 40),
    (206, 160, 40),
    (96, 40, 84),
    (210, 208, 200),
]
TRIM: Colour = (222, 220, 212)


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

    def footprint(self) -> list[tuple[float, float]]:
        near, far = self.side * self.front, self.side * (self.front + self.depth)
        return [(near, self.z0), (near, self.z1), (far, self.z1), (far, self.z0)]


class Facade:
    """Rectangles on the road side of a building, by position along the road and height."""

    def __init__(self, canvas: Canvas, building: Building) -> None:
        self.canvas, self.x = canvas, building.side * building.front
        self.light = canvas.light.on(-building.side, 0.05, 0.0)

    def rect(self, z0: float, z1: float, y0: float, y1: float, colour: Colour, code: int = BUILDING) -> None:
        self.glow(z0, z1, y0, y1, colour, self.light, code)

    def glow(
        self, z0: float, z1: float, y0: float, y1: float, colour: Colour, light: Colour, code: int = BUILDING
    ) -> None:
        corners: list[Point] = [(self.x, y0, z0), (self.x, y1, z0), (self.x, y1, z1), (self.x, y0, z1)]
        self.canvas.face(corners, colour, code, light)

    def pixels(self, z: float, metres: float) -> float:
        return metres * self.canvas.camera.pixels_per_metre(z)


def draw_building(canvas: Canvas, rng: np.random.Generator, building: Building) -> None:
    """Draw a building: gable, roof, facade with its windows and doors, chimneys."""
    side, z0, z1, height = building.side, building.z0, building.z1, building.height
    near, far = side * building.front, side * (building.front + building.depth)
    middle = (near + far) / 2
    wall = pick(rng, BRICKS if rng.random() < (0.72 if building.style != "office" else 0.4) else RENDERS)
    if building.style == "office":
        wall = pick(rng, CONCRETES + BRICKS[:3])
    roof = pick(rng, ROOFS)
    gable_light = canvas.light.on(0.0, 0.05, -1.0)
    facade = Facade(canvas, building)
    outline = [(near, 0), (near, height), (middle, height + building.rise), (far, height), (far, 0)]
    gable: list[Point] = [(x, y, z0) for x, y in outline]
    canvas.face(gable, wall, WALL, gable_light)
    if building.rise:
        if (building.front - side * canvas.camera.x) * building.rise > (height - 1.5) * building.depth / 2:
            eaves, low, ridge = near - side * 0.3, height - 0.1, height + building.rise
            slope: list[Point] = [(eaves, low, z0), (middle, ridge, z0), (middle, ridge, z1), (eaves, low, z1)]
            canvas.face(slope, roof, BUILDING, canvas.light.on(-0.6 * side, 0.8, 0))
        _draw_chimney(canvas, rng, building, wall)
    facade.rect(z0, z1, 0, height, wall, WALL)
    if building.style == "shop":
        _draw_shop_front(facade, rng, building)
    elif building.style == "house":
        _draw_door(facade, rng, building)
    _draw_windows(facade, rng, building)
    if building.rise:
        facade.rect(z0, z1, height - 0.22, height, scaled(TRIM, 0.8))
    else:
        facade.rect(z0, z1, height - 0.3, height + 0.05, scaled(wall, 1.12))
        facade.rect(z0, z1, height - 0.42, height - 0.3, scaled(wall, 0.62))
    if building.style != "office" and rng.random() < 0.7:
        facade.rect(z1 - 0.16, z1 - 0.05, 0, height - 0.2, (52, 52, 54))


def _draw_chimney(canvas: Canvas, rng: np.random.Generator, building: Building, wall: Colour) -> None:
    if rng.random() < 0.25:
        return
    x = building.side * (building.front + building.depth / 2)
    top, base = building.height + building.rise + 1.0, building.height + building.rise - 0.9
    z = building.z1 - 0.6
    light, flank = canvas.light.on(0, 0.05, -1), canvas.light.on(-building.side, 0.05, 0)
    face: list[Point] = [(x - 0.5, base, z), (x - 0.5, top, z), (x + 0.5, top, z), (x + 0.5, base, z)]
    edge = x - building.side * 0.5
    canvas.face(face, scaled(wall, 0.9), BUILDING, light)
    canvas.face([(edge, base, z), (edge, top, z), (edge, top, z + 0.6), (edge, base, z + 0.6)], wall, BUILDING, flank)
    for offset in (-0.25, 0.2):
        canvas.limb((x + offset, top, z), (x + offset, top + 0.4, z), 0.2, (150, 92, 66), BUILDING, light)


def _draw_windows(facade: Facade, rng: np.random.Generator, building: Building) -> None:
    z0, z1 = building.z0, building.z1
    span = z1 - z0
    storey = building.storey_height
    office = building.style == "office"
    pitch = 1.9 + 0.8 * rng.random() if office else 2.3 + 0.7 * rng.random()
    bays = max(1, int(span / pitch))
    wide = (0.78 if office else 0.45) * span / bays
    tall = storey * (0.52 if office else 0.55)
    frame = TRIM if rng.random() < 0.75 else (60, 56, 54)
    sash = rng.random() < 0.7
    lintel = rng.random() < 0.6
    lit_share = 0.4 if facade.canvas.light.kind == "dusk" else 0.0
    for floor in range(building.storeys):
        if floor == 0 and building.style == "shop":
            continue
        sill = floor * storey + storey * 0.3 + 0.15
        for bay in range(bays - 1, -1, -1):
            centre = z0 + span * (bay + 0.5) / bays
            tint, lit = float(rng.random()), rng.random() < lit_share
            if centre + wide / 2 < 1.0 or (floor == 0 and building.style == "house" and bay == 0):
                continue
            _draw_window(facade, centre, wide, sill, tall, frame, tint, lit, sash and not office, lintel)


def _draw_window(
    facade: Facade,
    centre: float,
    wide: float,
    sill: float,
    tall: float,
    frame: Colour,
    tint: float,
    lit: bool,
    sash: bool,
    lintel: bool,
) -> None:
    a, b, top = centre - wide / 2, centre + wide / 2, sill + tall
    size = facade.pixels(centre, tall)
    if size < 4:
        return
    sky = facade.canvas.light.horizon
    mix = 0.1 + 0.24 * tint
    glass: Colour = (34 + mix * sky[0] * 0.8, 38 + mix * sky[1] * 0.8, 44 + mix * sky[2] * 0.85)
    light = (0.8, 0.8, 0.8)
    if lit:
        glass, light = (222 - 60 * tint, 176 - 40 * tint, 104), (0.9, 0.9, 0.9)
    if size > 9:
        if lintel:
            facade.rect(a - 0.12, b + 0.12, top, top + 0.2, scaled(TRIM, 0.82))
        facade.rect(a - 0.1, b + 0.1, sill - 0.13, sill, scaled(TRIM, 0.88))
        facade.rect(a, b, sill, top, frame)
        facade.glow(a + 0.07, b - 0.07, sill + 0.07, top - 0.07, glass, light)
    else:
        facade.glow(a, b, sill, top, glass, light)
    if size > 16:
        if tint > 0.45 and not lit:
            facade.glow(a + 0.07, b - 0.07, top - 0.07 - tall * (tint - 0.3), top - 0.07, (128, 124, 116), facade.light)
        if sash:
            middle = sill + tall / 2
            facade.rect(a + 0.05, b - 0.05, middle - 0.035, middle + 0.035, frame)
            facade.rect(centre - 0.03, centre + 0.03, sill, top, frame)


def _draw_door(facade: Facade, rng: np.random.Generator, building: Building) -> None:
    span = building.z1 - building.z0
    bays = max(1, int(span / 2.6))
    centre = building.z0 + span * 0.5 / bays
    if facade.pixels(centre, 2.0) < 8 or centre < 1:
        return
    colour = pick(rng, DOORS)
    facade.rect(centre - 0.6, centre + 0.6, 0.1, 2.6, TRIM)
    facade.rect(centre - 0.48, centre + 0.48, 0.12, 2.1, colour)
    facade.glow(centre - 0.46, centre + 0.46, 2.16, 2.5, (54, 60, 66), (0.8, 0.8, 0.8))
    facade.rect(centre - 0.34, centre + 0.34, 1.2, 1.9, scaled(colour, 0.7))
    facade.rect(centre - 0.34, centre + 0.34, 0.3, 0.95, scaled(colour, 0.7))
    facade.rect(centre - 0.7, centre + 0.7, 0.0, 0.14, (150, 148, 142))


def _draw_shop_front(facade: Facade, rng: np.random.Generator, building: Building) -> None:
    z0, z1 = building.z0, building.z1
    colour, fascia_light = pick(rng, FASCIAS), facade.light
    ink: Colour = (232, 226, 206) if colour[0] < 150 else (40, 36, 40)
    low, high = 2.65, 3.3
    facade.rect(z0 + 0.1, z1 - 0.1, 0, low, scaled(colour, 0.72))
    panes = max(2, int((z1 - z0) / 1.7))
    door = int(rng.random() * panes)
    step = (z1 - z0 - 0.4) / panes
    dusk = facade.canvas.light.kind == "dusk"
    for i in range(panes - 1, -1, -1):
        a = z0 + 0.2 + i * step
        b = a + step - 0.12
        if b < 1.0:
            continue
        base = 0.1 if i == door else 0.55
        glass: Colour = (206, 172, 118) if dusk else (46, 50, 54)
        facade.glow(a + 0.06, b, base, 2.5, glass, (0.95, 0.95, 0.95))
        if facade.pixels(a, 1.0) > 14:
            for _ in range(5):
                z, wide, tall = uniform(rng, a + 0.1, b - 0.3), uniform(rng, 0.15, 0.45), uniform(rng, 0.2, 0.9)
                goods = pick(rng, FASCIAS + BRICKS)
                facade.glow(z, min(z + wide, b), base + 0.05, base + 0.05 + tall, goods, (0.55, 0.55, 0.55))
            facade.glow(a + 0.06, b, 2.2, 2.5, (90, 92, 94), (0.9, 0.9, 0.9))
    facade.rect(z0 + 0.05, z1 - 0.05, low, high, colour)
    if facade.pixels((z0 + z1) / 2, 0.3) > 4:
        letters, z = 5 + int(rng.random() * 6), z0 + (z1 - z0) * 0.2
        for _ in range(letters):
            wide = 0.14 + 0.14 * rng.random()
            if rng.random() > 0.14 and z > 1:
                facade.glow(z, z + wide * 0.7, low + 0.17, high - 0.2 + 0.06 * rng.random(), ink, fascia_light)
            z += wide + 0.06
    facade.rect(z0, z1, high, high + 0.1, scaled(TRIM, 0.85))
    if rng.random() < 0.22:
        reach = building.side * -1.1
        stripes = max(4, int((z1 - z0) / 0.5))
        for i in range(stripes - 1, -1, -1):
            a, b = z0 + 0.2 + (z1 - z0 - 0.4) * i / stripes, z0 + 0.2 + (z1 - z0 - 0.4) * (i + 1) / stripes
            cloth = colour if i % 2 else TRIM
            hem = facade.x + reach
            top: list[Point] = [(facade.x, 2.9, a), (facade.x, 2.9, b), (hem, 2.35, b), (hem, 2.35, a)]
            facade.canvas.face(top, cloth, BUILDING, facade.canvas.light.on(-0.5 * building.side, 0.6, -0.2))
    if rng.random() < 0.45 and z0 > 3:
        x = facade.x - building.side * 0.12
        edge = x - building.side * 0.75
        board: list[Point] = [(x, 2.9, z0 + 0.3), (x, 3.6, z0 + 0.3), (edge, 3.6, z0 + 0.3), (edge, 2.9, z0 + 0.3)]
        facade.canvas.face(board, pick(rng, FASCIAS), SIGN, facade.canvas.light.on(0, 0.1, -1))
