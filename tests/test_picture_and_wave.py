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

from images_that_speak.audio.picture import colour_map, quantise, read_picture, write_png
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


def test_colour_map_keeps_the_shape(picture: np.ndarray) -> None:
    assert colour_map(picture).size == (1024, 256)


BAD = {"nan.npy": np.full((256, 1024), np.nan, np.float32), "shape.npy": np.zeros((256, 1000), np.float32),
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
