"""Sample folders: image.png, spectrogram.png, speech.wav, and sample.json last, which makes them complete.

What is seen is what is played: the picture is brought to 8 bits first, and the speech is decoded from those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..audio.picture import colour_map, luminance, quantise, to_grid, write_png
from ..audio.wave import wave_bytes
from ..errors import UserError
from ..files import atomic_path, atomic_write, content_hash
from ..runs.sample import RECORD, Sample

FILES = ("image.png", "spectrogram.png", "speech.wav", RECORD)


def sample_id(image_prompt: str, audio_prompt: str, seed: int) -> str:
    """The name of a sample's folder: a hash of prompts and seed, so that samples of all runs line up."""
    return content_hash({"image_prompt": image_prompt, "audio_prompt": audio_prompt, "seed": int(seed)})


def read_complete(folder: Path, identity: str) -> dict[str, Any] | None:
    """The record of a sample that is whole, or None when it still has to be made."""
    if not all((folder / name).is_file() for name in FILES):
        return None
    try:
        record = Sample.read(folder).record
    except UserError:
        return None
    return record if record.get("sample_id") == identity else None


def write_sample(folder: Path, picture: np.ndarray, vocoder: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Write a sample folder and return the record.

    Args:
        picture: (256, F) in [0, 1], or (H, W, 3) uint8 of any size, which is played as its message.
        vocoder: decodes the 8-bit picture into the wave.
        record: what sample.json holds.

    Raises UserError when the picture or the sound is not finite, the disk is full or the folder cannot be
    written; files already there stay whole.
    """
    seen = quantise(picture)
    message = seen if seen.ndim == 2 else to_grid(luminance(seen)) / 255
    # Before anything is written: a sample is whole or not there.
    sound = wave_bytes(vocoder.decode_message(message[None])[0].cpu().numpy(), folder / "speech.wav")
    write_png(folder / "image.png", seen)
    with atomic_path(folder / "spectrogram.png") as temporary:
        colour_map(message).save(temporary, format="PNG")
    atomic_write(folder / "speech.wav", sound)
    Sample(folder, record).write()
    return record
