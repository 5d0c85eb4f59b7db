"""Readers of speech: what a recogniser hears in a waveform.

Reading is deterministic: a clip's result does not depend on the clips read before it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from ..errors import UserError
from ..hub import out_of_reach
from ..weights import finite
from .text import PLAIN, WHISPER, normalise

SAMPLE_RATE = 16_000
# What the acoustic model of the wheel was trained with.
FEATURES = """-lowerf 130 -upperf 6800 -nfilt 25 -transform dct -lifter 22 -feat 1s_c_d_dd
-svspec 0-12/13-25/26-38 -agc none -varnorm no -model ptm -cmn batch -remove_noise {denoise}
"""
SILENT = 1e-4  # below this peak (3 levels of 16 bits) there is nothing to hear


@dataclass(frozen=True)
class HeardWord:
    """One word and when it sounds, in seconds from the start of the wave."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Heard:
    """What was heard: the text as the reader writes it, its words with times, and the seconds it took."""

    text: str
    words: tuple[HeardWord, ...] = ()
    seconds: float = 0.0


class SpeechReader(ABC):
    """A reader of speech.

    name: as results tell it. normaliser: of `scoring.text`, for both sides of its WER. words: those that it
    knows; none where it knows any.
    """

    name: str
    normaliser: str = PLAIN
    words: list[str] = []

    @abstractmethod
    def read(self, wave: np.ndarray) -> Heard:
        """(T,) float32 in [-1, 1] at 16 kHz → what was heard. Silence gives an empty text."""

    def read_many(self, waves: Sequence[np.ndarray]) -> list[Heard]:
        """Read waves in order; one that cannot be read is refused before any is."""
        return [self.read(wave) for wave in [check_wave(wave) for wave in waves]]

    def extend(self, texts: Iterable[str]) -> list[str]:
        """Add the words of `texts` that the vocabulary lacks, and return them.

        A word outside the vocabulary can never be heard, so a prompt with one would never be right.
        """
        return []

    def forget(self) -> None:  # noqa: B027  # nothing to forget is the usual case
        """Listen for the words it was made with again, not for those that `extend` added."""


def check_wave(wave: np.ndarray) -> np.ndarray:
    """(T,) float32 or UserError saying what is wrong with `wave`."""
    wave = np.asarray(wave)
    if wave.ndim != 1 or not len(wave):
        raise UserError(f"wave of shape {wave.shape}: expected mono samples (T,)")
    if not np.issubdtype(wave.dtype, np.floating):
        raise UserError(f"wave of {wave.dtype}: expected floats in [-1, 1]")
    if not np.isfinite(wave).all():
        raise UserError("wave holds NaN or infinity")
    return wave.astype(np.float32, copy=False)


def vocabulary(words: Sequence[str] | str) -> list[str]:
    """The normalised words of a closed vocabulary, which is given as such or as a word list's name or path.

    Raises UserError when it is empty or there is no such list.
    """
    if isinstance(words, str):
        from ..resources import words as word_list

        words = word_list(words)
    found = list(dict.fromkeys(word for text in words for word in normalise(text).split()))
    if not found:
        raise UserError("reader.speech.words: the vocabulary is empty (expected at least one word)")
    return found


def new_words(texts: Iterable[str], known: Iterable[str]) -> list[str]:
    """The normalised words of `texts` that are not known yet, each once."""
    known = set(known)
    found = dict.fromkeys(word for text in texts for word in normalise(text).split())
    return [word for word in found if word not in known]


class PocketsphinxReader(SpeechReader):
    """pocketsphinx listening for a closed vocabulary: any sequence of its words, silence and noise between.

    The grammar is a loop: every word with probability 1/V, and a loop of single phones with probability
    `garbage` in all, which soaks up sound that is no word; besides, silence and noise fillers. Words of the
    phone loop are left out of what was heard. The search over a lattice that pocketsphinx runs afterwards is
    off: a loop has no language model for it to bring in, and its time grows with the number of guesses. What
    remains costs a bounded number of states a frame (`max_states`): about half a second of one core for a
    10.24 s clip, noise or not.

    Args:
        words: the vocabulary, or the name or path of a word list (one word a line). Pronunciations come from
            the dictionary inside the wheel, else from `speech.phonemes`.
        insertion: probability factor paid for each word; smaller inserts fewer words.
        garbage: probability of the phone loop; 0 leaves it out.
        silence, noise: probability of a pause and of a noise filler between words.
        language_weight: exponent on all of these, against the acoustic score.
        beam, word_beam: pruning thresholds relative to the best state.
        max_states: HMM states kept per frame before the beams narrow.
        denoise: pocketsphinx's own subtraction of steady noise.
        floor: white noise added to every clip, in dB below its peak. It hides the digital silence around
            speech, which would otherwise dominate the cepstral mean that is subtracted from every frame.
        workers: processes `read_many` may use.

    Raises:
        UserError: an empty vocabulary, or words that have no pronunciation (named).
    """

    name = "pocketsphinx"
    normaliser = PLAIN

    def __init__(
        self,
        words: Sequence[str] | str = "pocket_words.txt",
        *,
        insertion: float = 1e-2,
        garbage: float = 0.1,
        silence: float = 0.005,
        noise: float = 1e-8,
        language_weight: float = 6.5,
        beam: float = 1e-48,
        word_beam: float = 7e-29,
        max_states: int = 10_000,
        denoise: bool = False,
        floor: float = 50.0,
        workers: int = 1,
    ):
        self.settings: dict[str, Any] = dict(
            insertion=insertion, garbage=garbage, silence=silence, noise=noise,
            language_weight=language_weight, beam=beam, word_beam=word_beam, max_states=max_states,
            denoise=denoise, floor=floor,
        )
        self.workers = workers
        self.words = vocabulary(words)
        self._own = self.words
        self._built: tuple[list[str], Any] = ([], None)
        self._pool: ProcessPoolExecutor | None = None
        self._decoder  # noqa: B018 - built now, so that a word without pronunciation is told at once

    def extend(self, texts: Iterable[str]) -> list[str]:
        new = new_words(texts, self.words)
        if new:
            before = self.words
            self.words = [*before, *new]
            self.close()
            try:
                self._decoder  # noqa: B018
            except UserError:
                self.words = before
                raise
        return new

    def forget(self) -> None:
        if self.words != self._own:
            self.words = self._own
            self.close()

    def read(self, wave: np.ndarray) -> Heard:
        start = time.perf_counter()
        wave = check_wave(wave)
        peak = float(np.abs(wave).max())
        # A tenth of a second is the least the feature extractor takes.
        if peak < SILENT or len(wave) < SAMPLE_RATE // 10:
            return Heard("", (), time.perf_counter() - start)
        floor = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
        samples = np.clip(0.9 * (wave / peak + floor * 10 ** (-self.settings["floor"] / 20)), -1, 1) * 32767
        decoder = self._decoder
        if self.settings["denoise"]:
            decoder.start_stream()  # forgets the noise of the clip before
        decoder.start_utt()
        decoder.process_raw(samples.astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        words = tuple(
            HeardWord(segment.word.split("(")[0], segment.start_frame / 100, (segment.end_frame + 1) / 100)
            for segment in (decoder.seg() or ()) if segment.word[0] not in "<[_(+"
        ) if decoder.hyp() else ()
        return Heard(" ".join(word.text for word in words), words, time.perf_counter() - start)

    def read_many(self, waves: Sequence[np.ndarray]) -> list[Heard]:
        """Read waves in order, in `workers` processes when that is more than one."""
        if self.workers <= 1 or len(waves) < 2:
            return [self.read(wave) for wave in waves]
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"),
                                             initializer=_start_worker, initargs=(self.words, self.settings))
        return list(self._pool.map(_read_in_worker, [check_wave(wave) for wave in waves]))

    def close(self) -> None:
        """End the worker processes, if any."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def phones(self, word: str) -> str:
        """The pronunciation of `word` in the acoustic model's phones, or UserError naming the word."""
        from ..speech.phonemes import text_to_phones

        phones = " ".join("AH" if phone == "ax" else phone.upper()
                          for phones in text_to_phones(word) for phone in phones)
        if not phones:
            raise UserError(f"reader.speech.words: no pronunciation for {word!r}")
        return phones

    @property
    def _decoder(self) -> Any:
        """The decoder for the words as they are; the last one is kept."""
        if self._built[0] != self.words:
            self._built = (list(self.words), self._build())
        return self._built[1]

    def _build(self) -> Any:
        from pocketsphinx import Config, Decoder

        own = self.settings
        # The model's feat.params overrides the configuration, so what differs goes into a file of its own.
        with NamedTemporaryFile("w", suffix=".params", encoding="utf-8") as file:
            file.write(FEATURES.format(denoise="yes" if own["denoise"] else "no"))
            file.flush()
            decoder = Decoder(Config(
                lm=None, bestpath=False, loglevel="FATAL", featparams=file.name, wip=own["insertion"],
                lw=own["language_weight"], silprob=own["silence"], fillprob=own["noise"], beam=own["beam"],
                pbeam=own["beam"], wbeam=own["word_beam"], maxhmmpf=own["max_states"],
            ))
        missing = [word for word in self.words if decoder.lookup_word(word) is None]
        failed = []
        for word in missing:
            try:
                decoder.add_word(word, self.phones(word), False)
            except (UserError, RuntimeError):
                failed.append(word)
        if failed:
            raise UserError(f"reader.speech.words: no pronunciation for {', '.join(map(repr, failed))}")
        loop = [(0, 0, 1 / len(self.words), word) for word in self.words]
        if own["garbage"]:
            for phone in PHONES:
                decoder.add_word(f"_{phone}", phone, False)
                loop.append((0, 0, own["garbage"] / len(PHONES), f"_{phone}"))
        decoder.add_fsg("loop", decoder.create_fsg("loop", 0, 1, [*loop, (0, 1, 1.0)]))
        decoder.activate_search("loop")
        return decoder


class WhisperReader(SpeechReader):
    """Whisper, by transformers: any English words, greedy, without conditioning on what it wrote before.

    Args:
        model: a folder that transformers loads, or a hub id.
        batch_size: clips transcribed at once; a clip's text does not depend on it.
        device: where it runs. dtype: of the weights, "float32", "float16" or "bfloat16".
        offline: never ask the hub, use what it has cached.
        max_tokens: the most one clip may say; Whisper repeats itself on noise.

    Raises:
        UserError: the model cannot be loaded, named with the reason.
    """

    name = "whisper"
    normaliser = WHISPER

    def __init__(
        self,
        model: str = "openai/whisper-small.en",
        *,
        batch_size: int = 8,
        device: str = "cpu",
        dtype: str = "float32",
        offline: bool = False,
        max_tokens: int = 96,
    ):
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        if batch_size < 1:
            raise UserError(f"reader.speech.batch_size={batch_size}: expected at least 1")
        if dtype not in ("float32", "float16", "bfloat16"):
            raise UserError(f"reader.speech.dtype={dtype!r}: expected float32, float16 or bfloat16")
        cached = offline or out_of_reach(model)
        try:
            self.processor = WhisperProcessor.from_pretrained(model, local_files_only=cached)
            network: Any = WhisperForConditionalGeneration.from_pretrained(
                model, dtype=getattr(torch, dtype), local_files_only=cached)
        # Everything a missing, truncated or foreign folder makes these libraries raise.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"reader.speech.model={model}: no Whisper model can be loaded from there "
                            f"(expected a folder or a hub id such as openai/whisper-small.en; {reason})"
                            ) from error
        self.model = finite(network, f"reader.speech.model={model}").to(device).eval().requires_grad_(False)
        self.batch_size = batch_size
        self.max_tokens = min(max_tokens, self.model.config.max_target_positions - 8)

    def read(self, wave: np.ndarray) -> Heard:
        """(T,) float32 in [-1, 1] at 16 kHz, at most 30 s → what was heard, without times of words."""
        return self.read_many([wave])[0]

    def read_many(self, waves: Sequence[np.ndarray]) -> list[Heard]:
        """Read waves in order, `batch_size` at once; `seconds` is a clip's share of its batch."""
        import torch

        waves = [check_wave(wave) for wave in waves]
        for wave in waves:
            if len(wave) > 30 * SAMPLE_RATE:
                raise UserError(f"wave of {len(wave) / SAMPLE_RATE:.1f} s: expected at most 30 s")
        # Whisper invents sentences for silence; there is nothing to ask it.
        loud = [index for index, wave in enumerate(waves) if np.abs(wave).max() >= SILENT]
        heard = [Heard("")] * len(waves)
        options: dict[str, Any] = dict(do_sample=False, num_beams=1, condition_on_prev_tokens=False,
                                       max_new_tokens=self.max_tokens)
        if getattr(self.model.generation_config, "is_multilingual", False):
            options |= dict(language="en", task="transcribe")
        for first in range(0, len(loud), self.batch_size):
            start = time.perf_counter()
            chosen = loud[first:first + self.batch_size]
            inputs = self.processor([waves[index] for index in chosen], sampling_rate=SAMPLE_RATE,
                                    return_tensors="pt", return_attention_mask=True)
            with torch.inference_mode():
                tokens = self.model.generate(
                    inputs.input_features.to(self.model.device, self.model.dtype),
                    attention_mask=inputs.attention_mask.to(self.model.device), **options)
            texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
            seconds = (time.perf_counter() - start) / len(chosen)
            for index, text in zip(chosen, texts, strict=True):
                heard[index] = Heard(normalise(text), (), seconds)
        return heard


# The acoustic model's phones.
PHONES = ("AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z "
          "ZH").split()

_worker: PocketsphinxReader


def _start_worker(words: list[str], settings: dict[str, Any]) -> None:
    global _worker
    _worker = PocketsphinxReader(words, **settings)


def _read_in_worker(wave: np.ndarray) -> Heard:
    return _worker.read(wave)
