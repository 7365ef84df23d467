"""Draw one street: choose road, light and camera, paint the ground, furnish it, take the photograph."""

import math
from dataclasses import replace

import numpy as np

from training.streets.canvas import (
    CLUTTER,
    GRASS,
    PAVEMENT,
    ROAD,
    SUPERSAMPLING,
    Camera,
    Canvas,
    Colour,
    Light,
    pick,
    scaled,
    uniform,
)
from training.streets.film import develop, draw_sky
from training.streets.layout import FAR, Scene, Street, furnish

LIGHTS = {
    "overcast": Light(
        "overcast", (0.2, 0.95, -0.2), (0.86, 0.88, 0.92), (0.1, 0.1, 0.1), (190, 197, 206), (228, 231, 233), 330, 0.9
    ),
    "sun": Light("sun", (0, 1, 0), (0.56, 0.62, 0.74), (0.78, 0.7, 0.54), (112, 164, 224), (222, 232, 240), 520, 0.5),
    "dusk": Light("dusk", (0, 1, 0), (0.46, 0.46, 0.56), (0.22, 0.14, 0.06), (84, 98, 136), (240, 192, 146), 420, 0.55),
}


def draw_scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene number `seed`: picture (H, W, 3) and class ids (H, W), both uint8."""
    rng = np.random.default_rng((seed, 0))
    street, light = _choose_street(rng), _choose_light(rng)
    camera = _choose_camera(rng, street, height, width)
    sky = draw_sky(np.random.default_rng((seed, 2)), camera, light)
    scene = Scene(Canvas(camera, light, sky), street, seed, [], [])
    _draw_ground(scene, rng)
    furnish(scene, rng)
    scene.draw()
    _draw_bonnet(scene.canvas, rng)
    return develop(scene.canvas, np.random.default_rng((seed, 3)))


def _choose_street(rng: np.random.Generator) -> Street:
    character = pick(rng, ["high street", "high street", "terrace", "terrace", "suburb", "arterial"])
    parking = character != "arterial" and rng.random() < 0.55
    half_width = uniform(rng, 3.1, 4.2) + (1.9 if parking else 0.0)
    pavement = uniform(rng, 1.8, 3.2) + (0.8 if character == "high street" else 0.0)
    verge = uniform(rng, 1.0, 2.6) if character in ("suburb", "arterial") and rng.random() < 0.6 else 0.0
    return Street(character, half_width, pavement, verge, parking)


def _choose_light(rng: np.random.Generator) -> Light:
    kind = pick(rng, ["overcast"] * 4 + ["sun"] * 5 + ["dusk"] * 2)
    azimuth = uniform(rng, 0, 2 * math.pi)
    elevation = uniform(rng, 0.45, 1.0) if kind == "sun" else 0.25
    level = math.cos(elevation)
    sun = (level * math.cos(azimuth), math.sin(elevation), level * math.sin(azimuth))
    light = LIGHTS[kind]
    cover = min(1.0, max(0.0, light.cloud_cover + uniform(rng, -0.3, 0.2)))
    return replace(light, sun=light.sun if kind == "overcast" else sun, cloud_cover=cover)


def _choose_camera(rng: np.random.Generator, street: Street, height: int, width: int) -> Camera:
    focal = uniform(rng, 0.86, 1.08) * math.sqrt(4 / 3 * height * width) * SUPERSAMPLING
    curve = 0.0 if rng.random() < 0.45 else uniform(rng, -1, 1) * 0.0014
    x = -street.lane + uniform(rng, -0.5, 0.5)
    pitch, yaw = uniform(rng, -0.06, 0.035), uniform(rng, -0.1, 0.1)
    return Camera(height * SUPERSAMPLING, width * SUPERSAMPLING, x, uniform(rng, 1.45, 1.85), pitch, yaw, focal, curve)


def _draw_ground(scene: Scene, rng: np.random.Generator) -> None:
    canvas, street = scene.canvas, scene.street
    w, kerb = street.half_width, street.half_width + 0.16
    grass = pick(rng, [(86, 104, 56), (98, 110, 58), (80, 92, 54)])
    grey = uniform(rng, 78, 104)
    asphalt = (grey, grey + uniform(rng, -1, 2), grey + uniform(rng, 0, 6))
    paving = pick(rng, [(128, 124, 118), (112, 110, 108), (138, 130, 120), (100, 100, 102)])
    canvas.strip(-300, 300, 1.0, 900, grass, GRASS)
    for side in (-1, 1):
        canvas.strip(side * (w + street.verge), side * street.edge, 0.6, FAR, paving, PAVEMENT)
        canvas.strip(side * w, side * kerb, 0.6, FAR, (154, 152, 146), PAVEMENT)
    canvas.strip(-w, w, 0.6, FAR, asphalt, ROAD)
    for side in (-1, 1):
        canvas.strip(side * (w - 0.28), side * w, 0.6, FAR, scaled(asphalt, 0.86), ROAD)
    _draw_patches(scene, rng, asphalt)
    _draw_markings(scene, rng)


def _draw_patches(scene: Scene, rng: np.random.Generator, asphalt: Colour) -> None:
    canvas, w = scene.canvas, scene.street.half_width
    for _ in range(int(rng.random() * 5)):
        x, z = uniform(rng, -w, w - 1.2), 3 + 30 * float(rng.random()) ** 1.5
        shade = uniform(rng, 0.82, 1.12)
        wide, long = uniform(rng, 0.5, 1.4), uniform(rng, 1, 6)
        canvas.strip(x, min(x + wide, w), z, z + long, scaled(asphalt, shade), ROAD)
    for _ in range(int(rng.random() * 3)):
        x, z = uniform(rng, -w * 0.7, w * 0.7), uniform(rng, 5, 20)
        for radius, shade in ((0.36, 0.8), (0.3, 0.62)):
            disc = [(x + radius * math.cos(t * 0.4488), 0.0, z + radius * math.sin(t * 0.4488)) for t in range(14)]
            canvas.face(disc, scaled(asphalt, shade), ROAD, canvas.light.on(0, 1, 0))


def _draw_markings(scene: Scene, rng: np.random.Generator) -> None:
    canvas, street = scene.canvas, scene.street
    w = street.half_width
    wear = uniform(rng, 0.82, 1.0)
    white, yellow = (216 * wear, 216 * wear, 210 * wear), (204 * wear, 168 * wear, 66 * wear)
    dash, gap = pick(rng, [(2.0, 4.0), (4.0, 2.0), (3.0, 3.0)])
    z = 1.0 - float(rng.random()) * (dash + gap)
    while z < 110:
        if z + dash > 1:
            canvas.strip(-0.06, 0.06, max(z, 0.6), z + dash, white, ROAD)
        z += dash + gap
    edges = pick(rng, ["double yellow", "double yellow", "single yellow", "none"])
    for side in (-1, 1):
        offsets = {"double yellow": (0.3, 0.52), "single yellow": (0.34,), "none": ()}[edges]
        for offset in offsets if not street.parking else ():
            canvas.strip(side * (w - offset), side * (w - offset - 0.1), 0.6, FAR, yellow, ROAD)
        if street.parking and rng.random() < 0.5:
            canvas.strip(side * (w - 2.05), side * (w - 1.97), 0.6, FAR, white, ROAD)
    feature, z = rng.random(), uniform(rng, 8, 24)
    if feature < 0.22:
        stripes = int(2 * w / 1.1)
        for i in range(stripes):
            x = -w + 0.3 + i * (2 * w - 0.6) / stripes
            canvas.strip(x, x + 0.55, z, z + 2.8, white, ROAD)
    elif feature < 0.42:
        canvas.strip(-w + 0.2, -0.15, z, z + 0.3, white, ROAD)
    elif feature < 0.6:
        x = -street.lane
        light = canvas.light.on(0, 1, 0)
        canvas.strip(x - 0.08, x + 0.08, z, z + 2.6, white, ROAD)
        canvas.face([(x - 0.4, 0, z + 2.4), (x, 0, z + 4.2), (x + 0.4, 0, z + 2.4)], white, ROAD, light)


def _draw_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """The car's own bonnet at the lower edge of some pictures; unlabelled, as in CamVid."""
    if rng.random() > 0.3:
        return
    spread, reach = uniform(rng, 1.0, 1.5), uniform(rng, 0.03, 0.1)
    w, h = canvas.camera.width, canvas.camera.height
    crest, middle = h * (1 - reach), w * uniform(rng, 0.45, 0.75)
    arc = [(middle + t * w * 0.16 * spread, crest + h * 0.0035 * t * t) for t in range(-5, 6)]
    canvas.overlay([*arc, (w * 2, h * 2), (-w, h * 2)], (34, 36, 40), CLUTTER)
    canvas.overlay([*arc, *((x, y + h * 0.006) for x, y in reversed(arc))], (120, 124, 132), CLUTTER)
