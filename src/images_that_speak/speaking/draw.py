"""What the family gives: drawings by its image branch, in colour, and speech by its speech branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio.mel import MEL
from ..diffusion.colorization import Colorizer
from ..diffusion.composition import SpeechOnly
from ..diffusion.family import Family
from ..diffusion.method import Job, Settings, bound, denoise, mean_of_draws
from ..diffusion.sampling import Callback, make_scheduler, noise, sample
from ..prompts import Pair
from ..speech.tts import Phone
from .modulation import CellComposition, blur
from .voices import MARGIN, Speech

GRAIN = 0.8  # pixels: deviation of the blur that takes the autoencoder's grain away
GROUND = 0.06  # brightness of a drawing below which there is ground
TINT = 0.12  # strength of the ground's colour


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn: a prompt, where its copies lie, and the seed."""

    prompt: str
    seed: int
    scene: tuple[tuple[float, ...], ...] | None = None

    @property
    def job(self) -> Job:
        return Job(Pair(self.prompt, ""), self.seed, (), self.scene)


def draw(family: Family, settings: Settings, drawings: Sequence[Drawing], voices: Tensor,
         modulation: CellComposition, callback: Callback | None = None) -> Tensor:
    """Drawings → (B, 256, 1024) luminance in [0, 1].

    With `modulation.joint` above 0 the branch draws knowing the voice: at that share of its last steps x̂₀ is
    decoded, joined with the voice by modulation band, and encoded again (Factorized Diffusion, Geng et al.
    2024, with the bands that hearing dictates). What is returned is the branch's own x̂₀ of the last step, so
    that the voice is written once.

    voices: (B, 256, 1024) log-mel pictures of what is to be said.
    """
    jobs = [drawing.job for drawing in drawings]
    branch = bound(family, settings, jobs, ("image",))["image"]
    scheduler = make_scheduler(schedule=family.layout.schedule, **settings.scheduler)
    own: dict[str, Tensor] = {}

    def predict(x: Tensor, t: Tensor, progress: float) -> Tensor:
        x0 = branch(x, t, progress, False).guided
        own["x0"] = x0
        if progress < 1 - modulation.joint:
            return x0
        return family.encode(modulation(family.decode(x0), voices)).to(x0)

    x = noise([job.seed for job in jobs], family.layout.latent_shape).to(family.device)
    with settings.casting(family.device):
        x = sample(predict, x, scheduler, settings.steps, callback)
        return family.decode(own["x0"] if modulation.joint else x)


def in_colour(colorizer: Colorizer | None, picture: np.ndarray, drawing: Drawing,
              frames: int) -> np.ndarray:
    """The first F columns of a drawing (256, 1024), coloured, on a tinted ground: (256, F, 3) in [0, 1].

    The autoencoder's grain is smoothed away first: sharpened by a composition it would look like dirt.
    """
    gray = blur(torch.from_numpy(picture)[None], GRAIN, GRAIN)[0].numpy()
    rgb = np.repeat(gray[:, :frames, None], 3, -1).astype(np.float32)
    if colorizer is None:
        return rgb
    levels = np.round(255 * gray.clip(0, 1)).astype(np.uint8)
    chroma = colorizer.chroma(levels, drawing.prompt, drawing.seed)
    chroma = blur(torch.from_numpy(np.asarray(chroma, np.float32)), 2 * GRAIN, 2 * GRAIN).numpy()
    return (rgb + tinted(gray, chroma).transpose(1, 2, 0)[:, :frames]).clip(0, 1).astype(np.float32)


def tinted(gray: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Chroma (3, H, W) of a drawing on black (H, W) → the same, the ground in the opposite hue and paler."""
    drawn = np.clip((gray - GROUND) / GROUND, 0, 1)
    mean = (chroma * drawn).sum((1, 2)) / max(float(drawn.sum()), 1.0)
    strength = float(np.abs(mean).max())
    tint = -mean / strength if strength > 1e-3 else np.array([-0.6, 0.0, 1.0])
    return chroma * drawn + TINT * tint[:, None, None] * (1 - drawn)


def spoken_by_branch(family: Family, settings: Settings, text: str, phones: tuple[Phone, ...],
                     seed: int, spoken: str) -> Speech:
    """What the speech branch says, in as many draws as the composition in `settings` takes the mean of."""
    job = Job(Pair("", text), seed, phones)
    draws, draw_steps = settings.compose.speech_draws
    if draws:
        branch = bound(family, settings, [job], ("speech",))["speech"]
        with settings.casting(family.device):
            picture = family.decode(mean_of_draws(branch, family, settings, [job], draws, draw_steps))
    else:
        alone = replace(settings, starts={"image": 0.0, "speech": 0.0})
        picture = denoise(family, alone, SpeechOnly(), [job])
    first, last = 0, MEL.frames
    if phones:
        rate = MEL.sample_rate / MEL.hop
        first = max(0, int(phones[0].start * rate) - MARGIN)
        last = min(MEL.frames, int(phones[-1].end * rate) + MARGIN)
    return Speech(np.asarray(picture[0, :, first:last]), spoken)


def whole(pictures: Sequence[np.ndarray], fill: float = 0.0) -> Tensor:
    """Pictures (256, F), each of its own width → (B, 256, 1024), filled up on the right."""
    padded = [np.pad(picture, ((0, 0), (0, MEL.frames - picture.shape[1])), constant_values=fill)
              for picture in pictures]
    return torch.from_numpy(np.stack(padded).astype(np.float32))


def load_colorizer(section: Any, device: str) -> Colorizer | None:
    """The colour model of the section `colorizer`, loaded; None where there is none."""
    if section is None:
        return None
    from ..config import instantiate

    colorizer: Colorizer = instantiate(section)
    colorizer.load(device)
    return colorizer
