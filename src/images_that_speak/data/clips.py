"""One clip of the corpus: a prompt spoken, placed in its picture, written, and checked again later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_path, content_hash, write_json
from ..speech.tts import TTS, Phone, SpeechError, Utterance
from .phrases import Prompt

PEAK = 0.95  # of full scale, so that every clip is as loud as PCM16 takes without clipping
LEAD, TAIL = 0.05, 0.12  # seconds of the synthesiser's silence kept before the first and after the last phone
FADE = 0.01  # seconds over which the kept silence rises from and falls to nothing
SILENT = 0.05  # a peak below this is no speech


class DoesNotFit(SpeechError):
    """The phrase, at natural speed, is longer than the picture."""


@dataclass(frozen=True)
class Placed:
    """A phrase inside its picture: `wave` (163840,) int16, `phones` in the picture's seconds."""

    wave: np.ndarray
    phones: list[Phone]


def clip_id(prompt: Prompt, tts: TTS, mel_hash: str) -> str:
    """Identity of a clip: everything its sound and picture depend on."""
    known = {"text": prompt.text, "voice": prompt.voice, "tts": tts.name, "version": tts.version,
             "mel": mel_hash, "offset": prompt.offset_seed}
    return content_hash(known | ({"recording": prompt.recording} if prompt.recording else {}), length=16)


def place(utterance: Utterance, offset_seed: int, samples: int, rate: int) -> Placed:
    """Trim the silence around an utterance, scale its peak to `PEAK`, and put it at a random start.

    No phone is cut or stretched; times outside the phones are exact silence, so the picture is black there.
    Raises DoesNotFit when the phones do not fit `samples`, SpeechError when the wave is silent or not finite.
    """
    wave = np.asarray(utterance.wave, np.float64)
    sounding = [i for i, phone in enumerate(utterance.phones) if phone.symbol != "pau"]
    if not sounding or not len(wave):
        raise SpeechError("nothing is spoken")
    if not np.isfinite(wave).all():
        raise SpeechError("the waveform holds NaN or infinity")
    phones = utterance.phones[sounding[0]: sounding[-1] + 1]
    if phones[-1].end > len(wave) / rate + 0.05:
        raise SpeechError(f"the phones end at {phones[-1].end:.3f} s, the wave at {len(wave) / rate:.3f} s")
    begin = max(0, round((phones[0].start - LEAD) * rate))
    end = min(len(wave), round((phones[-1].end + TAIL) * rate))
    room = samples - (end - begin)
    if room < 0:
        raise DoesNotFit(f"{(end - begin) / rate:.2f} s of speech in a picture of {samples / rate:.2f} s")
    wave = wave[begin:end].copy()
    peak = np.abs(wave).max()
    if peak < 1e-3:
        raise SpeechError("the waveform is silent")
    fade = np.minimum(1, (np.arange(len(wave)) + 0.5) / (FADE * rate))
    wave *= fade * fade[::-1] * (PEAK / peak)
    start = int(np.random.default_rng(offset_seed).integers(room + 1))
    placed = np.zeros(samples, np.int16)
    placed[start: start + len(wave)] = np.round(wave * 32767)
    shift, last = (start - begin) / rate, samples / rate
    return Placed(placed, [Phone(phone.symbol, round(max(phone.start + shift, 0.0), 4),
                                 round(min(phone.end + shift, last), 4)) for phone in phones])


class Picturer:
    """The mel transform of one process; torch is loaded when it is made."""

    def __init__(self) -> None:
        import torch

        from ..audio.mel import LogMel

        torch.set_num_threads(1)
        self.logmel = LogMel()

    def draw(self, wave: np.ndarray) -> np.ndarray:
        """Wave (T,) int16 → picture (256, T // 160) uint8, low frequency at the bottom."""
        import torch

        from ..audio.mel import logmel_to_picture
        from ..audio.picture import quantise

        # From the PCM16 samples, so that the picture can be recomputed from the file exactly.
        with torch.inference_mode():
            floats = torch.from_numpy(wave.astype(np.float32) / 32768)
            return quantise(logmel_to_picture(self.logmel(floats[None]))[0].numpy())


def paths(root: Path, clip: str) -> dict[str, Path]:
    """Where the parts of a clip lie: record, spectrogram, wave."""
    return {"record": root / "clips" / f"{clip}.json", "spectrogram": root / "spectrograms" / f"{clip}.npy",
            "wave": root / "wav" / f"{clip}.flac"}


def read_record(root: Path, clip: str) -> dict[str, Any] | None:
    """The record of a finished clip, or None when it still has to be made.

    A record is written last; one whose files have gone missing counts as unfinished.
    """
    where = paths(root, clip)
    try:
        record = json.loads(where["record"].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if "left_out" in record or (where["spectrogram"].exists() and where["wave"].exists()):
        return record
    return None


def make_clip(root: Path, prompt: Prompt, clip: str, tts: TTS, picturer: Picturer, samples: int, rate: int
              ) -> dict[str, Any]:
    """Speak, place and write one clip; return its record.

    A phrase that does not fit gets a record with `left_out` instead. A phrase that could not be spoken
    returns a record with `failed`, which is not written, so that the next run tries it again.
    """
    import soundfile

    base: dict[str, Any] = {"id": clip, "text": prompt.text, "voice": prompt.voice}
    try:
        placed = place(tts.say(prompt), prompt.offset_seed, samples, rate)
    except DoesNotFit as error:
        record = {**base, "left_out": str(error)}
        write_json(paths(root, clip)["record"], record)
        return record
    except SpeechError as error:
        return {**base, "failed": str(error)}
    where = paths(root, clip)
    with atomic_path(where["wave"]) as temporary:
        soundfile.write(temporary, placed.wave, rate, subtype="PCM_16", format="FLAC")
    with atomic_path(where["spectrogram"]) as temporary, open(temporary, "wb") as file:
        np.save(file, picturer.draw(placed.wave))
    record = {**base, "start": placed.phones[0].start,
              "seconds": round(placed.phones[-1].end - placed.phones[0].start, 4),
              "symbols": [phone.symbol for phone in placed.phones],
              "starts": [phone.start for phone in placed.phones],
              "ends": [phone.end for phone in placed.phones]}
    write_json(where["record"], record)
    return record


def check_clip(root: Path, row: dict[str, Any], samples: int, picturer: Picturer | None) -> str:
    """Why a clip is bad, or "" when it is good.

    row: its line of the manifest. With a `picturer` the picture is computed again from the wave and must
    agree to one 8-bit level (rounding may differ between machines).
    """
    from ..audio.mel import MEL
    from ..audio.wave import read_wave

    path = root / row["spectrogram"]
    if not path.exists():
        return "spectrogram missing"
    try:
        picture = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        return f"spectrogram unreadable ({error})"
    if picture.shape != (MEL.n_mels, samples // MEL.hop) or picture.dtype != np.uint8:
        return f"spectrogram of shape {picture.shape} and type {picture.dtype}"
    if not picture.any():
        return "spectrogram silent"
    try:
        wave = read_wave(root / row["wave"], MEL.sample_rate)
    except UserError as error:
        return f"wave unreadable ({error})"
    if len(wave) != samples:
        return f"wave of {len(wave)} samples (expected {samples})"
    if np.abs(wave).max() < SILENT:
        return "wave silent"
    starts, ends = np.asarray(row["starts"], float), np.asarray(row["ends"], float)
    if not len(starts) or len(starts) != len(ends) or len(starts) != len(row["symbols"]):
        return "phones missing"
    times = np.concatenate([[0], np.stack([starts, ends], 1).ravel(), [samples / MEL.sample_rate]])
    # Written so that NaN fails too.
    if not ((np.diff(times) >= 0).all() and (starts[1:] - ends[:-1] <= 1e-3).all()):
        return "phone times not in order"
    speech = wave[int(starts[0] * MEL.sample_rate): int(np.ceil(ends[-1] * MEL.sample_rate))]
    if np.abs(speech).max() < SILENT:
        return "no sound where the phones are"
    if picturer is not None:
        again = picturer.draw(np.round(wave * 32768).astype(np.int16))
        difference = int(np.abs(again.astype(int) - picture.astype(int)).max())
        if difference > 1:
            return f"spectrogram differs from its wave by {difference} levels"
    return ""
