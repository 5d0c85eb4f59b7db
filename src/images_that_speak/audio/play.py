"""Any picture as sound: `python -m images_that_speak.audio.play picture.png speech.wav [vocoder]`.

The vocoder is griffin_lim, which needs no weights, or a folder: Auffusion's, or one trained here.
"""

from __future__ import annotations

import sys

from ..errors import UserError
from .picture import read_picture
from .vocoder import load_vocoder
from .wave import write_wave


def play(picture: str, wave: str, vocoder: str = "griffin_lim") -> None:
    """Write what a picture of any size says as a wav. Raises UserError on a file that cannot be read."""
    write_wave(wave, load_vocoder(vocoder).decode_message(read_picture(picture)[None])[0].numpy())


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("expected: python -m images_that_speak.audio.play picture.png speech.wav [vocoder]")
    try:
        play(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
