"""The camera, the light and the double canvas (picture and label map) on which a street is drawn.

Street coordinates are metres: x across the road (right is positive, 0 its middle), y up, z along the road from the
camera. A bend moves every point sideways by `curve * z**2`, so whatever stands along the road follows it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float, float]
Pixel = tuple[float, float]
Colour = tuple[float, float, float]
T = TypeVar("T")

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
# Materials that need a texture of their own are drawn under their own code and become a class only at the end.
WALL, LEAVES, GRASS, CLUTTER = 11, 12, 13, 14
CODE_TO_LABEL = np.array([*range(11), BUILDING, TREE, TREE, 255], np.uint8)
GROUND_CODES = (ROAD, PAVEMENT, GRASS)

NEAR = 0.6
SUPERSAMPLING = 2


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of the choices, drawn the same way under every version of numpy."""
    return choices[int(rng.random() * len(choices))]


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return r * factor, g * factor, b * factor


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at (x, eye_height, 0), turned by yaw and pitch (radians), focal length in pixels."""

    height: int
    width: int
    x: float
    eye_height: float
    pitch: float
    yaw: float
    focal: float
    curve: float

    @cached_property
    def _turn(self) -> tuple[float, float, float, float]:
        return math.sin(self.yaw), math.cos(self.yaw), math.sin(self.pitch), math.cos(self.pitch)

    def to_view(self, point: Point) -> Point:
        """Street coordinates to (right, down, forward) metres as the camera sees them."""
        dx, dy, dz = point[0] + self.curve * point[2] * point[2] - self.x, point[1] - self.eye_height, point[2]
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = self._turn
        right, ahead = cos_yaw * dx - sin_yaw * dz, sin_yaw * dx + cos_yaw * dz
        return right, -(cos_pitch * dy - sin_pitch * ahead), sin_pitch * dy + cos_pitch * ahead

    def project(self, points: Sequence[Point]) -> list[Pixel]:
        """Project a polygon to pixels, cut off at the near plane; empty if all of it lies behind."""
        view = [self.to_view(point) for point in points]
        if min(point[2] for point in view) < NEAR:
            view = _clip_near(view)
        cx, cy, focal = self.width / 2, self.height / 2, self.focal
        return [(cx + focal * right / ahead, cy + focal * down / ahead) for right, down, ahead in view]

    def pixels_per_metre(self, z: float) -> float:
        return self.focal / max(z, NEAR)

    def rays(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directions (right, up, along) in street axes through the centre of each `step` x `step` block of pixels."""
        right = ((np.arange(self.width // step) + 0.5) * step - self.width / 2)[None, :] / self.focal
        down = ((np.arange(self.height // step) + 0.5) * step - self.height / 2)[:, None] / self.focal
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = self._turn
        up = sin_pitch - cos_pitch * down
        ahead = cos_pitch + sin_pitch * down
        shape = (self.height // step, self.width // step)
        across, along = cos_yaw * right + sin_yaw * ahead, np.maximum(cos_yaw * ahead - sin_yaw * right, 0.01)
        rays = (np.broadcast_to(ray.astype(np.float32), shape) for ray in (across, up, along))
        return next(rays), next(rays), next(rays)


def _clip_near(view: list[Point]) -> list[Point]:
    clipped: list[Point] = []
    for a, b in zip(view, view[1:] + view[:1], strict=True):
        if a[2] >= NEAR:
            clipped.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            t = (NEAR - a[2]) / (b[2] - a[2])
            clipped.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), NEAR))
    return clipped


@dataclass(frozen=True)
class Light:
    """Sky light from everywhere plus a sun from one direction, and the haze that distance adds.

    `sun` points from the scene to the sun (unit length); `ambient` and `direct` are RGB factors on a surface's colour.
    """

    kind: str
    sun: Point
    ambient: Colour
    direct: Colour
    zenith: Colour
    horizon: Colour
    haze_distance: float
    cloud_cover: float

    def on(self, nx: float, ny: float, nz: float, shadow: float = 0.0) -> Colour:
        """RGB factor on a surface with this normal; `shadow` from 0 (open) to 1 (the sun is hidden)."""
        sun = max(0.0, nx * self.sun[0] + ny * self.sun[1] + nz * self.sun[2]) * (1 - shadow)
        sky = 0.82 + 0.18 * ny
        r, g, b = (sky * a + sun * d for a, d in zip(self.ambient, self.direct, strict=True))
        return r, g, b

    def haze(self, z: float) -> float:
        return max(z, 0.0) / (max(z, 0.0) + self.haze_distance)


class Canvas:
    """Picture and label map drawn in lockstep, from far to near, at twice the final resolution."""

    def __init__(self, camera: Camera, light: Light, sky: Image.Image) -> None:
        self.camera, self.light = camera, light
        size = (camera.width, camera.height)
        self.picture = sky.resize(size, Image.Resampling.BILINEAR)
        self.codes = Image.new("L", size, SKY)
        self.shadows = Image.new("L", (size[0] // SUPERSAMPLING, size[1] // SUPERSAMPLING), 0)
        self._sunless = Image.new("L", self.shadows.size, 0)
        self._draw = ImageDraw.Draw(self.picture)
        self._draw_codes = ImageDraw.Draw(self.codes)
        self._draw_shadows = ImageDraw.Draw(self.shadows)
        self._draw_sunless = ImageDraw.Draw(self._sunless)

    def tone(self, colour: Colour, light: Colour, z: float) -> tuple[int, int, int]:
        haze = self.light.haze(z)
        clear, horizon = 1 - haze, self.light.horizon
        r = int(colour[0] * light[0] * clear + horizon[0] * haze)
        g = int(colour[1] * light[1] * clear + horizon[1] * haze)
        b = int(colour[2] * light[2] * clear + horizon[2] * haze)
        return min(255, r), min(255, g), min(255, b)

    def face(self, points: Sequence[Point], colour: Colour, code: int, light: Colour) -> None:
        """Fill a polygon given in street coordinates."""
        pixels = self.camera.project(points)
        if len(pixels) >= 3 and self._in_picture(pixels):
            z = 0.0 if code in GROUND_CODES else sum(point[2] for point in points) / len(points)
            self._draw.polygon(pixels, self.tone(colour, light, z))
            self._draw_codes.polygon(pixels, code)

    def _in_picture(self, pixels: Sequence[Pixel]) -> bool:
        columns = [pixel[0] for pixel in pixels]
        return min(columns) < self.camera.width and max(columns) >= 0

    def strip(self, x0: float, x1: float, z0: float, z1: float, colour: Colour, code: int) -> None:
        """Fill the ground between x0 and x1 from z0 to z1, along the bend."""
        stations = [z0]
        while stations[-1] < z1:
            step = max(2.0, stations[-1] * 0.2) if self.camera.curve else z1 - z0
            stations.append(min(z1, stations[-1] + step))
        outline: list[Point] = [(x0, 0.0, z) for z in stations] + [(x1, 0.0, z) for z in reversed(stations)]
        self.face(outline, colour, code, self.light.on(0.0, 1.0, 0.0))

    def mark(self, points: Sequence[Point], code: int) -> None:
        """Label a polygon and leave the picture as it is: what one sees through a railing counts as railing."""
        pixels = self.camera.project(points)
        if len(pixels) >= 3:
            self._draw_codes.polygon(pixels, code)

    def overlay(self, pixels: Sequence[Pixel], colour: tuple[int, int, int], code: int) -> None:
        """Fill a polygon given in pixels of the canvas."""
        self._draw.polygon(list(pixels), colour)
        self._draw_codes.polygon(list(pixels), code)

    def limb(self, start: Point, end: Point, thickness: float, colour: Colour, code: int, light: Colour) -> None:
        """A round bar from start to end, `thickness` in metres."""
        pixels = self.camera.project([start, end])
        if len(pixels) != 2 or min(start[2], end[2]) < NEAR:
            return
        (x0, y0), (x1, y1) = pixels
        if not self._in_picture(pixels):
            return
        radius = max(0.5, thickness / 2 * self.camera.pixels_per_metre((start[2] + end[2]) / 2))
        length = math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2) or 1.0
        nx, ny = (y1 - y0) / length * radius, (x0 - x1) / length * radius
        fill = self.tone(colour, light, start[2])
        for draw, value in ((self._draw, fill), (self._draw_codes, code)):
            draw.polygon([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)], value)
            if radius > 1.2:
                for x, y in pixels:
                    draw.ellipse((x - radius, y - radius, x + radius, y + radius), value)

    def ball(self, centre: Point, rx: float, ry: float, colour: Colour, code: int, light: Colour) -> None:
        """An upright ellipse that faces the camera, radii in metres."""
        pixels = self.camera.project([centre])
        if pixels and centre[2] > NEAR:
            scale = self.camera.pixels_per_metre(centre[2])
            x, y = pixels[0]
            box = (x - rx * scale, y - ry * scale, x + rx * scale, y + ry * scale)
            if not self._in_picture((box[:2], box[2:])):
                return
            self._draw.ellipse(box, self.tone(colour, light, centre[2]))
            self._draw_codes.ellipse(box, code)

    def cast(self, footprint: Sequence[Pixel], bottom: float, top: float, on_things: bool = False) -> None:
        """Shadow on the ground, and if asked on things, of a prism over `footprint` (x, z) from bottom to top."""
        sun_x, sun_y, sun_z = self.light.sun
        if self.light.kind != "sun":
            return
        slope_x, slope_z = -sun_x / sun_y, -sun_z / sun_y
        low = [(x + slope_x * bottom, 0.0, z + slope_z * bottom) for x, z in footprint]
        high = [(x + slope_x * top, 0.0, z + slope_z * top) for x, z in footprint]
        sides = [[low[i - 1], low[i], high[i], high[i - 1]] for i in range(len(footprint))]
        for face in (*sides, high):
            self._shade(face, 235)
            if on_things:
                self._fill(self._draw_sunless, face, 1)

    def contact(self, footprint: Sequence[Pixel], strength: int = 215) -> None:
        """The dark ground under a thing, whatever the weather."""
        self._shade([(x, 0.0, z) for x, z in footprint], strength)

    def _shade(self, points: Sequence[Point], strength: int) -> None:
        self._fill(self._draw_shadows, points, strength)

    def _fill(self, draw: ImageDraw.ImageDraw, points: Sequence[Point], value: int) -> None:
        pixels = self.camera.project(points)
        if len(pixels) >= 3:
            draw.polygon([(x / SUPERSAMPLING, y / SUPERSAMPLING) for x, y in pixels], value)

    def sees(self, x: float, z: float, radius: float) -> bool:
        """Whether something within `radius` metres of (x, z) can appear in the picture."""
        right, _, ahead = self.camera.to_view((x, 0.0, z))
        reach = self.camera.width / 2 / self.camera.focal * max(ahead, 0.0)
        return ahead > -radius and abs(right) < reach + 1.2 * radius + NEAR

    def shadow_at(self, x: float, z: float) -> float:
        """1 if a building hides the sun from the ground at (x, z), else 0; 0 outside the picture."""
        pixels = self.camera.project([(x, 0.0, z)])
        if not pixels:
            return 0.0
        column, row = (int(value / SUPERSAMPLING) for value in pixels[0])
        inside = 0 <= column < self._sunless.width and 0 <= row < self._sunless.height
        return float(inside and self._sunless.getpixel((column, row)) == 1)
