"""Files of pictures and sound: what is written is read back, and bad ones are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images_that_speak.audio.picture import colour_map, quantise, read_picture, to_grid, write_png
from images_that_speak.audio.wave import read_wave, write_wave
from images_that_speak.errors import UserError
from images_that_speak.files import atomic_path, atomic_write, content_hash


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((256, 1024)).astype(np.float32)


def test_png_round_trip_is_exact_in_8_bits(picture: np.ndarray, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture)
    again = read_picture(tmp_path / "a.png")
    assert np.array_equal(quantise(again), quantise(picture))
    np.save(tmp_path / "a.npy", quantise(picture))
    assert np.array_equal(read_picture(tmp_path / "a.npy"), again)


def test_colour_is_read_as_luminance(tmp_path: Path) -> None:
    colour = np.zeros((256, 1024, 3), np.uint8)
    colour[..., 1] = 200
    Image.fromarray(colour).save(tmp_path / "green.png")
    assert read_picture(tmp_path / "green.png")[0, 0] == pytest.approx(0.587 * 200 / 255, abs=1 / 255)


@pytest.fixture
def gray_ramp() -> np.ndarray:
    """(256, 300) levels of 8 bits, each row another, the top row the darkest."""
    return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 300, 1)


@pytest.mark.parametrize(("ending", "bound"), [("png", 0), ("webp", 4), ("jpg", 4), ("tiff", 0), ("bmp", 0)])
def test_formats_are_read_alike(gray_ramp: np.ndarray, ending: str, bound: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(gray_ramp).convert("RGB").save(path)
    assert np.abs(255 * read_picture(path) - gray_ramp).max() <= bound + 1e-3


def test_16_bits_keep_their_brightness(gray_ramp: np.ndarray, tmp_path: Path) -> None:
    """Taken for 8 bits, nearly all of it was white."""
    Image.fromarray(gray_ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(quantise(read_picture(tmp_path / "deep.png")), gray_ramp)


def test_floats_of_a_tiff(gray_ramp: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(gray_ramp.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    assert np.array_equal(quantise(read_picture(tmp_path / "float.tiff")), gray_ramp)
    Image.fromarray(gray_ramp.astype(np.float32)).save(tmp_path / "levels.tiff")
    with pytest.raises(UserError, match="levels.tiff.*in \\[0, 1\\]"):
        read_picture(tmp_path / "levels.tiff")


def test_what_is_transparent_is_silent(gray_ramp: np.ndarray, tmp_path: Path) -> None:
    """What a viewer does not show was played."""
    alpha = np.full_like(gray_ramp, 255)
    alpha[:, :100] = 0
    Image.merge("LA", [Image.fromarray(gray_ramp), Image.fromarray(alpha)]).save(tmp_path / "alpha.png")
    read = quantise(read_picture(tmp_path / "alpha.png"))
    assert not read[:, :100].any() and np.array_equal(read[:, 100:], gray_ramp[:, 100:])


def test_palettes_and_their_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat([[0, 1]], 256, 0).astype(np.uint8).repeat(128, 1), "P")
    image.putpalette([250, 250, 250, 100, 100, 100])
    image.save(tmp_path / "palette.png", transparency=0)
    read = quantise(read_picture(tmp_path / "palette.png"))
    assert not read[:, :128].any() and (read[:, 128:] == 100).all()


def test_orientation_of_cameras_is_applied(gray_ramp: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the picture is shown turned by 90° to the right
    Image.fromarray(np.rot90(gray_ramp)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(quantise(read_picture(tmp_path / "turned.png")), gray_ramp)


@pytest.mark.parametrize("times", [2, 3, 4])
def test_blocks_are_averaged_to_the_grid(times: int, tmp_path: Path) -> None:
    """Detail finer than the grid is free: only block means are the message."""
    rng = np.random.default_rng(times)
    pixels = rng.integers(0, 256, (256 * times, 40 * times), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "fine.png")
    means = pixels.reshape(256, times, 40, times).mean((1, 3)) / 255
    np.testing.assert_allclose(read_picture(tmp_path / "fine.png"), means, atol=1e-6)


def test_odd_sizes_are_averaged_by_area(tmp_path: Path) -> None:
    """A picture 1.5 times the grid: every second cell is the mean of one and a half pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (384, 30)).astype(np.float64)
    fine = pixels.repeat(2, 0).repeat(2, 1)  # cells of 3 x 3 pixels of this one
    np.testing.assert_allclose(to_grid(pixels), fine.reshape(256, 3, 20, 3).mean((1, 3)), rtol=1e-6)


def test_half_size_plays_as_long(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 700), dtype=np.uint8))
    for name, size in (("whole", (700, 512)), ("half", (350, 256)), ("odd", (701, 513)), ("least", (11, 8))):
        picture.resize(size).save(tmp_path / f"{name}.png")
        assert abs(read_picture(tmp_path / f"{name}.png").shape[1] - 350) <= 2


@pytest.mark.parametrize("kind", ["tiny", "wide", "gif", "webp", "cut"])
def test_pictures_that_cannot_be_played_are_named(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    path = tmp_path / (f"a.{kind}" if kind in ("gif", "webp") else f"{kind}.png")
    if kind in ("gif", "webp"):
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif kind == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:20_000])
    else:
        Image.new("L", (3, 3) if kind == "tiny" else (40_000, 100)).save(path)
    expected = {"tiny": "3x3 pixels", "wide": "plays for 1024 s", "cut": "not a readable"}
    with pytest.raises(UserError, match=f"{path.name}: .*{expected.get(kind, 'animation of 2')}"):
        read_picture(path)


def test_a_bomb_is_refused_by_name(tmp_path: Path) -> None:
    """A PNG of 240 million pixels ended an evaluation; of 200,000 bytes, for it is all one colour."""
    Image.new("1", (20_000, 12_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="bomb.png.*pixels"):
        read_picture(tmp_path / "bomb.png")


def test_colour_map_keeps_the_shape(picture: np.ndarray) -> None:
    assert colour_map(picture).size == (1024, 256)


BAD = {"nan.npy": np.full((256, 1024), np.nan, np.float32), "shape.npy": np.zeros((255, 1000), np.float32),
       "range.npy": np.full((256, 1024), 3.0, np.float32), "int.npy": np.zeros((256, 1024), np.int64)}


@pytest.mark.parametrize("name", BAD)
def test_bad_npy_is_named(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / name, BAD[name])
    with pytest.raises(UserError, match=name):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["missing.png", "text.png", "cut.npy", "pickle.npy"])
def test_unreadable_pictures_are_named(name: str, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "text.png":
        path.write_text("no picture")
    elif name == "cut.npy":
        np.save(path, picture)
        path.write_bytes(path.read_bytes()[:1000])
    elif name == "pickle.npy":
        np.save(path, np.array([{"code": 1}], dtype=object))
    with pytest.raises(UserError, match=name):
        read_picture(path)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([".png", ".npy"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes,
                                       suffix: str) -> None:
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError, match=path.name):
        read_picture(path)


def test_quantise_refuses_nan(picture: np.ndarray) -> None:
    picture[3, 4] = np.nan
    with pytest.raises(UserError, match="NaN"):
        quantise(picture)


def test_wave_round_trip(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    write_wave(tmp_path / "a.wav", wave)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    np.testing.assert_allclose(read_wave(tmp_path / "a.wav"), wave, atol=1 / 32_000)
    write_wave(tmp_path / "loud.wav", 20 * wave)
    np.testing.assert_allclose(read_wave(tmp_path / "loud.wav"), wave / np.abs(wave).max(), atol=1 / 32_000)


@pytest.mark.parametrize(("kind", "said"), [("rate", "22050 Hz"), ("stereo", "2 channels"),
                                            ("empty", "no samples"), ("text", "not a readable"),
                                            ("missing", "no such")])
def test_bad_sound_is_named(kind: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.wav"
    if kind == "text":
        path.write_text("no sound")
    elif kind != "missing":
        soundfile.write(path, np.zeros((0 if kind == "empty" else 100, 2 if kind == "stereo" else 1)),
                        22_050 if kind == "rate" else 16_000)
    with pytest.raises(UserError, match=f"{kind}.wav.*{said}"):
        read_wave(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(UserError, match="a.txt: cannot be written .No space left"), atomic_path(path):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
    assert path.read_text() == "old"


def test_content_hash_ignores_order() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1, "b": [2]}) != content_hash({"a": 1, "b": [3]})
