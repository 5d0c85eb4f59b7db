"""The reader of speech for whoever does not choose one: the best that is installed."""

from __future__ import annotations

import logging

from ..errors import UserError
from .faster_whisper import FasterWhisperReader
from .heard import PocketsphinxReader, SpeechReader

log = logging.getLogger(__name__)


def load_installed_reader(words: str = "pocket_words.txt", cpu_threads: int = 1) -> SpeechReader:
    """Whisper base of the extra `judges`, which hears any words; where it cannot be had, pocketsphinx.

    words: the vocabulary of pocketsphinx, as `PocketsphinxReader` takes it. cpu_threads: Whisper's cores.
    """
    try:
        return FasterWhisperReader(cpu_threads=cpu_threads)
    except UserError as error:
        log.info("heard by pocketsphinx: %s", error)
        return PocketsphinxReader(words)
