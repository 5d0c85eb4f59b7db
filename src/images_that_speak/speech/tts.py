"""Text to speech: one small contract, and the two synthesisers that keep it by themselves.

A backend speaks one phrase and says when each phone sounds. Anything that can do both becomes a backend by
implementing `TTS` and joining `backends.BACKENDS`; one that only speaks has its phones found (neural.py).
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from ..packages import how

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Phone:
    """One phone: its ARPAbet symbol in lower case ("pau" for silence), start and end in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """A spoken phrase: `wave` (T,) float32 in [-1, 1] at 16 kHz, and its phones in order of time."""

    wave: np.ndarray
    phones: list[Phone]


class SpeechError(UserError):
    """The synthesiser could not speak this one phrase; others may still work."""


class TTS(ABC):
    """What the corpus builder asks of a synthesiser.

    `name` and `version` enter the identity of every clip, so `version` must change when the sound does.
    An instance is pickled to worker processes: keep open libraries and models out of `__init__`.
    """

    name: str
    version: str
    voices: tuple[str, ...]

    @abstractmethod
    def speak(self, text: str, voice: str) -> Utterance:
        """Speak `text` at natural speed. Raises SpeechError when this phrase cannot be spoken."""

    def sound(self, text: str, voice: str) -> np.ndarray:
        """What `speak` says, (T,) float32 at 16 kHz, without asking when each phone sounds."""
        return self.speak(text, voice).wave

    def say(self, prompt: Any) -> Utterance:
        """Speak a `data.prompts.Prompt`, which may be more than its text and voice."""
        return self.speak(prompt.text, prompt.voice)

    def check_voice(self, voice: str) -> None:
        """Raise UserError when `voice` is not one of this synthesiser's."""
        if voice not in self.voices:
            raise UserError(f"tts={self.name}: no voice {voice!r} (expected one of {', '.join(self.voices)})."
                            + nearest(voice, self.voices))


def resample(wave: np.ndarray, rate: int, target: int = SAMPLE_RATE) -> np.ndarray:
    """(T,) at `rate` → (T · target / rate,) float32 at `target`, band-limited."""
    wave = np.asarray(wave, np.float32)
    if rate == target or not len(wave):
        return wave
    import torch
    from torchaudio.functional import resample as sinc

    return sinc(torch.from_numpy(wave), rate, target).numpy()


def one_sentence(text: str) -> str:
    """Full stops become commas: a synthesiser starts its clock anew with each sentence."""
    text = re.sub(r"[.!?;:\n]+", ",", text)
    return re.sub(r"\s+", " ", text).strip(" ,")


# Flite's phone set has a few allophones that the dictionary never asks for.
FLITE_FOLD = {"axr": "er", "el": "l", "em": "m", "en": "n", "nx": "n", "dx": "t", "hv": "hh", "ssil": "pau",
              "brth": "pau"}


class Flite(TTS):
    """Debian's `flite`. `-psdur` prints each phone with the time it ends, so alignments cost nothing."""

    name = "flite"

    def __init__(self, command: str = "flite"):
        found = shutil.which(command)
        if found is None:
            raise UserError(f"tts=flite: the program {command!r} is not installed "
                            "(run `make setup`, or install Debian's package flite)")
        self.command = found
        text = self._run("--version")
        match = re.search(r"flite-(\S+)", text)
        self.version = match.group(1) if match else "unknown"
        self.voices = tuple(sorted(self._run("-lv").partition(":")[2].split()))

    def _run(self, *arguments: str) -> str:
        # flite's --version exits 1, so the exit status is left to `speak`, where it means something.
        return subprocess.run([self.command, *arguments], capture_output=True, encoding="utf-8",
                              check=False).stdout

    def speak(self, text: str, voice: str) -> Utterance:
        """See `TTS.speak`."""
        import soundfile

        self.check_voice(voice)
        with tempfile.TemporaryDirectory(prefix="flite-") as folder:
            path = Path(folder) / "speech.wav"
            done = subprocess.run(
                [self.command, "-voice", voice, "-psdur", "-t", one_sentence(text), "-o", str(path)],
                capture_output=True, encoding="utf-8", check=False)
            if done.returncode != 0 or not path.exists():
                raise SpeechError(f"tts=flite: {text!r} could not be spoken ({done.stderr.strip()[:200]})")
            wave, rate = soundfile.read(path, dtype="float32")
        phones, clock = [], 0.0
        for token in done.stdout.split():
            symbol, _, end = token.rpartition(":")
            if not symbol or float(end) < clock:
                raise SpeechError(f"tts=flite: {text!r}: unexpected timing {token!r} after {clock:g} s")
            phones.append(Phone(FLITE_FOLD.get(symbol, symbol), clock, float(end)))
            clock = float(end)
        if not any(phone.symbol != "pau" for phone in phones):
            raise SpeechError(f"tts=flite: {text!r} holds nothing to speak")
        return Utterance(resample(wave, rate), phones)


# espeak-ng's IPA names → one or two ARPAbet phones (a phone of two shares the time equally).
IPA_TO_ARPABET: dict[str, tuple[str, ...]] = {
    "ɑ": ("aa",), "ɒ": ("aa",), "a": ("ae",), "æ": ("ae",), "ʌ": ("ah",), "ɐ": ("ax",), "ə": ("ax",),
    "ɔ": ("ao",), "aʊ": ("aw",), "aɪ": ("ay",), "ɛ": ("eh",), "e": ("eh",), "ɜ": ("er",), "ɚ": ("er",),
    "ɝ": ("er",), "eɪ": ("ey",), "ɪ": ("ih",), "ᵻ": ("ih",), "i": ("iy",), "oʊ": ("ow",), "əʊ": ("ow",),
    "o": ("ow",), "ɔɪ": ("oy",), "ʊ": ("uh",), "u": ("uw",), "b": ("b",), "tʃ": ("ch",), "d": ("d",),
    "ð": ("dh",), "f": ("f",), "ɡ": ("g",), "g": ("g",), "h": ("hh",), "dʒ": ("jh",), "k": ("k",),
    "l": ("l",), "ɫ": ("l",), "m": ("m",), "n": ("n",), "ŋ": ("ng",), "p": ("p",), "r": ("r",), "ɹ": ("r",),
    "s": ("s",), "ʃ": ("sh",), "t": ("t",), "ɾ": ("t",), "ʔ": ("t",), "θ": ("th",), "v": ("v",), "w": ("w",),
    "x": ("k",), "j": ("y",), "z": ("z",), "ʒ": ("zh",),
    "ɑɹ": ("aa", "r"), "ɔɹ": ("ao", "r"), "oɹ": ("ao", "r"), "ɪɹ": ("ih", "r"), "iɹ": ("iy", "r"),
    "ɛɹ": ("eh", "r"), "ʊɹ": ("uh", "r"), "aɪɚ": ("ay", "er"), "aɪə": ("ay", "ax"), "aʊɚ": ("aw", "er"),
    "iə": ("iy", "ax"), "əl": ("ax", "l"), "ən": ("ax", "n"),
}
_IPA_MARKS = re.compile("[ˈˌː̩ˑ̃ʲ̪ʰ̈]")


def ipa_to_arpabet(ipa: str) -> tuple[str, ...]:
    """ARPAbet phones of one espeak-ng phone; silence for a pause; unknown letters are left out one by one.

    >>> ipa_to_arpabet("ɑːɹ")
    ('aa', 'r')
    """
    if ipa.startswith("("):  # a switch of language, not a sound
        return ()
    ipa = _IPA_MARKS.sub("", ipa)
    if not ipa or ipa.startswith("_"):
        return ("pau",)
    if ipa in IPA_TO_ARPABET:
        return IPA_TO_ARPABET[ipa]
    return tuple(phone for letter in ipa for phone in IPA_TO_ARPABET.get(letter, ()))


class _EspeakId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _EspeakEvent(ctypes.Structure):
    """`espeak_EVENT` of espeak-ng's speak_lib.h."""

    _fields_ = [("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
                ("user_data", ctypes.c_void_p), ("id", _EspeakId)]


_END, _PHONEME = 0, 7
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int,
                             ctypes.POINTER(_EspeakEvent))


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The library, initialised once a process, and its sampling rate."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # 2: synchronous, the sound goes to the callback. 1 | 2: phone events, named in IPA.
    rate = library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 1 | 2)
    if rate <= 0:
        raise UserError("tts=espeak: espeak-ng could not be initialised (reinstall espeakng-loader)")
    return library, rate


class Espeak(TTS):
    """espeak-ng from the wheel `espeakng-loader`. Phone times are its own events, its IPA made ARPAbet.

    It wavers its pitch at random, and nothing it offers stops that: the same phrase spoken again differs by a
    few samples in length. A corpus is still resumed whole, for a clip that is finished is never made again.
    """

    name = "espeak"
    voices = ("en-us", "en-gb", "en-us+f3", "en-us+m3", "en-gb+f3", "en-gb+m3")

    def __init__(self, words_per_minute: int = 175):
        from importlib.metadata import PackageNotFoundError, version

        if not 80 <= words_per_minute <= 450:
            raise UserError(f"tts.words_per_minute={words_per_minute}: expected 80 to 450")
        try:
            installed = version("espeakng-loader")
        except PackageNotFoundError as error:
            raise UserError("tts=espeak: the package espeakng-loader is not installed "
                            f"({how('espeak')})") from error
        self.words_per_minute = words_per_minute
        self.version = f"{installed}-{words_per_minute}wpm"

    def speak(self, text: str, voice: str) -> Utterance:
        """See `TTS.speak`."""
        self.check_voice(voice)
        library, rate = _espeak()
        chunks: list[np.ndarray] = []
        events: list[tuple[int, str]] = []

        def collect(samples, count, event) -> int:
            if samples and count:
                chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
            index = 0
            while event[index].type != _END:
                if event[index].type == _PHONEME:
                    events.append((event[index].sample, event[index].id.string.decode("utf-8", "ignore")))
                index += 1
            return 0

        callback = _CALLBACK(collect)
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetVoiceByName(voice.encode())
        library.espeak_SetParameter(1, self.words_per_minute, 0)
        data = one_sentence(text).encode() + b"\0"
        failed = library.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None)  # UTF-8, whole text
        if failed or not chunks or not events:
            raise SpeechError(f"tts=espeak: {text!r} could not be spoken (status {failed})")
        wave = np.concatenate(chunks).astype(np.float32) / 32768
        bounds = [min(sample, len(wave)) / rate for sample, _ in events] + [len(wave) / rate]
        phones = [Phone("pau", 0.0, bounds[0])] if bounds[0] > 0 else []
        for (_, ipa), start, end in zip(events, bounds, bounds[1:], strict=False):
            symbols = ipa_to_arpabet(ipa)
            if end <= start or not symbols:
                continue
            step = (end - start) / len(symbols)
            phones += [Phone(symbol, start + i * step, start + (i + 1) * step)
                       for i, symbol in enumerate(symbols)]
        if not any(phone.symbol != "pau" for phone in phones):
            raise SpeechError(f"tts=espeak: {text!r} holds nothing to speak")
        return Utterance(resample(wave, rate), phones)
