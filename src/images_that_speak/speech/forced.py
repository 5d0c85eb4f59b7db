"""Forced alignment: given a sound and its words, when each phone sounds.

`PocketsphinxAligner` needs nothing but the wheel. `align_emissions` does the same from the frame by frame
log-probabilities of any CTC recogniser, by torchaudio's `forced_align`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .phonemes import PAUSE, text_to_phones
from .tts import SAMPLE_RATE, Phone, SpeechError

if TYPE_CHECKING:
    from torch import Tensor

# (T,) at 16 kHz and its text → phones in order of time, pauses among them. Raises SpeechError.
Aligner = Callable[[np.ndarray, str], list[Phone]]

FRAMES = 100  # a second, of pocketsphinx
FLOOR = 50.0  # dB below the peak: digital silence would dominate the cepstral mean


class PocketsphinxAligner:
    """Viterbi alignment by the acoustic model in pocketsphinx's wheel, in two passes: words, then phones.

    The phones are those of `phonemes.text_to_phones`; between words there may be silence. About as many
    seconds as 0.05 of the sound's own.
    """

    def __call__(self, wave: np.ndarray, text: str) -> list[Phone]:
        """Phones of (T,) float32 at 16 kHz. Raises SpeechError when `text` cannot lie on the sound."""
        words = text_to_phones(text)
        peak = float(np.abs(wave).max(initial=0))
        if peak < 1e-4 or len(wave) < SAMPLE_RATE // 10:
            raise SpeechError(f"{text!r}: there is no sound to align it to")
        noise = np.random.default_rng(0).standard_normal(len(wave)) * 10 ** (-FLOOR / 20)
        samples = (np.clip(0.9 * (wave / peak + noise), -1, 1) * 32767).astype(np.int16).tobytes()
        decoder = self._decoder
        names = [self._name(phones) for phones in words]
        try:
            decoder.set_align_text(" ".join(names))
            self._run(samples)
            decoder.set_alignment()
            self._run(samples)
            # Read while it is gone through: what it yields does not outlive the next step.
            found = [(word.name, [(phone.start, phone.duration) for phone in word])
                     for word in decoder.get_alignment()]
        except (RuntimeError, TypeError) as error:  # TypeError: there is no alignment to go through
            raise SpeechError(f"{text!r} cannot be aligned with {len(wave) / SAMPLE_RATE:.2f} s of sound"
                              ) from error
        spoken = [(name, times) for name, times in found if name.startswith("_")]
        if [name for name, _ in spoken] != names:
            raise SpeechError(f"{text!r} cannot be aligned with {len(wave) / SAMPLE_RATE:.2f} s of sound")
        phones: list[Phone] = []
        for (_, times), symbols in zip(spoken, words, strict=True):
            phones += [Phone(symbol, start / FRAMES, (start + duration) / FRAMES)
                       for symbol, (start, duration) in zip(symbols, times, strict=True)]
        return with_pauses(phones, len(wave) / SAMPLE_RATE)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a decoder cannot be pickled; another process builds its own

    @cached_property
    def _decoder(self) -> Any:
        from pocketsphinx import Decoder

        return Decoder(lm=None, loglevel="FATAL", bestpath=False)

    def _name(self, phones: Sequence[str]) -> str:
        """A word for every pronunciation, so that no variant of the wheel's dictionary is chosen."""
        name = "_" + "_".join(phones)
        if self._decoder.lookup_word(name) is None:
            # The acoustic model has no schwa of its own.
            self._decoder.add_word(name, " ".join("AH" if p == "ax" else p.upper() for p in phones), False)
        return name

    def _run(self, samples: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(samples, full_utt=True)
        self._decoder.end_utt()


def with_pauses(phones: Sequence[Phone], seconds: float) -> list[Phone]:
    """The phones with what lies before, between and after them as pauses, up to `seconds`."""
    found, clock = [], 0.0
    for phone in phones:
        if phone.start > clock + 1e-6:
            found.append(Phone(PAUSE, clock, phone.start))
        found.append(phone)
        clock = phone.end
    return [*found, Phone(PAUSE, clock, seconds)] if seconds > clock + 1e-6 else found


def align_emissions(log_probs: Tensor, symbols: Sequence[str], text: str, seconds: float,
                    blank: int = 0) -> list[Phone]:
    """Phones of `text` on the log-probabilities (T, C) of a CTC recogniser whose T frames last `seconds`.

    symbols: what the C columns stand for. A phone lasts as long as its symbol is emitted; what the blank
    keeps between two phones of a word is shared by both, between words it is a pause. Raises SpeechError
    when there are too few frames or the recogniser does not know a phone.
    """
    import torch
    from torchaudio.functional import forced_align, merge_tokens

    words = text_to_phones(text)
    spoken = [phone for word in words for phone in word]
    known = {symbol: i for i, symbol in enumerate(symbols)}
    strange = sorted({phone for phone in spoken if phone not in known})
    if strange:
        raise SpeechError(f"{text!r}: the recogniser does not know {', '.join(strange)}")
    targets = torch.tensor([[known[phone] for phone in spoken]], dtype=torch.int32)
    try:
        path, scores = forced_align(log_probs[None].float().cpu().contiguous(), targets, blank=blank)
    except RuntimeError as error:
        raise SpeechError(f"{text!r} cannot be aligned with {seconds:.2f} s of sound") from error
    spans = merge_tokens(path[0], scores[0].exp(), blank)
    step = seconds / len(log_probs)
    edges = np.array([[span.start, span.end] for span in spans], np.float64) * step
    first = np.cumsum([0, *(len(word) for word in words)])[:-1]
    for i in range(1, len(edges)):
        if i not in first:  # within a word
            edges[i - 1, 1] = edges[i, 0] = (edges[i - 1, 1] + edges[i, 0]) / 2
    return with_pauses([Phone(symbol, float(start), float(end))
                        for symbol, (start, end) in zip(spoken, edges, strict=True)], seconds)
