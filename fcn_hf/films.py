"""Films, frame by frame: a film in, a film of its masks out, in memory for one frame."""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .errors import FCNError, in_one_line
from .files import write_aside
from .palettes import overlay
from .prediction import WHOLE_PICTURE, InferenceMode, predict

# What FFmpeg may take a file for: formats of films alone. Others (SDP, concat, HLS) name addresses and files to open.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,mpeg,mpegts,mpegvideo,m4v"

READ = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
WRITTEN = (".mkv", ".mov", ".mp4")

# BT.709 in H.264's numbers, and the range of 16 to 235: what players take for granted, said so that colours are right.
BT709, LIMITED_RANGE = 1, 1


class Film(NamedTuple):
    """What became of a film.

    Args:
        frames: that were read, and written.
        announced: how many the file says it has; 0 where it doesn't.
        has_sound: whether there was sound, which the film of masks doesn't have.
    """

    frames: int
    announced: int
    has_sound: bool


def is_film(path: Path) -> bool:
    """Whether a file is a film by its name."""
    return path.suffix.lower() in READ


def check_target(path: Path) -> None:
    """Raise `FCNError` where a file's name is none for a film that is to be written."""
    if path.suffix.lower() not in WRITTEN:
        raise FCNError(f"{path} is to be a film; name a file that ends in {', '.join(WRITTEN[:-1])} or {WRITTEN[-1]}.")


def segment_film(
    model,
    processor,
    source: Path,
    target: Path,
    colours: np.ndarray,
    opacity: float = 1.0,
    mode: InferenceMode = WHOLE_PICTURE,
    watch: Callable[[Iterable[Any], int | None], Iterable[Any]] = lambda frames, count: frames,
) -> Film:
    """Write a film of masks, H.264, with the size and the times of the film that they are of.

    Args:
        model: a semantic segmentation model, in evaluation mode.
        processor: its image processor.
        source: the film, of any format that FFmpeg reads; frames are turned upright.
        target: file of the masks' film, in one of the formats of `WRITTEN`; it appears when it is complete.
        colours: RGB in 0..255, uint8 of shape (num_labels, 3).
        opacity: how much the colours cover the film, 0..1; with 1 they are alone.
        mode: window, scales and mirroring.
        watch: shows progress: is given the frames and their number, if it is known, and gives the frames back.

    Raises:
        `ImportError`: if PyAV isn't installed.
        `FCNError`: if the film can't be read, has no picture, or can't be written.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Films need PyAV: pip install 'fcn-hf[video]'.") from error
    check_target(target)

    def frames(film: Any) -> Iterator[Any]:
        try:
            yield from film.decode(video=0)
        except av.error.FFmpegError as error:
            raise FCNError(f"{source} can't be read to its end ({error.strerror}); it is damaged.") from error

    def write(path: Path) -> Film:
        count = 0
        with av.open(str(path), "w") as masks:
            for frame in watch(frames(film), stream.frames or None):
                picture = frame.to_image().rotate(frame.rotation, expand=True)
                try:
                    ids = predict(model, processor, picture, mode)
                except Exception as error:  # a model or processor of another kind passes on whatever it meets
                    raise FCNError(f"{source}: {in_one_line(error)}") from error
                if not count:
                    track = _add_track(masks, stream, picture)
                elif picture.size != (track.width, track.height):
                    raise FCNError(
                        f"{source} has frames of another size from frame {count} on: {picture.size} (width, height) "
                        f"instead of {(track.width, track.height)}; cut it there."
                    )
                made = av.VideoFrame.from_image(overlay(picture, ids, colours, opacity))
                made = made.reformat(format=track.pix_fmt, dst_colorspace=BT709)
                made.time_base = stream.time_base
                # Some formats leave out when a frame is shown.
                made.pts = round(count / rate / made.time_base) if frame.pts is None else frame.pts
                masks.mux(track.encode(made))
                count += 1
            if not count:
                raise FCNError(f"{source} has no frame that can be read; it is empty or damaged.")
            masks.mux(track.encode(None))
        return Film(count, stream.frames, bool(film.streams.audio))

    if source.exists() and not source.is_file():
        raise FCNError(f"{source} is a folder, a device or a pipe; pass a film's file.")
    with open(source, "rb") as file:
        try:
            film = av.open(file, options={"format_whitelist": FORMATS})
        except (av.error.FFmpegError, OSError) as error:  # an empty file can't be sought in
            raise FCNError(f"{source} is damaged, or no film in a known format; check the file.") from error
        with film:
            if not film.streams.video:
                raise FCNError(f"{source} has no pictures in it; pass a film.")
            stream = film.streams.video[0]
            rate = stream.average_rate or Fraction(25)
            made: list[Film] = []
            try:
                write_aside(target, lambda path: made.append(write(path)))
            except av.error.FFmpegError as error:
                raise FCNError(f"{target} can't be written ({error.strerror}).") from error
            return made[0]


def _add_track(masks: Any, stream: Any, picture: Image.Image) -> Any:
    """The track of a film to be written, as wide, as high and as fast as that of the film that was read."""
    track = masks.add_stream("libx264", rate=stream.average_rate or Fraction(25), options={"crf": "18"})
    track.width, track.height = picture.size
    # Halved resolution of colours is what every player shows, but it needs even sizes.
    track.pix_fmt = "yuv420p" if not (picture.width % 2 or picture.height % 2) else "yuv444p"
    context = track.codec_context
    context.time_base = stream.time_base
    context.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(1)
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return track
