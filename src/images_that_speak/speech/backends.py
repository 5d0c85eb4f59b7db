"""The synthesisers by name."""

from __future__ import annotations

from ..errors import UserError, nearest
from .neural import Hibari, Kokoro, Piper, SpeechT5, Tacotron2
from .tts import TTS, Espeak, Flite

BACKENDS: dict[str, type[TTS]] = {"flite": Flite, "espeak": Espeak, "hibari": Hibari, "tacotron2": Tacotron2,
                                  "speecht5": SpeechT5, "kokoro": Kokoro, "piper": Piper}


def load_tts(name: str, **options: object) -> TTS:
    """The backend called `name`. Raises UserError when there is none, or its program is not installed."""
    if name not in BACKENDS:
        raise UserError(f"tts={name!r}: expected one of {', '.join(BACKENDS)}." + nearest(name, BACKENDS))
    return BACKENDS[name](**options)
