"""The second reader of speech: a recogniser of phones trained here, and a search for words of a list."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import UserError
from ..speech.dictionary import entries, fold
from ..speech.phonemes import text_to_phones
from .heard import SAMPLE_RATE, SILENT, Heard, HeardWord, SpeechReader, check_wave, new_words, vocabulary
from .text import PLAIN
from .word_loop import WordLoop


class CTCReader(SpeechReader):
    """Phones by `networks.recogniser`, words of a closed vocabulary by `WordLoop`.

    Args:
        words: the vocabulary, or the name or path of a word list (one word a line). A word has every
            pronunciation that the dictionary gives it.
        model: "pocket", or a folder that `PhoneRecogniser.from_pretrained` loads.
        insertion: factor paid for each word; smaller hears fewer words.
        doubt: share of every frame's probability given to all symbols alike, in [0, 1): how little one wrong
            phone weighs against the rest of a word.
        batch_size: clips at once; a clip's words do not depend on it.
        device: where the recogniser runs.

    Raises:
        UserError: no recogniser there, an empty vocabulary, or words without a pronunciation (named).
    """

    name = "ctc"
    normaliser = PLAIN

    def __init__(self, words: Sequence[str] | str = "pocket_words.txt", *, model: str = "pocket",
                 insertion: float = 0.01, doubt: float = 0.02, batch_size: int = 8, device: str = "cpu"):
        from ..audio.mel import LogMel
        from ..networks.recogniser import PhoneRecogniser
        from ..resources import weights_dir

        if not 0 < insertion <= 1:
            raise UserError(f"reader.speech.insertion={insertion}: expected a number in (0, 1]")
        if not 0 <= doubt < 1:
            raise UserError(f"reader.speech.doubt={doubt}: expected a share in [0, 1)")
        if batch_size < 1:
            raise UserError(f"reader.speech.batch_size={batch_size}: expected at least 1")
        self.network = PhoneRecogniser.from_pretrained(
            weights_dir() / "ctc" if model == "pocket" else model).to(device)
        self.log_mel = LogMel().to(device)
        self.insertion, self.doubt, self.batch_size, self.device = insertion, doubt, batch_size, device
        self.words = vocabulary(words)
        self.loop = self._loop()
        self._own = (self.words, self.loop)

    def forget(self) -> None:
        self.words, self.loop = self._own

    def extend(self, texts: Iterable[str]) -> list[str]:
        new, before = new_words(texts, self.words), self.words
        if new:
            self.words = [*before, *new]
            try:
                self.loop = self._loop()
            except UserError:
                self.words = before
                raise
        return new

    def _loop(self) -> WordLoop:
        numbers = {symbol: i for i, symbol in enumerate(self.network.symbols)}
        known, lexicon, failed = entries(), {}, []
        for word in self.words:
            try:
                variants = [[phone for part in text_to_phones(word) for phone in part]]
            except UserError:
                variants = []
            others = (known.get(f"{word}({n})") for n in range(2, 10))
            variants += [fold(symbols.split()) for symbols in others if symbols]
            # A dictionary of twice the same, and a recogniser that lacks a phone, are both possible.
            heard = {tuple(numbers[phone] for phone in phones): None
                     for phones in variants if phones and set(phones) <= set(numbers)}
            if not heard:
                failed.append(word)
            lexicon[word] = list(heard)
        if failed:
            raise UserError(f"reader.speech.words: no pronunciation for {', '.join(map(repr, failed))}")
        return WordLoop(lexicon, self.insertion)

    def read(self, wave: np.ndarray) -> Heard:
        """(T,) float32 in [-1, 1] at 16 kHz → what was heard. Silence gives an empty text."""
        return self.read_many([wave])[0]

    def read_many(self, waves: Sequence[np.ndarray]) -> list[Heard]:
        """Read waves in order, those of one length together; `seconds` is a clip's share of its batch."""
        waves = [check_wave(wave) for wave in waves]
        heard = [Heard("")] * len(waves)
        lengths: dict[int, list[int]] = {}
        for index, wave in enumerate(waves):
            # A tenth of a second is less than any word.
            if np.abs(wave).max() >= SILENT and len(wave) >= SAMPLE_RATE // 10:
                lengths.setdefault(len(wave), []).append(index)
        for indices in lengths.values():
            for first in range(0, len(indices), self.batch_size):
                begun = time.perf_counter()
                chosen = indices[first:first + self.batch_size]
                found = self._read([waves[index] for index in chosen])
                seconds = (time.perf_counter() - begun) / len(chosen)
                for index, words in zip(chosen, found, strict=True):
                    heard[index] = Heard(" ".join(word.text for word in words), words, seconds)
        return heard

    def _read(self, waves: Sequence[np.ndarray]) -> list[tuple[HeardWord, ...]]:
        import torch

        # The spectrum has a floor: as loud as they can be, quiet clips lie as far above it as others.
        stack = torch.from_numpy(np.stack([wave * (0.95 / np.abs(wave).max()) for wave in waves]))
        with torch.inference_mode():
            log_probs = self.network(self.log_mel(stack.to(self.device)))
        even = np.log(self.doubt / log_probs.shape[-1]) if self.doubt else -np.inf
        mixed = np.logaddexp(log_probs.cpu().numpy().astype(np.float64) + np.log1p(-self.doubt), even)
        step = self.network.seconds_per_frame
        return [tuple(HeardWord(word.text, round(word.start * step, 3), round(word.end * step, 3))
                      for word in words) for words in self.loop.decode(mixed)]
