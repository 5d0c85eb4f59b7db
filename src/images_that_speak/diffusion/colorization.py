"""Colour for a finished picture, whose luminance stays as it is: the sound is in the luminance.

`FactorizedColour` is the published way (Factorized Diffusion, Geng et al. 2024, and Images that Sound, Chen
et al. 2024): a picture is the sum of a gray component and a chroma, x = Y(x)·1 + (x − Y(x)·1); a model of
pictures denoises with the gray component held at that of the picture, and so provides the chroma alone.
`CaptionColour` is the pocket family's: a small network, one pass.

Y is Rec. 601 luminance, by which pictures are read everywhere here (published: the mean of the channels).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..audio.picture import luminance as pixel_luminance
from ..data.counts import subject
from ..errors import UserError
from ..files import read_json
from ..runs.identity import weights_fingerprint
from .family import Family, find_device
from .guidance import Branch, Guidance
from .layout import Layout
from .loading import DTYPES, load_model
from .sampling import Predict, make_scheduler, noise, sample, set_steps

LUMA = (0.299, 0.587, 0.114)  # Rec. 601


def luminance(rgb: Tensor) -> Tensor:
    """(…, 3, H, W) → (…, H, W)."""
    return torch.einsum("...chw,c->...hw", rgb, torch.tensor(LUMA, dtype=rgb.dtype, device=rgb.device))


def with_gray(rgb: Tensor, gray: Tensor) -> Tensor:
    """The chroma of (B, 3, H, W) on the luminance (B, H, W): x − Y(x) + gray."""
    return rgb + (gray - luminance(rgb))[..., None, :, :]


# Steps of red, green and blue by which rounding is mended, the smallest first.
MENDS = sorted(product(range(-2, 3), repeat=3), key=lambda step: sum(abs(part) for part in step))


def paint(gray: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """The coloured picture whose 8-bit luminance is exactly `gray`.

    Args:
        gray: (H, W) uint8. chroma: (3, H, W), what is added to red, green and blue of [0, 1]; of any
            luminance, which is taken away.

    Returns (H, W, 3) uint8. Where a colour would leave the cube it is paled, never brightened.
    """
    y = gray.astype(np.float64) / 255
    chroma = chroma - np.tensordot(LUMA, chroma, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(chroma > 0, (1 - y) / chroma, np.where(chroma < 0, -y / chroma, 1.0)).min(0)
    pixels = np.round(255 * (y + chroma * np.clip(room, 0, 1)).clip(0, 1)).astype(np.int64).transpose(1, 2, 0)
    rows, columns = np.nonzero(pixel_luminance(pixels) != gray)
    for step in MENDS:
        if not len(rows):
            break
        mended = pixels[rows, columns] + np.array(step)
        good = ((mended >= 0) & (mended <= 255)).all(1)
        good &= pixel_luminance(mended.clip(0, 255)[None])[0] == gray[rows, columns]
        pixels[rows[good], columns[good]] = mended[good]
        rows, columns = rows[~good], columns[~good]
    pixels[rows, columns] = gray[rows, columns][:, None]
    return pixels.astype(np.uint8)


class Colorizer(ABC):
    """What gives a gray picture its colours. Building one checks its files; `load` reads them."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What its colours depend on, beside the picture, its prompt and the seed."""

    def load(self, device: str) -> None:  # noqa: B027  # one without a network has nothing to load
        """Load weights. Raises UserError when they cannot be had."""

    @abstractmethod
    def chroma(self, gray: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """(H, W) uint8 → what `paint` adds, (3, H, W)."""


class CaptionColour(Colorizer):
    """Colours by a small network that has learnt what is of which colour.

    Args:
        weights: folder of a `ChromaNet`. text_encoder, tokenizer: those it was trained with.

    Raises UserError on a folder that is missing.
    """

    def __init__(self, weights: str | Path, text_encoder: str | Path, tokenizer: str | Path):
        self.folders = {"weights": Path(weights), "text_encoder": Path(text_encoder),
                        "tokenizer": Path(tokenizer)}
        for key, folder in self.folders.items():
            if not folder.is_dir():
                raise UserError(f"colorizer.{key}={folder}: no such folder (python train.py "
                                "experiment=pocket/colour makes the pocket one)")

    @property
    def identity(self) -> dict[str, Any]:
        return {key: weights_fingerprint(folder) for key, folder in self.folders.items()}

    def load(self, device: str) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        from ..networks.chroma import ChromaNet
        from ..networks.text import TextConditioner

        self.device = find_device(device)
        encoder = load_model(CLIPTextModel, self.folders["text_encoder"], torch.float32)
        words = CLIPTokenizer.from_pretrained(str(self.folders["tokenizer"]), local_files_only=True)
        self.text = TextConditioner(encoder, words).to(self.device)
        self.network = load_model(ChromaNet, self.folders["weights"], torch.float32).to(self.device)

    @torch.no_grad()
    def chroma(self, gray: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """Its colours do not depend on the seed."""
        from ..networks.chroma import reduced

        picture = torch.from_numpy(gray.astype(np.float32) / 255)[None].to(self.device)
        pooled = self.text.encode({"input_ids": self.text.tokenize([prompt]).to(self.device)}).pooled
        ratio = interpolate(self.network(reduced(picture), pooled), size=gray.shape, mode="bilinear")
        return (picture * from_ratio(ratio)[0]).cpu().numpy()


def from_ratio(ratio: Tensor) -> Tensor:
    """(B, 2, H, W) of (R − Y)/Y, (B − Y)/Y → (B, 3, H, W) of all three, whose luminance is 0."""
    red, blue = ratio.unbind(1)
    return torch.stack([red, -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1], blue], 1)


def colorize(predict: Predict, gray: Tensor, encode: Callable[[Tensor], Tensor],
             decode: Callable[[Tensor], Tensor], scheduler: Any, steps: int, start: int,
             epsilon: Tensor) -> Tensor:
    """Denoise with the gray component held fixed.

    At every step the gray component of x̂₀ is replaced by `gray`. Under DDIM the gray component of x_t is then
    α_t·gray + σ_t·ε with one ε, where the published sampler draws a new ε for it at every step. In a latent
    space, where gray is no linear component, x̂₀ is decoded for it and encoded again.

    Args:
        predict: (x_t, t, progress) → x̂₀, as `sampling.sample` takes it.
        gray: (B, H, W) in [0, 1].
        encode, decode: from colour pictures (B, 3, H, W) in [0, 1] to the space that `predict` denoises in,
            and back.
        scheduler: DDIM, from `make_scheduler`. start: steps that are left out: x begins as the gray picture
            noised for step `start`.
        epsilon: standard normal noise in the shape of x.

    Returns (B, 3, H, W) of luminance `gray`, not clamped.
    """
    def fixed(x: Tensor, t: Tensor, progress: float) -> Tensor:
        return encode(with_gray(decode(predict(x, t, progress)), gray))

    set_steps(scheduler, steps, epsilon.device)
    x = encode(gray[:, None].expand(-1, 3, -1, -1))
    x = scheduler.add_noise(x, epsilon, scheduler.timesteps[start][None])
    return with_gray(decode(sample(fixed, x, scheduler, steps, first=start)), gray)


class FactorizedColour(Colorizer):
    """Colours by a text-to-image model that denoises with the gray held fixed, as published.

    Args:
        family: whose image branch and colour autoencoder provide the colours.
        steps, start, scale: denoising steps, how many of them are left out, guidance.
        template: what the subject of the image prompt is put into, at {}.
        dtype: of the UNet, a key of DTYPES.

    Raises UserError on a family without colours, or settings out of range.
    """

    def __init__(self, family: Layout, steps: int = 30, start: int = 7, scale: float = 10.0,
                 template: str = "a colorful photo of {}", dtype: str = "float32"):
        if read_json(family.vae / "config.json").get("in_channels") != 3:
            raise UserError(f"colorizer.family: the autoencoder {family.vae} knows no colours "
                            "(colorizer=pocket serves the pocket family)")
        if not 0 <= start < steps:
            raise UserError(f"colorizer.start={start}: expected 0 to {steps - 1} of colorizer.steps={steps}")
        if template.count("{}") != 1:
            raise UserError(f"colorizer.template={template!r}: expected one {{}} for the subject")
        if dtype not in DTYPES:
            raise UserError(f"colorizer.dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
        self.layout, self.steps, self.start, self.scale = family, steps, start, scale
        self.template, self.dtype = template, dtype
        set_steps(self._scheduler(), steps)

    def _scheduler(self) -> Any:
        return make_scheduler("ddim", self.layout.schedule)

    @property
    def identity(self) -> dict[str, Any]:
        return {"unet": str(self.layout.unet["image"]), "steps": self.steps, "start": self.start,
                "scale": self.scale, "template": self.template}

    def load(self, device: str) -> None:
        self.family = Family.load(self.layout, ("image", "vae"), device=device, dtype=self.dtype)

    @torch.no_grad()
    def chroma(self, gray: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        family = self.family
        told = family.text_condition("image", [self.template.replace("{}", subject(prompt))])
        branch = Branch(family.predictors["image"], told, family.null("image", 1), Guidance(self.scale))
        picture = torch.from_numpy(gray.astype(np.float32) / 255)[None].to(family.device)
        coloured = colorize(lambda x, t, progress: branch(x, t, progress, False).guided, picture,
                            family.encode_colour, family.decode_colour, self._scheduler(), self.steps,
                            self.start,
                            noise([seed], self.layout.latent_shape).to(family.device))
        return (coloured - picture[:, None])[0].cpu().numpy()
