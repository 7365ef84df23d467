"""The double canvas, picture and label map, on which a street is drawn, and the map of the shadows on its ground."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from training.streets.camera import NEAR, SUPERSAMPLING, Camera, Colour, Light, Pixel, Point

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
# Materials that need a texture of their own are drawn under their own code and become a class only at the end.
WALL, LEAVES, GRASS, CLUTTER = 11, 12, 13, 14
CODE_TO_LABEL = np.array([*range(11), BUILDING, TREE, TREE, 255], np.uint8)
GROUND_CODES = (ROAD, PAVEMENT, GRASS)

CAST_SHADOW = 235
UPWARDS: Point = (0.0, 1.0, 0.0)
TOWARDS_CAMERA: Point = (-0.2, 0.25, -0.95)


class Canvas:
    """Picture and label map drawn in lockstep, from far to near, at twice the final resolution.

    Shapes are in street coordinates and metres. Their colours are those under white light; the light of the scene
    falls on the side given by `normal`, and where that is None the colour shines by itself. `shadow` is the share of
    the sun, 0 to 1, that is hidden from what is being drawn.
    """

    def __init__(self, camera: Camera, light: Light, sky: Image.Image) -> None:
        self.camera, self.light, self.shadow = camera, light, 0.0
        self.picture = sky.resize((camera.width, camera.height), Image.Resampling.BILINEAR)
        self.codes = Image.new("L", self.picture.size, SKY)
        self.shadows = Image.new("L", (camera.width // SUPERSAMPLING, camera.height // SUPERSAMPLING), 0)
        self._draw, self._draw_codes = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.codes)
        self._draw_shadows = ImageDraw.Draw(self.shadows)

    def _tone(self, colour: Colour, normal: Point | None, z: float) -> tuple[int, int, int]:
        light = self.light.on(normal, self.shadow) if normal else (1.0, 1.0, 1.0)
        haze = self.light.haze(z)
        pairs = zip(colour, light, self.light.horizon, strict=True)
        r, g, b = (min(255, int(own * lit * (1 - haze) + far * haze)) for own, lit, far in pairs)
        return r, g, b

    def fill(self, pixels: Sequence[Pixel], colour: tuple[int, int, int] | None, code: int) -> None:
        """Fill a polygon given in pixels of the canvas; without a colour only its label."""
        columns = [pixel[0] for pixel in pixels]
        if len(pixels) >= 3 and min(columns) < self.camera.width and max(columns) >= 0:
            if colour:
                self._draw.polygon(pixels, colour)
            self._draw_codes.polygon(pixels, code)

    def face(
        self, points: Sequence[Point], colour: Colour | None, code: int, normal: Point | None = TOWARDS_CAMERA
    ) -> None:
        """Fill a polygon; without a colour only its label: what one sees through a railing counts as railing."""
        z = 0.0 if code in GROUND_CODES else sum(point[2] for point in points) / len(points)
        self.fill(self.camera.project(points), self._tone(colour, normal, z) if colour else None, code)

    def strip(self, x0: float, x1: float, z0: float, z1: float, colour: Colour, code: int) -> None:
        """Fill the ground between x0 and x1 from z0 to z1, along the bend."""
        stations = [z0]
        while stations[-1] < z1:
            step = max(2.0, stations[-1] * 0.2) if self.camera.curve else z1 - z0
            stations.append(min(z1, stations[-1] + step))
        outline = [(x0, 0.0, z) for z in stations] + [(x1, 0.0, z) for z in reversed(stations)]
        self.face(outline, colour, code, UPWARDS)

    def limb(
        self, start: Point, end: Point, thickness: float, colour: Colour, code: int,
        normal: Point | None = TOWARDS_CAMERA,
    ) -> None:  # fmt: skip
        """A round bar from start to end."""
        if min(start[2], end[2]) < NEAR or len(pixels := self.camera.project([start, end])) != 2:
            return
        (x0, y0), (x1, y1) = pixels
        radius = max(0.5, thickness / 2 * self.camera.pixels_per_metre((start[2] + end[2]) / 2))
        angle = math.atan2(y1 - y0, x1 - x0)
        cap = [(radius * math.cos(angle + t), radius * math.sin(angle + t)) for t in (-1.57, -0.79, 0.0, 0.79, 1.57)]
        outline = [(x1 + dx, y1 + dy) for dx, dy in cap] + [(x0 - dx, y0 - dy) for dx, dy in cap]
        self.fill(outline, self._tone(colour, normal, start[2]), code)

    def ball(
        self, centre: Point, rx: float, ry: float, colour: Colour, code: int, normal: Point = TOWARDS_CAMERA
    ) -> None:
        """An upright ellipse with the radii rx and ry."""
        for x, y in self.camera.project([centre]):
            scale = self.camera.pixels_per_metre(centre[2])
            box = (x - rx * scale, y - ry * scale, x + rx * scale, y + ry * scale)
            self._draw.ellipse(box, self._tone(colour, normal, centre[2]))
            self._draw_codes.ellipse(box, code)

    def cast(self, footprint: Sequence[Pixel], bottom: float, top: float) -> None:
        """The sun's shadow on the ground of a prism over `footprint` (x, z) from bottom to top."""
        if self.light.kind != "sun":
            return
        sun_x, sun_y, sun_z = self.light.sun
        low, high = ([(x - sun_x / sun_y * y, z - sun_z / sun_y * y) for x, z in footprint] for y in (bottom, top))
        for i in range(len(footprint)):
            self.shade([low[i - 1], low[i], high[i], high[i - 1]], CAST_SHADOW)
        self.shade(high, CAST_SHADOW)

    def shade(self, outline: Sequence[Pixel], strength: int) -> None:
        """Darken the ground within `outline` (x, z), by 0 to 255."""
        pixels = self.camera.project((x, 0.0, z) for x, z in outline)
        if len(pixels) >= 3:
            self._draw_shadows.polygon([(x / SUPERSAMPLING, y / SUPERSAMPLING) for x, y in pixels], strength)

    def shadow_at(self, x: float, z: float) -> float:
        """1 if the sun is hidden from the ground at (x, z), else 0; 0 outside the picture."""
        for across, down in self.camera.project([(x, 0.0, z)]):
            column, row = int(across / SUPERSAMPLING), int(down / SUPERSAMPLING)
            if 0 <= column < self.shadows.width and 0 <= row < self.shadows.height:
                return float(self.shadows.getpixel((column, row)) == CAST_SHADOW)
        return 0.0
