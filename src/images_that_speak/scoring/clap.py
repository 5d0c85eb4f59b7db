"""CLAP: how well a sound fits a text, and vectors of sounds for FAD and KAD."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio.mel import MEL
from ..errors import UserError
from ..figures import of
from ..hub import out_of_reach
from ..speech.tts import resample
from ..weights import finite
from .metric import Clip, Metric, Scores


@lru_cache(maxsize=1)
def load_clap(model: str, device: str) -> tuple[Any, Any]:
    """(ClapModel, ClapProcessor), kept, since several metrics may ask for the same. Raises UserError."""
    from transformers import ClapModel, ClapProcessor

    try:
        cached = out_of_reach(model)
        processor = ClapProcessor.from_pretrained(model, local_files_only=cached)
        network = ClapModel.from_pretrained(model, dtype=torch.float32, local_files_only=cached)
    # Everything a missing, truncated or foreign folder makes these libraries raise.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"CLAP model={model}: cannot be loaded (expected a folder or a hub id such as "
                        f"laion/clap-htsat-unfused, 0.6 GB; {reason})") from error
    return finite(network, f"CLAP model={model}").to(device).eval().requires_grad_(False), processor  # type: ignore[arg-type]


class Clap:
    """A CLAP model. model: a folder that transformers loads, or a hub id."""

    def __init__(self, model: str = "laion/clap-htsat-unfused", device: str = "cpu"):
        self.model, self.device = model, device
        # Longer ones would be cut at a random place.
        self.protocol = "resampled to 48 kHz, the middle 10 s of 10.24 s, one vector of norm 1 a clip"

    def load(self) -> None:
        self.network, self.processor = load_clap(self.model, self.device)

    @torch.inference_mode()
    def embed_waves(self, waves: Sequence[np.ndarray]) -> Tensor:
        """Waves (T,) at 16 kHz → (N, D) of norm 1."""
        extractor = self.processor.feature_extractor
        most = extractor.max_length_s * extractor.sampling_rate
        cut = []
        for wave in waves:
            wave = resample(wave, MEL.sample_rate, extractor.sampling_rate)
            start = max(0, len(wave) - most) // 2
            cut.append(wave[start:start + most])
        inputs = extractor(cut, sampling_rate=extractor.sampling_rate, return_tensors="pt").to(self.device)
        return self.network.get_audio_features(**inputs).pooler_output.float().cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) of norm 1."""
        inputs = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        found = self.network.get_text_features(**inputs.to(self.device)).pooler_output
        return torch.nn.functional.normalize(found.float().cpu(), dim=-1)


class ClapScore(Metric):
    """`clap`: the cosine of a sound and its audio prompt, at least 0, as Images that Sound reports it."""

    figures = of("clap")

    def __init__(self, model: str = "laion/clap-htsat-unfused", device: str = "cpu"):
        self.clap = Clap(model, device)
        self.weights = f"CLAP {model}"
        self.protocol = f"cosine with the audio prompt, floored at 0; {self.clap.protocol}"

    def load(self) -> None:
        self.clap.load()

    def add(self, clips: Sequence[Clip]) -> list[Scores]:
        told = [clip for clip in clips if clip.audio_prompt]
        if not told:
            return [{} for _ in clips]
        sounds = self.clap.embed_waves([clip.wave for clip in told])
        texts = self.clap.embed_texts([clip.audio_prompt or "" for clip in told])
        cosines = (sounds * texts).sum(1).clamp(min=0)
        found = {clip.name: float(cosine) for clip, cosine in zip(told, cosines, strict=True)}
        return [{"clap": found.get(clip.name)} for clip in clips]
