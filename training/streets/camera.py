"""The camera and the light of a street.

Street coordinates are metres: x across the road (right is positive, 0 its middle), y up, z along the road from the
camera. A bend moves every point sideways by `curve * z**2`, so whatever stands along the road follows it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Point = tuple[float, float, float]
Pixel = tuple[float, float]
Colour = tuple[float, float, float]

NEAR = 0.6
# Pixels of the canvas per pixel of the picture, along each side.
SUPERSAMPLING = 2


def scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return r * factor, g * factor, b * factor


def placed(points: Iterable[Point], x: float, z: float, heading: float) -> list[Point]:
    """From a thing's own axes (along, up, across) to the street, for a thing at (x, z).

    `heading` is in radians: 0 looks away from the camera, pi towards it.
    """
    sin, cos = math.sin(heading), math.cos(heading)
    return [(x + across * cos + along * sin, up, z + along * cos - across * sin) for along, up, across in points]


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

    def project(self, points: Iterable[Point]) -> list[Pixel]:
        """Project a polygon to pixels, cut off at the near plane; empty if all of it lies behind."""
        view = _clip_near([self.to_view(point) for point in points])
        cx, cy, focal = self.width / 2, self.height / 2, self.focal
        return [(cx + focal * right / ahead, cy + focal * down / ahead) for right, down, ahead in view]

    def pixels_per_metre(self, z: float) -> float:
        return self.focal / max(z, NEAR)

    def sees(self, x: float, z: float, radius: float) -> bool:
        """Whether something within `radius` metres of (x, z) can appear in the picture."""
        right, _, ahead = self.to_view((x, 0.0, z))
        reach = self.width / 2 / self.focal * max(ahead, 0.0)
        return ahead > -radius and abs(right) < reach + 1.2 * radius + NEAR

    def rays(self, step: int) -> tuple[np.ndarray, ...]:
        """Directions (right, up, along) in street axes through the centre of each `step` x `step` block of pixels."""
        right = ((np.arange(self.width // step) + 0.5) * step - self.width / 2)[None, :] / self.focal
        down = ((np.arange(self.height // step) + 0.5) * step - self.height / 2)[:, None] / self.focal
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = self._turn
        up = sin_pitch - cos_pitch * down
        ahead = cos_pitch + sin_pitch * down
        across, along = cos_yaw * right + sin_yaw * ahead, np.maximum(cos_yaw * ahead - sin_yaw * right, 0.01)
        return tuple(np.broadcast_to(ray.astype(np.float32), across.shape) for ray in (across, up, along))


def _clip_near(view: list[Point]) -> list[Point]:
    if all(point[2] >= NEAR for point in view):
        return view
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
    `exposure` is the range of grey levels to which a camera brings everything but the sky.
    """

    kind: str
    sun: Point
    ambient: Colour
    direct: Colour
    zenith: Colour
    horizon: Colour
    clouds: Colour
    cloud_cover: float
    haze_distance: float
    exposure: tuple[float, float]

    def on(self, normal: Point, shadow: float) -> Colour:
        """RGB factor on a surface with this normal; `shadow` from 0 (open) to 1 (the sun is hidden)."""
        facing = max(0.0, sum(a * b for a, b in zip(normal, self.sun, strict=True))) * (1 - shadow)
        sky = 0.82 + 0.18 * normal[1]
        r, g, b = (sky * ambient + facing * direct for ambient, direct in zip(self.ambient, self.direct, strict=True))
        return r, g, b

    def haze(self, z: float) -> float:
        return max(z, 0.0) / (max(z, 0.0) + self.haze_distance)
