"""Eight environments, each clip of its own sound and moving picture, made up: the published data's scale.

60 pairs of each: six clips of ten frames. Frames of a clip are neighbours, as in the published data, so that
a split by frames lets a training see what it is tested on, and one by clips (`source`) does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..audio.augment import tilted
from ..audio.mel import MEL

RATE, SIDE = MEL.sample_rate, 256
CLIPS, FRAMES, SECONDS = 6, 10, 1.0  # clips of an environment, frames of a clip, seconds of a frame
Colour = tuple[int, int, int]


def _noise(rng: np.random.Generator, size: int, slope: float) -> np.ndarray:
    wave = tilted(rng.normal(size=size), slope)
    return wave / np.abs(wave).max()


def _slow(rng: np.random.Generator, size: int, hertz: float) -> np.ndarray:
    """A curve in [0, 1] that turns `hertz` times a second."""
    points = rng.random(max(4, round(size / RATE * hertz * 2)))
    return np.interp(np.linspace(0, len(points) - 1, size), np.arange(len(points)), points)


def _clicks(rng: np.random.Generator, size: int, rate: float, seconds: float) -> np.ndarray:
    """Bursts of noise that die away in `seconds`, `rate` a second."""
    wave = np.zeros(size)
    length = round(seconds * RATE)
    shape = np.exp(-6 * np.linspace(0, 1, length))
    for start in rng.integers(0, size - length, rng.poisson(rate * size / RATE)):
        wave[start: start + length] += rng.uniform(0.2, 1) * shape * rng.normal(size=length)
    return wave / max(1, np.abs(wave).max())


def _tones(rng: np.random.Generator, size: int, low: float, high: float, rate: float,
           seconds: float) -> np.ndarray:
    """Sweeps between two frequencies, `rate` a second."""
    wave = np.zeros(size)
    length = round(seconds * RATE)
    for start in rng.integers(0, size - length, max(1, rng.poisson(rate * size / RATE))):
        a, b = rng.uniform(low, high, 2)
        phase = 2 * np.pi * np.cumsum(np.linspace(a, b, length)) / RATE
        wave[start: start + length] += np.sin(phase) * np.hanning(length)
    return wave / max(1, np.abs(wave).max())


def _beats(size: int, hertz: float, sharp: float) -> np.ndarray:
    """(size,) in [0, 1]: a pulse `hertz` times a second."""
    return np.abs(np.sin(np.pi * hertz * np.arange(size) / RATE)) ** sharp


Sound = Callable[[np.random.Generator, int], np.ndarray]
SOUNDS: dict[str, Sound] = {
    "rain": lambda rng, n: 0.5 * _noise(rng, n, 1) + _clicks(rng, n, 60, 0.01),
    "wind": lambda rng, n: _noise(rng, n, -6) * (0.2 + _slow(rng, n, 0.7)),
    "sea": lambda rng, n: _noise(rng, n, -3) * (0.1 + _beats(n, rng.uniform(0.15, 0.25), 2)),
    "fire": lambda rng, n: 0.3 * _noise(rng, n, -6) + _clicks(rng, n, 14, 0.03),
    "night": lambda rng, n: (0.05 * _noise(rng, n, -3) + np.sin(2 * np.pi * rng.uniform(4200, 4800)
                             * np.arange(n) / RATE) * _beats(n, 15, 2) * (_beats(n, 1.4, 1) > 0.5)),
    "meadow": lambda rng, n: 0.03 * _noise(rng, n, -3) + _tones(rng, n, 2000, 6000, 6, 0.15),
    "train": lambda rng, n: (0.4 * _noise(rng, n, -6) + _beats(n, rng.uniform(2, 3), 40)
                             * _noise(rng, n, -3)),
    "storm": lambda rng, n: (0.3 * _noise(rng, n, 0) + 2 * _noise(rng, n, -9)
                             * np.maximum(0, _slow(rng, n, 0.5) - 0.5)),
}


@dataclass(frozen=True)
class Scene:
    """How an environment looks: the colours of the sky above and below, and of the ground, and where the
    horizon lies; `draw` adds what is in it, at a time of 0 to 1."""

    above: Colour
    below: Colour
    ground: Colour
    horizon: float
    draw: Callable[[ImageDraw.ImageDraw, np.random.Generator, float], None]


def _strokes(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float, count: int, colour: Colour,
             slant: float, length: float) -> None:
    """Lines that fall, or fly where `slant` is large."""
    for x, y, part in rng.random((count, 3)):
        x, y = (x + slant * time) % 1 * SIDE, (y + time) % 1 * SIDE
        draw.line([x, y, x + slant * length, y + length * (0.4 + part)], fill=colour, width=1 + (part > 0.7))


def _waves(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    for i in range(9):
        phase = rng.random() * 7
        y = SIDE * (0.5 + 0.055 * i)
        line = [(x, y + 4 * np.sin(x / 17 + phase + 6 * time)) for x in range(0, SIDE + 8, 8)]
        draw.line(line, fill=(210, 230, 240), width=2)


def _flames(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    for x, height, phase in rng.random((26, 3)):
        x, flicker = SIDE * (0.25 + 0.5 * x), 0.7 + 0.3 * np.sin(9 * time + 7 * phase)
        top = SIDE * (0.75 - 0.5 * height * flicker)
        draw.polygon([(x - 14, 200), (x + 14, 200), (x + 5 * np.sin(7 * phase), top)],
                     fill=(255, int(80 + 150 * phase), 20))


def _stars(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    for x, y in rng.random((60, 2)):
        draw.point([x * SIDE, y * SIDE * 0.6], fill=(255, 255, 230))
    draw.ellipse([165 + 20 * time, 30, 215 + 20 * time, 80], fill=(245, 240, 200))


def _flowers(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    for x, y, kind in rng.random((45, 3)):
        x, y = x * SIDE + 3 * np.sin(6 * time + 9 * x), SIDE * (0.6 + 0.4 * y)
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=((240, 220, 60), (230, 90, 110), (250, 250, 250))
                     [int(3 * kind)])
    for x, y in rng.random((4, 2)):
        x, y = (x + 0.3 * time) % 1 * SIDE, y * SIDE * 0.4 + 10
        draw.line([(x - 10, y - 5), (x, y), (x + 10, y - 5)], fill=(40, 40, 50), width=2)


def _wagons(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    colour = ((170, 50, 40), (40, 80, 150), (50, 120, 60))[int(rng.integers(3))]
    for i in range(-1, 5):
        x = (i + time) * 76
        draw.rectangle([x, 110, x + 68, 168], fill=colour)
        draw.rectangle([x + 8, 120, x + 60, 138], fill=(230, 235, 240))
        for wheel in (x + 12, x + 46):
            draw.ellipse([wheel, 160, wheel + 16, 176], fill=(30, 30, 30))
    draw.line([(0, 178), (SIDE, 178)], fill=(90, 80, 70), width=4)


def _reeds(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    for x, height in rng.random((50, 2)):
        lean = 50 * height * (0.6 + 0.4 * np.sin(5 * time + 6 * x))
        draw.line([(x * SIDE, SIDE), (x * SIDE + lean, SIDE * (0.9 - 0.4 * height))], fill=(150, 140, 70),
                  width=2)


def _lightning(draw: ImageDraw.ImageDraw, rng: np.random.Generator, time: float) -> None:
    _strokes(draw, rng, time, 60, (120, 130, 160), 0.3, 18)
    x, points = SIDE * rng.uniform(0.3, 0.7), []
    for y in range(0, 180, 20):
        points.append((x, y))
        x += float(rng.uniform(-22, 22))
    draw.line(points, fill=(255, 250, 210), width=4)


SCENES: dict[str, Scene] = {
    "rain": Scene((90, 100, 115), (140, 150, 160), (70, 85, 80), 0.75,
                  lambda d, r, t: _strokes(d, r, t, 130, (200, 210, 225), 0.1, 22)),
    "wind": Scene((150, 185, 220), (225, 230, 225), (190, 175, 110), 0.7, _reeds),
    "sea": Scene((120, 180, 235), (210, 230, 245), (30, 90, 140), 0.48, _waves),
    "fire": Scene((10, 8, 15), (45, 20, 15), (35, 22, 15), 0.78, _flames),
    "night": Scene((8, 10, 40), (25, 35, 75), (10, 22, 18), 0.7, _stars),
    "meadow": Scene((90, 170, 240), (200, 230, 250), (95, 165, 70), 0.55, _flowers),
    "train": Scene((180, 200, 215), (230, 230, 220), (125, 120, 100), 0.62, _wagons),
    "storm": Scene((35, 30, 55), (80, 75, 100), (25, 30, 30), 0.8, _lightning),
}


def sound_of(name: str, clip: int) -> np.ndarray:
    """(FRAMES · SECONDS · 16 000,) float32: clip `clip` of an environment."""
    rng = np.random.default_rng([7, sorted(SOUNDS).index(name), clip])
    wave = SOUNDS[name](rng, round(FRAMES * SECONDS * RATE))
    return (0.9 * wave / np.abs(wave).max()).astype(np.float32)


def picture_of(name: str, clip: int, frame: int) -> Image.Image:
    """The picture of a frame, 256×256: a clip has colours and places of its own, and moves."""
    rng = np.random.default_rng([8, sorted(SCENES).index(name), clip])
    scene = SCENES[name]
    shift = rng.integers(-18, 19, 3)
    horizon = scene.horizon + rng.uniform(-0.06, 0.06)
    rows = np.linspace(0, 1, SIDE)[:, None]
    sky = np.array(scene.above) * (1 - rows) + np.array(scene.below) * rows
    pixels = np.where(rows < horizon, sky, np.array(scene.ground) * (1.15 - 0.3 * rows)) + shift
    image = Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, None], SIDE, 1))
    scene.draw(ImageDraw.Draw(image), rng, frame / FRAMES)
    return image.filter(ImageFilter.GaussianBlur(0.7))
