"""Films in, films of masks out."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from fcn_hf.palettes import voc_palette
from tests.helpers import run, save_tiny

av = pytest.importorskip("av")

RATE = Fraction(25, 2)
TIMES = (0, 1, 2, 7)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "model")


def save_film(path, size=(64, 48), sound=False, turned=0, dark_end=0):
    """A few frames that aren't shown equally long, of one colour each but for a black end at the left."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as film:
        track = film.add_stream("libx264", rate=RATE)
        track.width, track.height = size
        track.pix_fmt = "yuv420p"
        track.set_display_rotation(turned)
        if sound:
            tone = film.add_stream("aac", rate=16000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            film.mux(tone.encode(silence) + tone.encode(None))
        for time in TIMES:
            picture = Image.new("RGB", size, (30 * time, 200 - 20 * time, 90))
            picture.paste("black", (0, 0, dark_end, size[1]))
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = time, 1 / RATE
            film.mux(track.encode(frame))
        film.mux(track.encode(None))
    return path


def read_film(path):
    """The upright frames, when they are shown (in seconds), frames a second, and the number of tracks."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        frames = list(film.decode(stream))
        return [frame.to_image() for frame in frames], [f.time for f in frames], stream.average_rate, len(film.streams)


def brightest(model, processor, picture, mode):
    """A net whose class is 0, 1, 2 and 4 in the four frames of a film."""
    return np.minimum(np.asarray(picture, dtype=int)[..., 0] // 28, 4)


def test_a_film_keeps_its_size_and_times_and_shows_classes_in_their_colours(model, tmp_path, monkeypatch):
    monkeypatch.setattr("fcn_hf.films.predict", brightest)
    source, target = save_film(tmp_path / "film.mp4", sound=True), tmp_path / "out" / "masks.mp4"
    result = run("segment", source, "--model", model, "--out", target)
    assert result.exit_code == 0, result.output
    assert f"{target}: 4 frames, without the sound" in result.stdout
    assert [path.name for path in target.parent.iterdir()] == ["masks.mp4"]
    shown, times, rate, _ = read_film(source)
    masks, *rest = read_film(target)
    assert rest == [times, rate, 1] and [mask.size for mask in masks] == [(64, 48)] * 4
    for mask, colour in zip(masks, np.array(voc_palette(5))[[0, 1, 2, 4]], strict=True):
        assert np.abs(np.asarray(mask, dtype=int) - colour).max() <= 6
    again = run("segment", source, "--model", model, "--out", target)
    assert again.exit_code == 1 and "masks.mp4 is there, and not this command's own; name another" in again.stderr
    assert run("segment", source, "--model", model, "--out", target, "--overwrite", "--opacity", 0).exit_code == 0
    for frame, picture in zip(read_film(target)[0], shown, strict=True):
        assert np.abs(np.asarray(frame, dtype=int) - np.asarray(picture)).max() <= 6


@pytest.mark.parametrize(("turned", "place"), [(90, (24, 60)), (-90, (24, 4))])
def test_a_film_that_lies_on_its_side_is_turned_upright_and_odd_sizes_stay(turned, place, model, tmp_path, monkeypatch):
    seen = []

    def look(model, processor, picture, mode):
        seen.append(picture.size)
        # The frames' left end, which is dark, is below or above once they are upright.
        assert sum(picture.getpixel(place)) < 60 < sum(picture.getpixel((24, 64 - place[1])))
        return np.zeros((picture.height, picture.width), dtype=int)

    monkeypatch.setattr("fcn_hf.films.predict", look)
    film = save_film(tmp_path / "phone.mov", turned=turned, dark_end=16)
    assert run("segment", film, "--model", model, "--out", tmp_path / "masks.mkv").exit_code == 0
    assert seen == [(48, 64)] * 4 and read_film(tmp_path / "masks.mkv")[0][0].size == (48, 64)


@pytest.mark.parametrize(
    ("name", "content", "out", "message"),
    [
        ("film.mp4", b"no film", "masks.mp4", "film.mp4 is damaged, or no film"),
        ("film.mp4", b"", "masks.mp4", "film.mp4 is damaged, or no film"),
        ("film.mp4", b"ffconcat version 1.0\nfile other.mp4\n", "masks.mp4", "film.mp4 is damaged, or no film"),
        (
            "film.mp4",
            b"v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
            "masks.mp4",
            "film.mp4 is damaged, or no",
        ),
        ("film.mp4", None, "masks.mp4", "No such file or directory"),
        ("film.mp4", b"", "masks", "masks is to be a film; name a file that ends in .mkv, .mov or .mp4"),
        ("film.mp4", b"", "film.mp4", "film.mp4 would overwrite it"),
    ],
)
def test_what_is_no_film_is_told_in_one_line(model, tmp_path, name, content, out, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("segment", tmp_path / name, "--model", model, "--out", tmp_path / out)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert message in result.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ([name] if content is not None else [])


def test_films_without_pictures_or_cut_short_are_told_of(model, tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as film:
        tone = film.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        film.mux(tone.encode(silence) + tone.encode(None))
    result = run("segment", tmp_path / "sound.mp4", "--model", model, "--out", tmp_path / "a.mp4")
    assert result.exit_code == 1 and "sound.mp4 has no pictures in it" in result.stderr
    whole = save_film(tmp_path / "film.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:-60])
    result = run("segment", tmp_path / "cut.mp4", "--model", model, "--out", tmp_path / "b.mp4")
    assert "of 4 frames" in result.stderr or "is damaged" in result.stderr
    result = run("segment", tmp_path / "cut.mp4", "a.jpg", "--model", model, "--out", tmp_path / "c.mp4")
    assert result.exit_code == 1 and "A film is segmented alone" in result.stderr


def test_a_film_that_changes_its_size_is_told_of(model, tmp_path):
    parts = []
    for size in ((32, 24), (48, 32)):
        with av.open(str(tmp_path / "part.mpg"), "w") as film:
            track = film.add_stream("mpeg2video", rate=25)
            track.width, track.height, track.pix_fmt = *size, "yuv420p"
            for _ in range(4):
                film.mux(track.encode(av.VideoFrame.from_image(Image.new("RGB", size))))
            film.mux(track.encode(None))
        parts.append((tmp_path / "part.mpg").read_bytes())
    (tmp_path / "film.mpg").write_bytes(b"".join(parts))
    result = run("segment", tmp_path / "film.mpg", "--model", model, "--out", tmp_path / "a.mp4")
    assert result.exit_code == 1 and "frames of another size from frame" in result.stderr
