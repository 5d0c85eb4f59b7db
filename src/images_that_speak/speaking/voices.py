"""Sources of speech: recordings of any kind, and synthesisers by the name of their voice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..audio.mel import MEL, LogMel, logmel_to_picture
from ..errors import UserError, nearest
from ..speech.backends import load_tts
from ..speech.tts import TTS, resample
from .photographs import find_files

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".g722", ".aiff", ".aif")
MARGIN = 8  # silent columns before and after what is said
LONGEST = MEL.frames  # columns that a picture may have
CALM = 0.8  # of hibari's own pace, which is brisk
HIBARI_RATE = 24_000
QUIET = 1e-4  # peak below which a recording is silence


@dataclass(frozen=True)
class Speech:
    """What is to be said: `picture` (256, F) in [0, 1], the log-mel picture of the sound, and the words.

    text: as it is spoken; None for a recording whose words nobody gave.
    """

    picture: np.ndarray
    text: str | None = None

    @property
    def frames(self) -> int:
        return self.picture.shape[1]


def spoken_by(voice: str, text: str, rate: float = 1.0) -> np.ndarray:
    """Speak a text → (T,) float32 at 16 kHz. Raises UserError on an unknown voice or nothing to say."""
    name, _, which = voice.partition("/")
    if name not in SPEAKERS:
        raise UserError(f"voice={voice}: expected one of {', '.join(SPEAKERS)}, or a voice of the family."
                        f"{nearest(name, SPEAKERS)}")
    wave = np.asarray(SPEAKERS[name](text, which, rate), np.float32)
    if not len(wave) or not np.isfinite(wave).all() or float(np.abs(wave).max()) < QUIET:
        raise UserError(f"audio_prompt={text!r}: voice={voice} finds nothing to say in it")
    return wave


def _hibari(text: str, which: str, rate: float) -> np.ndarray:
    """Calmly, where it fits into a picture so: of words that are said slower fewer drown in a picture."""
    speaker = _load_hibari(which or "heart")
    for pace in (CALM, 1.0):
        wave = speaker(text, speed=pace * rate, seed=0)
        if len(wave) / HIBARI_RATE <= MEL.seconds - 2 * MARGIN * MEL.hop / MEL.sample_rate:
            break
    return resample(wave, HIBARI_RATE)


@cache
def _load_hibari(which: str) -> Any:
    if find_spec("hibari") is None:
        raise UserError("voice=hibari: the package hibari-tts is not installed (pip install -e '.[voices]')")
    import hibari
    from hibari.voices import VOICES

    if which not in VOICES:
        raise UserError(f"voice=hibari/{which}: expected hibari/ and one of {', '.join(VOICES)}."
                        f"{nearest(which, VOICES)}")
    try:
        return hibari.Hibari(voice=which)
    except RuntimeError as error:  # one voice is in the package, the others are fetched
        raise UserError(f"voice=hibari/{which}: {error}") from error


def _flite(text: str, which: str, rate: float) -> np.ndarray:
    return stretched_in_time(_speaker("flite").speak(text, which or "slt").wave, rate)


def _espeak(text: str, which: str, rate: float) -> np.ndarray:
    return stretched_in_time(_speaker("espeak").speak(text, which or "en-us").wave, rate)


def _kokoro(text: str, which: str, rate: float) -> np.ndarray:
    speaker: Any = _speaker("kokoro")
    return stretched_in_time(resample(*speaker.synthesise(text, which or speaker.voices[0])), rate)


def _piper(text: str, which: str, rate: float) -> np.ndarray:
    path = Path(which)
    if path.suffix != ".onnx" or not path.is_file():
        raise UserError(f"voice=piper/{which}: expected piper/ and the path of a voice, NAME.onnx")
    speaker: Any = _speaker("piper", folder=str(path.parent))
    return stretched_in_time(resample(*speaker.synthesise(text, path.stem)), rate)


@cache
def _speaker(name: str, **options: str) -> TTS:
    return load_tts(name, **options)


SPEAKERS: dict[str, Callable[[str, str, float], np.ndarray]] = {
    "hibari": _hibari, "flite": _flite, "espeak": _espeak, "kokoro": _kokoro, "piper": _piper}


ONLY_TIMES = "awb_time"  # a voice of flite's that knows nothing but the time of day


def installed_voices() -> list[str]:
    """The voices that are installed and known by name, the best first: hibari, flite/awb and so on.

    Of synthesisers with many voices those of flite alone are told apart; piper's are files of anyone.
    """
    found = ["hibari"] if find_spec("hibari") else []
    if shutil.which("flite"):
        found += [f"flite/{voice}" for voice in _speaker("flite").voices if voice != ONLY_TIMES]
    return found + [name for name, package in (("espeak", "espeakng_loader"), ("kokoro", "kokoro"))
                    if find_spec(package)]


def default_voice() -> str | None:
    """The best synthesiser that is installed, or None: then the family's speech branch speaks."""
    return "hibari" if find_spec("hibari") else "flite" if shutil.which("flite") else None


def speech_of_wave(wave: np.ndarray, text: str | None = None) -> Speech:
    """(T,) at 16 kHz → its log-mel picture, as loud as can be, with a little silence at both ends."""
    wave = 0.9 * wave / max(float(np.abs(wave).max()), 1e-9)
    wave = np.pad(trimmed(wave), MARGIN * MEL.hop)
    wave = np.pad(wave, (0, -len(wave) % MEL.hop))
    picture = logmel_to_picture(_log_mel()(torch.from_numpy(wave.astype(np.float32))[None]))[0].numpy()
    return Speech(picture, text)


@cache
def _log_mel() -> LogMel:
    return LogMel()


def trimmed(wave: np.ndarray, below: float = 40.0) -> np.ndarray:
    """A wave without the silence at its ends: frames of 10 ms that are `below` dB softer than the loudest."""
    frames = wave[: len(wave) // MEL.hop * MEL.hop].reshape(-1, MEL.hop)
    if not len(frames):
        return wave
    power = (frames.astype(np.float64) ** 2).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-below / 10))
    if not len(loud):
        return wave
    return wave[max(0, loud[0] - 2) * MEL.hop: (loud[-1] + 3) * MEL.hop]


def find_recordings(given: str) -> list[Path]:
    """The sound files that `speech` names."""
    return find_files("speech", given, SOUNDS)


def read_recording(path: Path, rate: float = 1.0) -> np.ndarray:
    """Read a sound of any rate, channels and recorder → (T,) float32 at 16 kHz, `rate` times as fast.

    Raises UserError naming the file when it is missing, broken, silent, or longer than a picture may be.
    """
    wave, given = _decoded(path)
    if not len(wave):
        raise UserError(f"speech={path}: holds no sound")
    seconds = len(wave) / given
    most = MEL.seconds * 6  # silence at the ends may be cut, so not all of it need fit
    if seconds > most:
        raise UserError(f"speech={path}: {seconds:.0f} s long (expected at most {MEL.seconds} s of speech; "
                        "cut it into sentences)")
    if not np.isfinite(wave).all():
        raise UserError(f"speech={path}: holds NaN or infinity")
    wave = resample(wave.mean(1), given)
    if float(np.abs(wave).max()) < QUIET:
        raise UserError(f"speech={path}: is silent (peak {float(np.abs(wave).max()):.1g} of 1)")
    return stretched_in_time(wave, rate)


def _decoded(path: Path) -> tuple[np.ndarray, int]:
    """(T, channels) and the rate: by libsndfile, or else by PyAV where it is installed."""
    import soundfile

    if not path.is_file():
        raise UserError(f"speech={path}: no such file")
    try:
        with soundfile.SoundFile(path) as file:
            most = int(MEL.seconds * 6 * file.samplerate) + file.samplerate
            if file.frames > most:
                raise UserError(f"speech={path}: {file.frames / file.samplerate:.0f} s long (expected at "
                                f"most {MEL.seconds} s of speech; cut it into sentences)")
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if find_spec("av") is None:
            raise UserError(f"speech={path}: not a readable sound ({error}); m4a, aac and webm need PyAV "
                            "(pip install -e '.[video]')") from error
        return _decoded_by_av(path, str(error))


def _decoded_by_av(path: Path, reason: str) -> tuple[np.ndarray, int]:
    import av

    try:
        with av.open(str(path), format="g722" if path.suffix.lower() == ".g722" else None) as file:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=MEL.sample_rate)
            chunks = [chunk.to_ndarray()[0] for frame in file.decode(audio=0)
                      for chunk in resampler.resample(frame)]
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise UserError(f"speech={path}: not a readable sound ({reason})") from error
    return (np.concatenate(chunks)[:, None] if chunks else np.zeros((0, 1), np.float32)), MEL.sample_rate


def stretched_in_time(wave: np.ndarray, rate: float) -> np.ndarray:
    """(T,) → about (T / rate,), `rate` times as fast at the same pitch, by a phase vocoder."""
    if rate == 1:
        return wave
    from torchaudio.functional import phase_vocoder

    n_fft, hop = 1024, 256
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(torch.from_numpy(wave)[None], n_fft, hop, window=window, return_complex=True)
    advance = torch.linspace(0, torch.pi * hop, n_fft // 2 + 1)[:, None]
    changed = phase_vocoder(spectrum, rate, advance)
    return torch.istft(changed, n_fft, hop, window=window)[0].numpy()
