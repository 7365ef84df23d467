"""Draw one street: choose road, light and camera, paint the ground, furnish it, take the photograph."""

import math
from dataclasses import replace
from random import Random

import numpy as np

from training.streets.camera import SUPERSAMPLING, Camera, Colour, Light, scaled
from training.streets.canvas import CLUTTER, GRASS, PAVEMENT, ROAD, UPWARDS, Canvas
from training.streets.film import develop, draw_sky
from training.streets.layout import FAR, Scene, Street, furnish

LIGHTS = [
    Light(
        kind="overcast", sun=(0.2, 0.95, -0.2), ambient=(0.86, 0.88, 0.92), direct=(0.1, 0.1, 0.1),
        zenith=(190, 197, 206), horizon=(228, 231, 233), clouds=(232, 234, 236), cloud_cover=0.9,
        haze_distance=330, exposure=(84, 118),
    ),
    Light(
        kind="sun", sun=(0, 1, 0), ambient=(0.56, 0.62, 0.74), direct=(0.78, 0.7, 0.54),
        zenith=(112, 164, 224), horizon=(222, 232, 240), clouds=(246, 247, 248), cloud_cover=0.5,
        haze_distance=520, exposure=(88, 124),
    ),
    Light(
        kind="dusk", sun=(0, 1, 0), ambient=(0.46, 0.46, 0.56), direct=(0.22, 0.14, 0.06),
        zenith=(84, 98, 136), horizon=(240, 192, 146), clouds=(226, 168, 140), cloud_cover=0.55,
        haze_distance=420, exposure=(60, 92),
    ),
]  # fmt: skip


def draw_scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene number `seed`: picture (H, W, 3) and class ids (H, W), both uint8."""
    rng, noise = Random(seed), np.random.default_rng(seed)
    street, light = _choose_street(rng), _choose_light(rng)
    camera = _choose_camera(rng, street, height, width)
    scene = Scene(Canvas(camera, light, draw_sky(noise, camera, light)), street, seed)
    _draw_ground(scene.canvas, street, rng)
    _draw_markings(scene.canvas, street, rng)
    furnish(scene, rng)
    scene.draw()
    if rng.random() < 0.3:
        _draw_bonnet(scene.canvas, rng)
    return develop(scene.canvas, noise)


def _choose_street(rng: Random) -> Street:
    character = rng.choice(["high street", "high street", "terrace", "terrace", "suburb", "arterial"])
    parking = character != "arterial" and rng.random() < 0.55
    half_width = rng.uniform(3.1, 4.2) + (1.9 if parking else 0.0)
    pavement = rng.uniform(1.8, 3.2) + (0.8 if character == "high street" else 0.0)
    verge = rng.uniform(1.0, 2.6) if character in ("suburb", "arterial") and rng.random() < 0.6 else 0.0
    return Street(character, half_width, pavement, verge, parking)


def _choose_light(rng: Random) -> Light:
    light = rng.choices(LIGHTS, (4, 5, 2))[0]
    cover = min(1.0, max(0.0, light.cloud_cover + rng.uniform(-0.3, 0.2)))
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.0) if light.kind == "sun" else 0.25
    level = math.cos(elevation)
    sun = (level * math.cos(azimuth), math.sin(elevation), level * math.sin(azimuth))
    return replace(light, sun=light.sun if light.kind == "overcast" else sun, cloud_cover=cover)


def _choose_camera(rng: Random, street: Street, height: int, width: int) -> Camera:
    return Camera(
        height=height * SUPERSAMPLING,
        width=width * SUPERSAMPLING,
        x=-street.lane + rng.uniform(-0.5, 0.5),
        eye_height=rng.uniform(1.45, 1.85),
        pitch=rng.uniform(-0.06, 0.035),
        yaw=rng.uniform(-0.1, 0.1),
        focal=rng.uniform(0.86, 1.08) * math.sqrt(4 / 3 * height * width) * SUPERSAMPLING,
        curve=rng.choice([0.0, rng.uniform(-0.0014, 0.0014)]),
    )


def _draw_ground(canvas: Canvas, street: Street, rng: Random) -> None:
    w, grey = street.half_width, rng.uniform(78, 104)
    asphalt: Colour = (grey, grey + rng.uniform(-1, 2), grey + rng.uniform(0, 6))
    paving = rng.choice([(128, 124, 118), (112, 110, 108), (138, 130, 120), (100, 100, 102)])
    canvas.strip(-300, 300, 1.0, 900, rng.choice([(86, 104, 56), (98, 110, 58), (80, 92, 54)]), GRASS)
    for side in (-1, 1):
        canvas.strip(side * (w + street.verge), side * street.edge, 0.6, FAR, paving, PAVEMENT)
        canvas.strip(side * w, side * (w + 0.16), 0.6, FAR, (154, 152, 146), PAVEMENT)
    canvas.strip(-w, w, 0.6, FAR, scaled(asphalt, 0.86), ROAD)
    canvas.strip(0.28 - w, w - 0.28, 0.6, FAR, asphalt, ROAD)
    for _ in range(rng.randint(0, 4)):
        x, z = rng.uniform(-w, w - 1.2), rng.uniform(3, 25)
        patch = scaled(asphalt, rng.uniform(0.82, 1.12))
        canvas.strip(x, x + rng.uniform(0.5, 1.2), z, z + rng.uniform(1, 6), patch, ROAD)


def _draw_markings(canvas: Canvas, street: Street, rng: Random) -> None:
    w, wear = street.half_width, rng.uniform(0.82, 1.0)
    white, yellow = scaled((216, 216, 210), wear), scaled((204, 168, 66), wear)
    dash, gap = rng.choice([(2.0, 4.0), (4.0, 2.0), (3.0, 3.0)])
    z = rng.uniform(0.6, dash)
    while z < 110:
        canvas.strip(-0.06, 0.06, z, z + dash, white, ROAD)
        z += dash + gap
    lines = [(w - 2.05, white)] if street.parking else [(w - 0.4, yellow), (w - 0.62, yellow)]
    for x, colour in lines[: rng.randint(0, 2)]:
        for side in (-1, 1):
            canvas.strip(side * x, side * (x + 0.1), 0.6, FAR, colour, ROAD)
    feature, z = rng.choice(["zebra crossing", "stop line", "arrow", "none", "none"]), rng.uniform(8, 24)
    if feature == "zebra crossing":
        for i in range(int(2 * w / 1.1)):
            canvas.strip(0.3 - w + 1.1 * i, 0.85 - w + 1.1 * i, z, z + 2.8, white, ROAD)
    elif feature == "stop line":
        canvas.strip(0.2 - w, -0.15, z, z + 0.3, white, ROAD)
    elif feature == "arrow":
        x = -street.lane
        canvas.strip(x - 0.08, x + 0.08, z, z + 2.6, white, ROAD)
        canvas.face([(x - 0.4, 0, z + 2.4), (x, 0, z + 4.2), (x + 0.4, 0, z + 2.4)], white, ROAD, UPWARDS)


def _draw_bonnet(canvas: Canvas, rng: Random) -> None:
    """The car's own bonnet at the lower edge of the picture; unlabelled, as in CamVid."""
    w, h = canvas.camera.width, canvas.camera.height
    crest, middle, spread = h * rng.uniform(0.9, 0.97), w * rng.uniform(0.45, 0.75), w * rng.uniform(0.16, 0.24)
    arc = [(middle + t * spread, crest + h * 0.0035 * t * t) for t in range(-5, 6)]
    for lower, colour in ((0.0, (120, 124, 132)), (0.006, (34, 36, 40))):
        canvas.fill([*((x, y + h * lower) for x, y in arc), (w * 2, h * 2), (-w, h * 2)], colour, CLUTTER)
