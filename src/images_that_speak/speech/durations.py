"""How long each phone lasts, and the plan of a phrase within the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..audio.mel import MEL
from ..errors import UserError, nearest
from ..files import atomic_path, read_json, write_json
from ..ranges import check_ranges
from ..resources import weights_dir
from ..weights import finite
from .phonemes import PAUSE, PHONE_IDS, PHONES, UNKNOWN, text_to_phones
from .tts import Phone

PLACES = ("begin", "centre")  # where a phrase may lie in its picture
EDGE = 0.15  # seconds kept between the begin of a picture and a phrase that lies there

SHORTEST, LONGEST = 0.01, 1.0  # seconds that a phone may be predicted to last


class _Block(nn.Module):
    """x + conv(gelu(conv(norm x))) along time; nothing leaks out of the padding."""

    def __init__(self, width: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x (B, L, D), keep (B, L, 1) of 0 and 1 → (B, L, D)."""
        hidden = (self.norm(x) * keep).transpose(1, 2)
        hidden = nn.functional.gelu(self.first(hidden)) * keep.transpose(1, 2)
        return (x + self.dropout(self.second(hidden)).transpose(1, 2)) * keep


class DurationModel(nn.Module):
    """Phones and a voice → seconds of each phone: each phone's mean, corrected by its neighbours.

    voices: names, numbered from 1 in this order.
    """

    def __init__(self, voices: Sequence[str], width: int = 96, layers: int = 2, kernel: int = 5,
                 dropout: float = 0.1):
        super().__init__()
        self.voices = list(voices)
        self.config = {"voices": self.voices, "width": width, "layers": layers, "kernel": kernel,
                       "dropout": dropout}
        self.mean = nn.Embedding(len(PHONES), 1)
        nn.init.constant_(self.mean.weight, float(np.log(0.08)))
        self.phone = nn.Embedding(len(PHONES), width)
        self.voice = nn.Embedding(len(self.voices) + 1, width)
        self.blocks = nn.ModuleList(_Block(width, kernel, dropout) for _ in range(layers))
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.out = nn.Sequential(nn.LayerNorm(width), last)

    def forward(self, phones: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
        """phones (B, L) ids, mask (B, L) bool, voice (B,) from 1 → (B, L) ln seconds."""
        keep = mask[..., None].to(self.phone.weight.dtype)
        hidden = (self.phone(phones) + self.voice(voice)[:, None]) * keep
        for block in self.blocks:
            hidden = block(hidden, keep)
        return (self.mean(phones) + self.out(hidden))[..., 0]

    def voice_id(self, voice: str | None) -> int:
        """A voice's number; None is the first. Raises UserError on an unknown name."""
        if voice is None:
            return 1
        if voice not in self.voices:
            raise UserError(f"voice={voice!r}: expected one of {', '.join(self.voices)}."
                            f"{nearest(voice, self.voices)}")
        return self.voices.index(voice) + 1

    @torch.no_grad()
    def predict(self, symbols: Sequence[str], voice: str | None = None) -> np.ndarray:
        """Seconds (L,) of each phone of one utterance, which begins and ends with "pau"."""
        device = self.phone.weight.device
        ids = torch.tensor([[PHONE_IDS.get(symbol, PHONE_IDS[UNKNOWN]) for symbol in symbols]], device=device)
        mode = self.training
        self.eval()
        said = self(ids, torch.ones_like(ids, dtype=torch.bool),
                    torch.tensor([self.voice_id(voice)], device=device))
        self.train(mode)
        return said[0].exp().clamp(SHORTEST, LONGEST).double().cpu().numpy()

    def save_pretrained(self, folder: str | Path, report: dict[str, Any] | None = None) -> None:
        """Write config.json (with `report`, what was measured) and model.safetensors in fp16."""
        weights = {name: value.detach().cpu().half() for name, value in self.state_dict().items()}
        with atomic_path(Path(folder) / "model.safetensors") as path:
            save_file(weights, path)
        write_json(Path(folder) / "config.json", {
            **self.config, "phones": list(PHONES), "mel_spec_hash": MEL.hash, "mel_spec": MEL.to_dict(),
            "report": report or {}})

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> DurationModel:
        """Load a folder of `save_pretrained`, by default the model that ships with the project.

        Raises UserError when a file is missing or truncated, or made for other phones or another mel spec.
        """
        folder = Path(folder or weights_dir() / "speech" / "durations")
        config = read_json(folder / "config.json")
        MEL.check(config.get("mel_spec"), folder / "config.json")
        if config.get("phones") != list(PHONES):
            raise UserError(f"{folder / 'config.json'}: made for another set of phones; train it again")
        file = folder / "model.safetensors"
        if not file.exists():
            raise UserError(f"{file}: no such file")
        try:
            model = cls(**{key: config[key] for key in ("voices", "width", "layers", "kernel", "dropout")})
            model.load_state_dict({name: value.float() for name, value in load_file(file).items()})
        except KeyError as error:
            raise UserError(f"{folder / 'config.json'}: no key {error}") from error
        except (SafetensorError, RuntimeError, OSError) as error:
            raise UserError(f"{file}: not the weights of a duration model ({error})") from error
        return finite(model, file).eval()


def plan_speech(text: str, durations: DurationModel, voice: str | None = None, seconds: float = MEL.seconds,
                start: str | float = "centre", pause: float = 0.0, rate: float = 1.0) -> list[Phone]:
    """When each phone of `text` sounds within a picture of `seconds`.

    start: seconds at which the first phone begins; or "begin", which is `EDGE`, or less for a phrase that
    is too long for it, and leaves the rest of the picture in one piece; or "centre". pause: seconds of
    silence between words. rate: 2 is twice as fast. Begins and ends with a pause ("pau"), of no length
    where there is no room.
    Raises UserError when the text cannot be said (normalise_text) or does not fit.
    """
    check_ranges({"phonemes.rate": rate})
    if not 0 <= pause <= seconds:
        raise UserError(f"pause={pause}: expected 0 to {seconds:g} seconds")
    if isinstance(start, str) and start not in PLACES:
        raise UserError(f"start={start!r}: expected 'begin', 'centre' or a number of seconds."
                        f"{nearest(start, PLACES)}")
    words = text_to_phones(text)
    symbols = [PAUSE, *(phone for word in words for phone in word), PAUSE]
    lasts = durations.predict(symbols, voice)
    lead, tail, spoken = float(lasts[0]), float(lasts[-1]), lasts[1:-1] / rate
    length = float(spoken.sum() + pause * (len(words) - 1))
    if length > seconds:
        raise UserError(f"text of {len(words)} words ({text[:40]!r}{'…' if len(text) > 40 else ''}): takes "
                        f"{length:.1f} s (expected at most {seconds:g} s); use about "
                        f"{int(len(words) * seconds / length)} words, or a higher rate")
    room = seconds - length
    clock = {"begin": min(EDGE, room / 2), "centre": room / 2}[start] if isinstance(start, str) else start
    if not 0 <= clock <= seconds - length + 1e-6:
        raise UserError(f"start={start}: the speech takes {length:.2f} s "
                        f"(expected 0 to {seconds - length:.2f})")
    phones = [Phone(PAUSE, max(0.0, clock - lead), clock)]
    at = 0
    for number, word in enumerate(words):
        if number and pause:
            phones.append(Phone(PAUSE, clock, clock + pause))
            clock += pause
        for symbol in word:
            phones.append(Phone(symbol, clock, clock := clock + float(spoken[at])))
            at += 1
    phones.append(Phone(PAUSE, clock, max(clock, min(seconds, clock + tail))))
    return phones


if __name__ == "__main__":  # it trained here before
    raise SystemExit("trained by: python train.py experiment=pocket/durations")
