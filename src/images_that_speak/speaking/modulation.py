"""Composition in the same cells: a picture and a voice in one log-mel picture.

Ears average power, and a decibel of power is a small difference in brightness; an eye, and whatever scales a
picture, averages brightness. So a pattern of light and dark cells may have one brightness for the eye and
another loudness for the ear. With `dots` one cell of n, on a lattice, is a dot of brightness d, the others
are of brightness r, and for every cell d and r are such that

    (d + (n − 1)·r)/n = what is seen,   (exp(a·d) + (n − 1)·exp(a·r))/n = exp(a·what is heard)

with a = 2 · 16.8 (power of a brightness), wherever what is seen is not brighter than what is heard. What is
seen is the picture, what is heard the voice, G(voice) on an even ground.

Without dots the two are parted by modulation. Speech lives in a band of spectro-temporal modulations: about
1 to 12 Hz along time, and along frequency nothing finer than formants (Elliott & Theunissen 2009). So a
picture keeps, for nothing, what is slower (shading) and what is finer (outlines, texture), and gives up most
of the band between, which the voice takes:

    target T = brightness + shading·slow(x) + contested·band(x) + G(voice)
    message P = T + detail·fine(x) + c

A texture raises the loudness of its neighbourhood, and the words drown in it. c is smooth and takes that
back: it is found by a few rounds of

    c ← c + blur(L(T) − L(P)),   L(P) = ln(blur(exp(a·P)))/a

so that P is as loud as T in every neighbourhood. Without it, many times as many words are misheard.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..audio.lattice import lattice
from ..audio.mel import MEL
from ..diffusion.composition import SpeechDraws
from ..errors import UserError, nearest

RATE = MEL.sample_rate / MEL.hop  # columns a second
DECIBELS = 20 * MEL.log_range / 2.302585  # from black to white
POWER = 2 * MEL.log_range  # exp(POWER · x) is the power of a cell of brightness x
EVEN_ROWS, EVEN_COLUMNS = 40.0, 60.0  # over which the voice's loudness and spectrum are evened out
BESIDE = 30  # columns beside a word that still belong to the sentence
MOST, DOT_ROUNDS = 32, 12  # cells of a dot; rounds that find how bright it is
EAR_ROWS, EAR_COLUMNS = 3.0, 2.5  # over which power is averaged: about the window's 64 ms

# What may be otherwise for drawings.
OF_DRAWINGS = ("low_hz", "high_hz", "cycles", "brightness", "shading", "contested", "silence", "detail",
               "voice_db", "valleys", "floor_db", "soften_rows", "soften_columns", "rounds", "dots", "shadow",
               "light")


class CellComposition(SpeechDraws, ABC):
    """A picture and a voice → the picture that is both.

    joint: share of the denoising steps, the last ones, in which a drawing is told the voice; 0: none. detail:
    share of the picture's fine contrast that is kept above the message's 256 rows.
    """

    joint: float = 0.0
    detail: float = 1.0

    @abstractmethod
    def __call__(self, picture: Tensor, voice: Tensor) -> Tensor:
        """Join (B, 256, F) luminance and (B, 256, F) log-mel pictures of speech → the same, all in [0, 1].

        Each sample is joined by itself.
        """

    @property
    def for_drawings(self) -> CellComposition:
        """What joins a drawing by prompt, whose flat areas on a plain ground may want other numbers."""
        return self


@dataclass(frozen=True)
class Modulation(CellComposition):
    """How picture and voice share the cells; all may be swept.

    low_hz, high_hz: the modulations along time that speech wants. cycles: the finest along frequency, in
        cycles over the picture's height.
    brightness: of the ground, 0 to 1. shading: share of the picture's slow contrast that is kept.
    contested: share of its contrast within the band. silence: the same where nothing is said.
    detail: share of its fine contrast; above 1 sharpens.
    voice_db: the contrast of the voice against itself, in dB.
    valleys: share of the voice's contrast below its mean: what lies between formants is heard less than they
        are, and may show the picture.
    floor_db: of the voice, below white: softer sounds are not written.
    soften_rows, soften_columns: deviations of the blur that hides the lines of the voice; more whispers.
    rounds: of levelling the loudness of fine detail; 0 leaves it out.
    dots: one cell of how many is a dot that carries the voice; 0: none. With dots the picture is seen whole,
        between `shadow` and `light`, and `contested`, `silence` and `rounds` have no part.
    shadow, light: brightness at which the picture's black and white are seen. Where `light` is above what is
        heard, the voice is seen as well.
    joint: share of the denoising steps, the last ones, in which a drawing is told the voice (`draw.draw`); 0
        joins them once, at the end.
    drawings: {name: value} of what is otherwise where the picture is a drawing by prompt; see `for_drawings`.
    draws, draw_steps: of `SpeechDraws`, where the speech branch speaks.
    """

    low_hz: float = 1.0
    high_hz: float = 12.0
    cycles: float = 16.0
    brightness: float = 0.45
    shading: float = 0.35
    contested: float = 0.12
    silence: float = 1.0
    detail: float = 0.9
    voice_db: float = 1.5
    valleys: float = 0.5
    floor_db: float = 110.0
    soften_rows: float = 2.0
    soften_columns: float = 0.5
    rounds: int = 3
    dots: int = 0
    shadow: float = 0.28
    light: float = 0.6
    drawings: Mapping[str, float] | None = None
    joint: float = 0.0
    draws: int | None = None
    draw_steps: int = 2

    def __post_init__(self) -> None:
        limits = {"low_hz": (0, 50), "high_hz": (0.1, 50), "cycles": (0.5, 128), "brightness": (0, 1),
                  "shadow": (0, 1), "light": (0, 1),
                  "shading": (0, 1), "contested": (0, 1), "silence": (0, 1), "detail": (0, 3),
                  "voice_db": (-40, 12), "valleys": (0, 1), "floor_db": (20, 146), "soften_rows": (0, 40),
                  "soften_columns": (0, 40), "rounds": (0, 20), "joint": (0, 1), "draw_steps": (1, 1000)}
        wrong = [f"composition.{name}={vars(self)[name]}: expected {least} to {most}"
                 for name, (least, most) in limits.items() if not least <= vars(self)[name] <= most]
        if self.dots != 0 and not 2 <= self.dots <= MOST:
            wrong.append(f"composition.dots={self.dots}: expected 0, or 2 to {MOST}")
        if self.shadow >= self.light:
            wrong.append(f"composition.shadow={self.shadow}: expected less than light={self.light}")
        if self.draws is not None and not 0 <= self.draws <= 1000:
            wrong.append(f"composition.draws={self.draws}: expected 0 to 1000, or null")
        wrong += self._wrong_of_drawings()
        if self.low_hz >= self.high_hz:
            wrong.append(f"composition.low_hz={self.low_hz}: expected less than high_hz={self.high_hz}")
        if wrong:
            raise UserError("\n".join(wrong))

    def _wrong_of_drawings(self) -> list[str]:
        wrong = []
        for key, value in (self.drawings or {}).items():
            if key not in OF_DRAWINGS:
                wrong.append(f"style.drawings.{key}: no such setting (expected one of "
                             f"{', '.join(OF_DRAWINGS)}).{nearest(str(key), OF_DRAWINGS)}")
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                wrong.append(f"style.drawings.{key}={value}: expected a number")
        if self.drawings and not wrong:
            try:
                Modulation().changed(self.drawings)
            except UserError as error:
                wrong = [line.replace("composition.", "style.drawings.", 1)
                         for line in str(error).splitlines()]
        return wrong

    @property
    def for_drawings(self) -> Modulation:
        """The same with what `drawings` changes: flat areas on a plain ground want other numbers."""
        return self.changed(self.drawings or {})

    def changed(self, values: Mapping[str, float]) -> Modulation:
        """The same with other values of `OF_DRAWINGS`."""
        changes: dict[str, Any] = {**values, "drawings": None}
        return replace(self, **changes)

    def __call__(self, picture: Tensor, voice: Tensor) -> Tensor:
        """Join (B, 256, F) luminance and (B, 256, F) log-mel pictures of speech → the same, all in [0, 1].

        Each sample is joined by itself. Raises UserError when the shapes differ.
        """
        if picture.shape != voice.shape or picture.ndim != 3:
            raise UserError(f"picture of shape {tuple(picture.shape)} and voice of {tuple(voice.shape)}: "
                            f"expected both as (batch, {MEL.n_mels}, frames)")
        picture = stretched(picture)
        slow, band, fine = self.bands(picture)
        said = spoken(voice)
        if self.dots:
            heard = (self.brightness + self.shading * (slow - 0.5)
                     + faded(said)[:, None] * self.spoken_contrast(voice))
            seen = self.shadow + (self.light - self.shadow) * (picture + (self.detail - 1) * fine)
            return dotted(heard.clamp(0, 1), seen, self.dots)
        share = self.contested + (max(self.silence, self.contested) - self.contested) * (1 - said)
        target = (self.brightness + self.shading * (slow - 0.5) + share[:, None] * band
                  + faded(said)[:, None] * self.spoken_contrast(voice))
        message = target + self.detail * fine
        wanted = loudness(target)
        for _ in range(self.rounds):
            message = message.clamp(0, 1)
            message = message + blur(wanted - loudness(message), EAR_ROWS, EAR_COLUMNS)
        return message.clamp(0, 1)

    def bands(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H, F) → what is slower than speech, the band that speech wants, and what is finer.

        They add up to the picture. Filters are 1/(1 + (ω/ω₀)⁴) on the picture with reflected borders.
        """
        height, width = picture.shape[-2:]
        mirrored = torch.cat([picture, picture.flip(-1)], -1)
        mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
        time = torch.fft.rfftfreq(2 * width, 1 / RATE, device=picture.device)
        rows = torch.fft.fftfreq(2 * height, 1 / (2 * height), device=picture.device)[:, None] / 2
        slower = 1 / (1 + (time / max(self.low_hz, 1e-6)) ** 4)
        coarse = 1 / (1 + (time / self.high_hz) ** 4) / (1 + (rows / self.cycles) ** 4)
        spectrum = torch.fft.rfft2(mirrored)
        parts = torch.fft.irfft2(torch.stack([spectrum * coarse * slower, spectrum * coarse * (1 - slower)]),
                                 s=(2 * height, 2 * width))[..., :height, :width]
        return parts[0], parts[1], picture - parts[0] - parts[1]

    def spoken_contrast(self, voice: Tensor) -> Tensor:
        """G: the voice less its own local mean: its loudness contour and its colour are not needed."""
        voice = voice.clamp(min=1 - self.floor_db / DECIBELS)
        contrast = voice - blur(voice, EVEN_ROWS, EVEN_COLUMNS)
        contrast = blur(contrast, self.soften_rows, self.soften_columns)
        return 10 ** (self.voice_db / 20) * torch.where(contrast < 0, self.valleys * contrast, contrast)


def dotted(heard: Tensor, seen: Tensor, every: int) -> Tensor:
    """What is heard and what is seen, (B, H, F) in [0, 1] → cells of which one in `every` is a dot.

    The mean of cells is what is seen, their mean power that of what is heard; what is seen is at most that.
    """
    share = 1 / every
    seen = seen.clamp(min=0).minimum(heard)
    dot = heard + math.log(every) / POWER
    rest = seen
    for _ in range(DOT_ROUNDS):
        rest = ((seen - share * dot) / (1 - share)).clamp(min=0)
        power = 1 - (1 - share) * torch.exp(POWER * (rest - heard))
        dot = (heard + (power / share).log() / POWER).clamp(max=1)
    dots = torch.from_numpy(lattice(heard.shape[-2], heard.shape[-1], every)).to(heard.device)
    return torch.where(dots, dot, rest)


def stretched(picture: Tensor) -> Tensor:
    """(B, H, F) with the contrast of each between its 1st and 99th percentile brought to [0, 1]."""
    flat = picture.flatten(1)
    low, high = torch.quantile(flat[:, ::max(1, flat.shape[1] // 100_000)],
                               torch.tensor([0.01, 0.99], device=flat.device), dim=1)
    return ((picture - low[:, None, None]) / (high - low).clamp(min=1e-3)[:, None, None]).clamp(0, 1)


def spoken(voice: Tensor) -> Tensor:
    """(B, 256, F) log-mel pictures → (B, F) in [0, 1]: how much is said in each column.

    The mean brightness of the rows below 5 kHz, from 0 at its 5th percentile to 1 well below its 90th.
    """
    level = voice[:, 70:].clamp(min=0.25).mean(1, keepdim=True)
    level = blur(level, 0, 2)[:, 0]
    quiet, loud = torch.quantile(level, torch.tensor([0.05, 0.9], device=level.device), dim=1)
    return ((level - quiet[:, None]) / (loud - quiet).clamp(min=1e-3)[:, None] * 1.6).clamp(0, 1)


def faded(said: Tensor) -> Tensor:
    """(B, F) of `spoken` → (B, F) in [0, 1]: 1 within and between words, fading out beside the sentence.

    Without it the voice's local mean would leave a dark edge where the sentence begins and ends.
    """
    near = torch.nn.functional.max_pool1d(said[:, None], 2 * BESIDE + 1, 1, BESIDE)
    return blur(near, 0, BESIDE / 3)[:, 0]


def loudness(picture: Tensor) -> Tensor:
    """(B, 256, F) brightness → the brightness whose power is the local mean power, as an ear averages it."""
    power = blur(torch.exp(POWER * (picture - 0.6)), EAR_ROWS, EAR_COLUMNS)
    return power.clamp(min=1e-9).log() / POWER + 0.6


def blur(picture: Tensor, rows: float, columns: float) -> Tensor:
    """(B, H, W) blurred by a Gaussian of these deviations in pixels; borders are repeated, 0 does nothing."""
    for deviation, axis in ((rows, -2), (columns, -1)):
        if deviation > 0:
            picture = _blur_axis(picture, deviation, axis)
    return picture


def _blur_axis(picture: Tensor, deviation: float, axis: int) -> Tensor:
    reach = max(1, round(4 * deviation))
    offsets = torch.arange(-reach, reach + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    lines = picture.transpose(axis, -1)
    shape = lines.shape
    padded = torch.nn.functional.pad(lines.reshape(-1, 1, shape[-1]), (reach, reach), mode="replicate")
    return torch.nn.functional.conv1d(padded, kernel).view(shape).transpose(axis, -1)
