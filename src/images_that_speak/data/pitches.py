"""The pitch of a corpus' clips, tracked once and kept in one safetensors file.

"hertz" (N, 1024) float16. The metadata names the corpus; a file of another is refused. Rows are written as
they are found: a tracking that was stopped goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from ..errors import UserError
from ..files import atomic_path
from ..speech.pitch import pitch_contour
from .manifest import Corpus

KEPT = 512  # clips after which what was found is written


def cache_pitch(corpus: Corpus, identity: str, path: str | Path) -> None:
    """Track the pitch of every clip, unless `path` holds it already.

    Raises UserError when the file is there and of another corpus.
    """
    rows = list(read_pitch(path, identity)) if Path(path).exists() else []
    clips = range(len(rows), len(corpus))
    for i in tqdm(clips, desc=f"Pitch of {corpus.root.name}", unit="clip", disable=not clips):
        rows.append(pitch_contour(corpus.wave(i), corpus.phones(i)).astype(np.float16))
        if len(rows) % KEPT == 0 or len(rows) == len(corpus):
            with atomic_path(path) as temporary:
                save_file({"hertz": np.stack(rows)}, temporary, {"dataset": identity})


def read_pitch(path: str | Path, identity: str, length: int | None = None) -> np.ndarray:
    """(N, 1024) float16 Hz. Raises UserError when the file is missing, broken, of another corpus, or holds
    another number of clips than `length`."""
    if not Path(path).exists():
        raise UserError(f"{path}: no such file of pitches (a training that names it in data makes it)")
    try:
        with safe_open(str(path), "np") as file:
            kept = file.metadata() or {}
            found: np.ndarray = file.get_tensor("hertz")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable file of pitches ({error})") from error
    if kept.get("dataset") != identity:
        raise UserError(f"{path}: made for another corpus ({kept.get('dataset')!r}, expected {identity!r}); "
                        "delete it or choose another")
    if length is not None and len(found) != length:
        raise UserError(f"{path}: {len(found)} clips (expected {length}); run the training again, which "
                        "goes on with them")
    return found
