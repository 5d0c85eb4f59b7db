"""Compositions: how what two branches predict becomes one x̂₀.

Each branch hands over x̂₀ without and with its condition, u and c, and its guidance scale s; guided, it says
g = u + s·(c − u) = u + d. A composition returns the joint x̂₀ of (B, C, H, W). Every weight that multiplies u
sums to one over the branches, so averaging x̂₀ is the same as averaging ε, whatever the branches' UNets
predict: x̂₀ = (x_t − σ_t ε)/α_t is affine in ε.

Weights are shares of the speech branch in [0, 1]. Masks live on the latent grid: H rows, the highest
frequencies in row 0, and W columns of time.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..audio.mel import MEL, MelSpec, band_frequencies
from ..errors import UserError, nearest

BOTH = ("image", "speech")
NO_PHONES = ("composition: {} needs to know when phones sound, and this family's speech branch reads texts "
             "(composition=images_that_sound needs no phones)")


@dataclass(frozen=True)
class Guided:
    """A branch's x̂₀ without its condition and with it, each (B, C, H, W), and its guidance scale.

    rescale: φ in [0, 1], how far the contrast of what is guided goes back to that of the conditional answer.
    """

    uncond: Tensor
    cond: Tensor
    scale: float
    rescale: float = 0.0

    @property
    def delta(self) -> Tensor:
        """d = g − u, the guidance; s·(c − u) unless rescaled."""
        return self.guided - self.uncond if self.rescale else self.scale * (self.cond - self.uncond)

    @property
    def guided(self) -> Tensor:
        """g = u + s·(c − u): classifier-free guidance (Ho & Salimans 2022, with s = 1 the conditional model).

        Rescaled it is g·(φ·std(c)/std(g) + 1 − φ), each sample by its own deviations (Lin et al. 2023,
        eq. 15 and 16, here on x̂₀): large scales no longer saturate.
        """
        guided = self.uncond + self.scale * (self.cond - self.uncond)
        if not self.rescale:
            return guided
        over = tuple(range(1, guided.ndim))
        ratio = self.cond.std(over, keepdim=True) / guided.std(over, keepdim=True).clamp(min=1e-8)
        return guided * (self.rescale * ratio + 1 - self.rescale)


@dataclass(frozen=True)
class Moment:
    """Where a step stands, and where the speech lies.

    progress: the share of the schedule already done, in [0, 1).
    activity: (B, F) in [0, 1], the share of each frame in which a phone sounds.
    """

    progress: float
    activity: Tensor | None = None


class SpeechDraws:
    """How many samples of the speech branch a composition takes the mean of, before anything else.

    draws: how many, in `draw_steps` steps each; 0: the branch answers in every step of the composition's own.
        None: 4 where the branch is told when each phone sounds, or else 0, for draws that speak at different
        times have no mean (`settled`).
    """

    draws: int | None = 0
    draw_steps: int = 1

    def settled(self, told_times: bool) -> Self:
        """The same with a number of draws, where that depends on whether the speech branch is told times."""
        if self.draws is not None:
            return self
        return replace(self, draws=4 if told_times else 0)  # type: ignore[type-var]

    @property
    def speech_draws(self) -> tuple[int, int]:
        """(draws, steps of each); 0, 1 where there are none."""
        return (self.draws, self.draw_steps) if self.draws else (0, 1)

    def check_draws(self) -> None:
        """Raise UserError when a number is too small."""
        for name, value, least in (("draws", self.draws or 0, 0), ("draw_steps", self.draw_steps, 1)):
            if value < least:
                raise UserError(f"composition.{name}={value}: expected at least {least}")


class Composition(SpeechDraws, ABC):
    """Two branches' predictions at a moment → the joint x̂₀.

    branches: those that are called; with one of them the composition itself is not. uses_uncond: whether it
    asks for u itself, and not only for g. needs_phones: whether it must know when phones sound.
    """

    branches: ClassVar[tuple[str, ...]] = BOTH
    uses_uncond: ClassVar[bool] = False

    @property
    def needs_phones(self) -> bool:
        return False

    @property
    def name(self) -> str:
        """As it is told to users."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        """The joint x̂₀ (B, C, H, W)."""

    def finish(self, pictures: Tensor, activity: Tensor) -> Tensor:
        """(B, 256, F) decoded pictures in [0, 1], (B, F) speech activity → the pictures to write."""
        return pictures


class Wrapped(Composition):
    """A callable that is no Composition: image, speech and moment → x̂₀."""

    def __init__(self, function: Callable[[Guided, Guided, Moment], Tensor]):
        self.function = function

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        return self.function(image, speech, moment)

    def settled(self, told_times: bool) -> Self:
        return self


def as_composition(made: Any) -> Any:
    """What a configuration has built: what joins predictions (a Composition) or pictures, as it is.

    A function or another callable becomes a Composition: what it has of the members counts, the others are as
    they are by default. Raises UserError when it cannot be called.
    """
    if isinstance(made, SpeechDraws):
        return made
    if not callable(made):
        raise UserError(f"composition: {type(made).__name__} cannot be called (expected a Composition or a "
                        "function of image, speech and moment)")
    members = ("branches", "uses_uncond", "needs_phones", "draws", "draw_steps", "finish")
    own = {name: getattr(made, name) for name in members if hasattr(made, name)}
    if "finish" in own:
        own["finish"] = staticmethod(own["finish"])
    kind = made.__name__ if inspect.isroutine(made) else type(made).__name__
    return type(kind, (Wrapped,), own)(made)


def _shares(**weights: float) -> None:
    for name, value in weights.items():
        if not 0 <= value <= 1:
            raise UserError(f"composition.{name}={value}: expected a number in [0, 1]")


def blend(image: Tensor, speech: Tensor, weight: float | Tensor) -> Tensor:
    """(1 − w)·image + w·speech, exactly one of them at w = 0 and w = 1; w is a number or (B, 1, H, W)."""
    return torch.lerp(image, speech, weight)


def ramp(progress: float, early: float, late: float, begin: float = 0.0, end: float = 1.0,
         shape: str = "linear") -> float:
    """A weight that goes from `early` to `late` while progress goes from `begin` to `end`.

    w = early + (late − early)·r, r = (progress − begin)/(end − begin) clamped to [0, 1]; with shape "cosine"
    r becomes (1 − cos πr)/2. With begin = end it is a step.
    """
    r = float(progress >= begin) if end <= begin else min(1.0, max(0.0, (progress - begin) / (end - begin)))
    if shape == "cosine":
        r = 0.5 * (1 - float(torch.cos(torch.tensor(torch.pi * r, dtype=torch.float64))))
    return early + (late - early) * r


def speech_rows(height: int, ceiling_hz: float | None, spec: MelSpec = MEL) -> Tensor:
    """The share of each latent row that lies at or below `ceiling_hz`: (height,) in [0, 1], row 0 on top."""
    if ceiling_hz is None:
        return torch.ones(height)
    below = (band_frequencies(spec) <= ceiling_hz).float().flip(0)
    return below.view(height, -1).mean(1)


def speech_columns(activity: Tensor, width: int, edge: float = 0.12, spec: MelSpec = MEL) -> Tensor:
    """How far each latent column belongs to the speech: (B, F) activity → (B, width) in [0, 1].

    1 where a phone sounds, falling to 0 as a raised cosine within `edge` seconds on either side,
    m(f) = max_g a(g)·(1 + cos(π|f − g|/E))/2 over |f − g| < E frames, then averaged over a column's frames.
    """
    reach = max(1, round(edge * spec.sample_rate / spec.hop))
    offsets = torch.arange(1 - reach, reach, device=activity.device)
    window = 0.5 * (1 + torch.cos(torch.pi * offsets / reach)).to(activity)
    around = torch.nn.functional.pad(activity, (reach - 1, reach - 1)).unfold(1, 2 * reach - 1, 1)
    soft = (around * window).amax(-1)
    return soft.view(len(soft), width, -1).mean(-1)


def speech_mask(activity: Tensor, height: int, width: int, edge: float = 0.12,
                ceiling_hz: float | None = None, spec: MelSpec = MEL) -> Tensor:
    """The latent cells that belong to the speech: (B, F) activity → (B, 1, height, width) in [0, 1].

    The product of `speech_rows` and `speech_columns`.
    """
    rows = speech_rows(height, ceiling_hz, spec).to(activity)
    return rows[None, None, :, None] * speech_columns(activity, width, edge, spec)[:, None, None, :]


@dataclass(frozen=True)
class ImageOnly(Composition):
    """The image branch alone: x̂₀ = g_image. An anchor."""

    branches: ClassVar[tuple[str, ...]] = ("image",)

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        return image.guided


@dataclass(frozen=True)
class SpeechOnly(Composition):
    """The speech branch alone: x̂₀ = g_speech. An anchor.

    draws, draw_steps: of `SpeechDraws`.
    """

    draws: int | None = None
    draw_steps: int = 2
    branches: ClassVar[tuple[str, ...]] = ("speech",)

    def __post_init__(self) -> None:
        self.check_draws()

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        return speech.guided


@dataclass(frozen=True)
class WeightedAverage(Composition):
    """x̂₀ = (1 − w)·g_image + w·g_speech (Images that Sound, Chen et al. 2024, eq. 5).

    audio_weight: w in [0, 1]; 1 is the speech branch alone, bit for bit.
    """

    audio_weight: float = 0.5

    def __post_init__(self) -> None:
        _shares(audio_weight=self.audio_weight)

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        return blend(image.guided, speech.guided, self.audio_weight)


@dataclass(frozen=True)
class WeightsOverTime(Composition):
    """A weighted average whose weight moves along the schedule: w = ramp(progress).

    Early steps lay out the coarse picture, late ones its detail: early < late lets the image decide the
    layout and the speech write into it.

    audio_weight: w at the end of the ramp, in [0, 1].
    early: w before it, in [0, 1].
    begin, end: the progress between which w moves, in [0, 1]; equal, w jumps.
    shape: "linear" or "cosine".
    """

    audio_weight: float = 0.6
    early: float = 0.3
    begin: float = 0.0
    end: float = 1.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        _shares(audio_weight=self.audio_weight, early=self.early, begin=self.begin, end=self.end)
        if self.end < self.begin:
            raise UserError(f"composition.end={self.end}: expected at least composition.begin={self.begin}")
        if self.shape not in ("linear", "cosine"):
            raise UserError(f"composition.shape={self.shape!r}: expected 'linear' or 'cosine'."
                            f"{nearest(self.shape, ('linear', 'cosine'))}")

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        weight = ramp(moment.progress, self.early, self.audio_weight, self.begin, self.end, self.shape)
        return blend(image.guided, speech.guided, weight)


class _Masked(Composition):
    """What the compositions with a time–frequency mask share."""

    edge: float
    speech_ceiling_hz: float | None

    @property
    def needs_phones(self) -> bool:
        return True

    def _check(self) -> None:
        if not 0 <= self.edge <= MEL.seconds:
            raise UserError(f"composition.edge={self.edge}: expected seconds in [0, {MEL.seconds}]")
        if self.speech_ceiling_hz is not None and not 0 < self.speech_ceiling_hz <= MEL.fmax:
            raise UserError(f"composition.speech_ceiling_hz={self.speech_ceiling_hz}: expected null or "
                            f"hertz in (0, {MEL.fmax:.0f}]")

    def _mask(self, moment: Moment, like: Tensor) -> Tensor:
        if moment.activity is None:
            raise UserError(NO_PHONES.format(self.name))
        height, width = like.shape[-2:]
        return speech_mask(moment.activity.to(like), height, width, self.edge, self.speech_ceiling_hz)


@dataclass(frozen=True)
class Masks(_Masked):
    """Speech where phones sound, image elsewhere: x̂₀ = (1 − W)·g_image + W·g_speech.

    W = e + (w − e)·M with M the `speech_mask` from the planned phones.

    audio_weight: w inside the mask, in [0, 1].
    elsewhere: e outside it, in [0, 1].
    edge: seconds over which the mask fades beside a phone.
    speech_ceiling_hz: rows above stay with the image; null: all rows may speak.
    picture_gain: what the brightness beside the speech is multiplied by, in [0, 1]. The picture is played
        too: at 0.6 a drawing of brightness 0.6 sounds 35 dB softer, and recognisers no longer stumble on it.
    draws, draw_steps: of `SpeechDraws`, whose mean is said: the picture is denoised beside and around it.
    """

    audio_weight: float = 0.9
    elsewhere: float = 0.0
    edge: float = 0.12
    speech_ceiling_hz: float | None = None
    picture_gain: float = 1.0
    draws: int | None = None
    draw_steps: int = 2

    def __post_init__(self) -> None:
        self.check_draws()
        _shares(audio_weight=self.audio_weight, elsewhere=self.elsewhere, picture_gain=self.picture_gain)
        self._check()

    def finish(self, pictures: Tensor, activity: Tensor) -> Tensor:
        """(B, 256, F) decoded pictures, (B, F) activity → pictures, turned down where nothing is spoken."""
        if self.picture_gain == 1:
            return pictures
        spoken = speech_columns(activity.to(pictures), pictures.shape[-1], self.edge)[:, None]
        return pictures * (self.picture_gain + (1 - self.picture_gain) * spoken)

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        mask = self._mask(moment, image.cond)
        weight = self.elsewhere + (self.audio_weight - self.elsewhere) * mask
        return blend(image.guided, speech.guided, weight)


@dataclass(frozen=True)
class Split(_Masked):
    """Separate weights for the unconditional and the conditional parts.

    x̂₀ = (1 − w_u)·u_image + w_u·u_speech + k_image·d_image + k_speech·d_speech. The unconditional parts say
    what a plausible picture or spectrogram is and must be averaged; the guidances d are directions, and may
    both be followed whole (Composable Diffusion, Liu et al. 2022, eq. 11). With w_u = k_speech = 1 − k_image
    it is the weighted average.

    audio_weight: w_u in [0, 1].
    image_delta, audio_delta: k_image and k_speech in [0, 1].
    masked: these weights hold inside the `speech_mask`; outside it the image acts alone.
    edge, speech_ceiling_hz: the mask's, as in `Masks`.
    """

    audio_weight: float = 0.5
    image_delta: float = 0.5
    audio_delta: float = 1.0
    masked: bool = False
    edge: float = 0.12
    speech_ceiling_hz: float | None = None
    uses_uncond: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _shares(audio_weight=self.audio_weight, image_delta=self.image_delta, audio_delta=self.audio_delta)
        self._check()

    @property
    def needs_phones(self) -> bool:
        return self.masked

    def __call__(self, image: Guided, speech: Guided, moment: Moment) -> Tensor:
        mask = self._mask(moment, image.cond) if self.masked else 1.0
        return (blend(image.uncond, speech.uncond, self.audio_weight * mask)
                + (1 - mask * (1 - self.image_delta)) * image.delta
                + mask * self.audio_delta * speech.delta)
