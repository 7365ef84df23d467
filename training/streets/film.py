"""From canvas to photograph: the sky behind it, textures, shadows on the ground, haze, lens, sensor and compression."""

import numpy as np
from PIL import Image, ImageFilter

from training.streets.camera import SUPERSAMPLING, Camera, Light
from training.streets.canvas import CODE_TO_LABEL, GRASS, GROUND_CODES, LEAVES, PAVEMENT, SKY, WALL, Canvas


def _value_noise(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise in -1..1 at coordinates x, y, from a table of random values (a power of two square)."""
    size = table.shape[0]
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    i, j = x0.astype(np.int32) & (size - 1), y0.astype(np.int32) & (size - 1)
    i1, j1 = (i + 1) & (size - 1), (j + 1) & (size - 1)
    top = table[j, i] * (1 - fx) + table[j, i1] * fx
    bottom = table[j1, i] * (1 - fx) + table[j1, i1] * fx
    return (top * (1 - fy) + bottom * fy) * 2 - 1


def draw_sky(rng: np.random.Generator, camera: Camera, light: Light) -> Image.Image:
    """Sky and clouds over the whole picture, at half of its final resolution: nothing in it is sharp."""
    across, up, along = camera.rays(4)
    elevation = np.maximum(up / along, 0.0)
    mix = np.minimum(1.0, elevation * 2.2)[..., None]
    mix = mix * (2 - mix)
    sky = np.asarray(light.horizon, np.float32) * (1 - mix) + np.asarray(light.zenith, np.float32) * mix
    table = rng.random((64, 64), np.float32)
    x, y = across / along / (elevation + 0.18), 1.0 / (elevation + 0.18)
    clouds = sum(_value_noise(table, x * f + 7 * f, y * f * 1.3) / f**0.8 for f in (1.0, 2.1, 4.3, 8.7)) / 1.9
    density = np.clip((clouds + light.cloud_cover * 1.5 - 0.9) * 1.7, 0.0, 1.0)[..., None]
    shade = 1 - 0.3 * np.clip(clouds + 0.2, 0.0, 1.0)[..., None] * density
    sky = sky * (1 - density * 0.9) + np.asarray(light.clouds, np.float32) * shade * density * 0.9
    return Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))


def _majority(codes: np.ndarray) -> np.ndarray:
    """The commonest code of each 2 x 2 block (the first among equals)."""
    a, b, c, d = codes[::2, ::2], codes[::2, 1::2], codes[1::2, ::2], codes[1::2, 1::2]
    return np.where((b == c) | (b == d), b, np.where(c == d, c, a))


def develop(canvas: Canvas, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Texture the materials, lay the shadows on the ground, add haze, then lens, sensor and compression."""
    camera = canvas.camera
    codes = _majority(np.asarray(canvas.codes))
    picture = np.asarray(canvas.picture.reduce(SUPERSAMPLING)).astype(np.float32)
    _texture_ground(canvas, codes, picture, rng)
    _texture_walls(camera, codes, picture, rng)
    _texture_leaves(codes, picture, rng)
    # Whole numbers add up alike on every machine; floats need not.
    level = np.clip(picture, 0, 255).astype(np.uint8)[codes != SKY].mean()
    # Dash cameras meter everything but the sky: their skies are often white.
    exposure = float(np.clip(rng.uniform(*canvas.light.exposure) / level, 0.75, 1.7))
    return _photograph(picture, exposure, canvas.light, rng), CODE_TO_LABEL[codes]


def _texture_ground(canvas: Canvas, codes: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> None:
    camera, light = canvas.camera, canvas.light
    ground = np.isin(codes, GROUND_CODES)
    across, up, along = (ray[ground] for ray in camera.rays(SUPERSAMPLING))
    reach = camera.eye_height / np.maximum(-up, 0.004)
    z = reach * along
    x = camera.x + reach * across - camera.curve * z * z
    kind = codes[ground]
    near = 1 / (1 + z * z * 0.004)
    table, grain = rng.random((64, 64), np.float32), rng.random(z.size, np.float32) * 2 - 1
    coarse = _value_noise(table, x * 0.5, z * 0.11)
    fine = _value_noise(table, x * 3.1, z * 2.3)
    tracks = 1 / (1 + 9 * (abs(abs(x) - 1.9) - 0.75) ** 2)
    texture = 1 + 0.08 * coarse + near * (0.05 * fine + 0.1 * grain) - 0.06 * tracks
    slab_x, slab_z = x / 0.62, z / 0.92
    joint = ((slab_x - np.floor(slab_x)) < 0.05) | ((slab_z - np.floor(slab_z)) < 0.04)
    slab = table[np.floor(slab_z).astype(np.int32) % 64, np.floor(slab_x).astype(np.int32) % 64] - 0.5
    paving = 1 + 0.05 * coarse + near * (0.16 * slab + 0.05 * grain - 0.22 * joint)
    grass = 1 + 0.16 * coarse + (0.15 + 0.25 * near) * grain + 0.16 * fine
    texture = np.where(kind == PAVEMENT, paving, np.where(kind == GRASS, grass, texture))
    shadow = np.asarray(canvas.shadows.filter(ImageFilter.GaussianBlur(1.0)))[ground] / np.float32(255)
    texture *= 1 - 0.6 * shadow
    haze = (z / (z + light.haze_distance))[:, None]
    picture[ground] = picture[ground] * texture[:, None] * (1 - haze) + np.asarray(light.horizon, np.float32) * haze


def _texture_walls(camera: Camera, codes: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> None:
    walls = codes == WALL
    across, up, along = (ray[walls] for ray in camera.rays(SUPERSAMPLING))
    reach = 7.0 / np.maximum(abs(across), 0.02)
    y, z = camera.eye_height + reach * up, reach * along
    near = 1 / (1 + z * z * 0.006)
    table = rng.random((64, 64), np.float32)
    course = np.floor(y / 0.15)
    brick = table[course.astype(np.int32) % 64, np.floor(z / 0.45 + course * 0.5).astype(np.int32) % 64] - 0.5
    stain = _value_noise(table, z * 0.4, y * 0.7)
    picture[walls] *= (1 + 0.2 * near * brick + 0.06 * stain + 0.04 * (rng.random(z.size, np.float32) - 0.5))[:, None]


def _texture_leaves(codes: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> None:
    rows, columns = np.nonzero(codes == LEAVES)
    table = rng.random((64, 64), np.float32)
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    clumps = _value_noise(table, x * 0.43 + y * 0.17, y * 0.47 - x * 0.13)
    picture[rows, columns] *= (1 + 0.24 * clumps + 0.3 * (rng.random(rows.size, np.float32) - 0.5))[:, None]


def _photograph(picture: np.ndarray, exposure: float, light: Light, rng: np.random.Generator) -> np.ndarray:
    h, w = picture.shape[:2]
    warmth = rng.uniform(-0.05, 0.05)
    rows, columns = (np.arange(h)[:, None] + 0.5) / h - 0.5, (np.arange(w)[None, :] + 0.5) / w - 0.5
    vignette = 1 - rng.uniform(0.05, 0.35) * (rows * rows + columns * columns)
    gain = np.asarray([exposure * (1 + warmth), exposure, exposure * (1 - warmth)], np.float32)
    picture = picture * (vignette.astype(np.float32)[..., None] * gain)
    noise = rng.random(picture.shape, np.float32) + rng.random((h, w, 1), np.float32) - 1
    picture += noise * np.float32(rng.uniform(1.5, 6.5) * (1.5 if light.kind == "dusk" else 1.0))
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.25, 0.6)))
    # Chroma at half resolution is what a JPEG camera keeps; done by hand, since codecs differ between machines.
    luma, *chroma = image.convert("YCbCr").split()
    small = ((w + 1) // 2, (h + 1) // 2)
    chroma = [band.resize(small, Image.Resampling.BOX).resize((w, h), Image.Resampling.BILINEAR) for band in chroma]
    contrast = rng.uniform(0.0, 0.3)
    curve = [round(255 * ((1 - contrast) * t + contrast * t * t * (3 - 2 * t))) for t in (i / 255 for i in range(256))]
    return np.asarray(Image.merge("YCbCr", (luma.point(curve), *chroma)).convert("RGB"))
