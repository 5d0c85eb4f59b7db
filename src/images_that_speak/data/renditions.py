"""The pictures that a vocoder will meet: the corpus' own, an autoencoder's of them, and with drawings.

Training on what it will have to play is how a vocoder learns to play it. The sound that belongs to a picture
is the clip's in every case: with `joint` a vocoder learns to speak what is spoken beside and under a drawing
and to leave the drawing's own sound out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..audio.mel import MEL
from ..audio.picture import quantise
from ..errors import UserError, nearest
from ..files import atomic_path, content_hash, read_json, write_json
from ..ranges import check_ranges
from .manifest import Corpus

SOURCES = ("ground_truth", "autoencoder", "joint")
SHARD = 128  # pictures of a file; 32 MiB


class Renditions:
    """Pictures of a corpus' clips as `source` says, made once and kept in shards.

    Args:
        corpus: an opened corpus, of one split.
        source: ground_truth, the corpus' own; autoencoder, decoded from their latents; joint, a drawing laid
            over each before that.
        folder: where they are kept; none is needed for ground_truth.
        autoencoder: folder of an autoencoder; joint does without when it is None.
        over: share of the joint pictures whose drawing also lies over the words, the brighter of both at
            every pixel; in the others it stops where speech sounds, as the default scene has it.
        brightness: range of the drawings' brightest part.

    Raises UserError on an unknown source, or when the folder holds the pictures of something else.
    """

    def __init__(self, corpus: Corpus, source: str = "ground_truth", folder: str | Path | None = None,
                 autoencoder: str | Path | None = None, over: float = 0.5,
                 brightness: tuple[float, float] = (0.3, 0.7), seed: int = 0):
        check_source(source, autoencoder, over)
        if source != "ground_truth" and folder is None:
            raise UserError(f"data.mel_source={source}: its pictures need a folder to be kept in "
                            "(data.rendered=DIR)")
        self.corpus, self.source, self.autoencoder = corpus, source, autoencoder
        self.over, self.brightness, self.seed = over, (float(brightness[0]), float(brightness[1])), seed
        self.folder = Path(folder) if folder is not None else Path()

    def picture(self, row: int) -> np.ndarray:
        """Picture of clip `row`, (256, 1024) uint8, memory-mapped; `prepare` has made it."""
        if self.source == "ground_truth":
            return self.corpus.picture(row)
        path = self.folder / f"shard-{row // SHARD:05d}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)[row % SHARD]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise UserError(f"{path}: not readable ({error}); delete it, and the same command makes it again"
                            ) from error

    def prepare(self) -> None:
        """Make the pictures that are not there yet. A run that was killed goes on at its shard."""
        if self.source == "ground_truth":
            return
        vae = self._load()
        claim = {"source": self.source, "mel_spec": MEL.hash, "clips": len(self.corpus),
                 "corpus": content_hash(self.corpus.table["id"].tolist()),
                 "autoencoder": None if vae is None else _identity(vae)}
        if self.source == "joint":
            claim |= {"over": self.over, "brightness": list(self.brightness), "seed": self.seed}
        index = self.folder / "index.json"
        if index.exists():
            differs = [key for key, value in claim.items() if read_json(index).get(key) != value]
            if differs:
                raise UserError(f"{self.folder}: holds other pictures (another {', '.join(differs)}); delete "
                                "it, or give another data.rendered")
        else:
            write_json(index, claim)
        from rich.progress import track

        starts = [start for start in range(0, len(self.corpus), SHARD)
                  if not (self.folder / f"shard-{start // SHARD:05d}.npy").exists()]
        for start in track(starts, description="Rendering", disable=not starts):
            rows = range(start, min(start + SHARD, len(self.corpus)))
            pictures = np.concatenate([self._render(vae, rows[at:at + 8]) for at in range(0, len(rows), 8)])
            with atomic_path(self.folder / f"shard-{start // SHARD:05d}.npy") as temporary:
                np.save(temporary, pictures)

    def _load(self) -> Any:
        from ..networks.autoencoder import load_autoencoder

        if self.autoencoder is None:
            return None
        return load_autoencoder(self.autoencoder).eval()

    @torch.no_grad()
    def _render(self, vae: Any, rows: range) -> np.ndarray:
        from ..networks.codec import decode, encode

        read = self._laid if self.source == "joint" else self.corpus.picture
        pictures = np.stack([read(row) for row in rows])
        if vae is None:
            return pictures
        tensor = torch.from_numpy(pictures)[:, None].float() / 255
        return quantise(decode(vae, encode(vae, tensor).mean)[:, 0].clamp(0, 1).numpy())

    def _laid(self, row: int) -> np.ndarray:
        """The clip's picture with a drawing, a function of (seed, clip) alone."""
        from .pictures import PictureSampler

        clip = self.corpus.table.iloc[row]
        rng = np.random.default_rng([self.seed, int(content_hash(clip["id"], 8), 16)])
        drawing = PictureSampler(self.seed, self.brightness).sample(int(rng.integers(2**31)))[0]
        if rng.random() >= self.over:
            rate = MEL.sample_rate / MEL.hop
            begin, end = clip["start"] * rate, (clip["start"] + clip["seconds"]) * rate
            drawing[:, int(begin): int(np.ceil(end)) + 1] = 0
        return np.maximum(self.corpus.picture(row), drawing)


def check_source(source: str, autoencoder: str | Path | None, over: float) -> None:
    """Raise UserError when these do not say which pictures are meant."""
    if source not in SOURCES:
        raise UserError(f"data.mel_source={source}: expected one of {', '.join(SOURCES)}."
                        f"{nearest(source, SOURCES)}")
    if source == "autoencoder" and autoencoder is None:
        raise UserError("data.mel_source=autoencoder: whose? (expected data.autoencoder=DIR)")
    if source != "ground_truth" and autoencoder is not None and not Path(autoencoder, "config.json").exists():
        raise UserError(f"data.autoencoder={autoencoder}: no such folder (expected an autoencoder's, with "
                        "its config.json)")
    check_ranges({"data.over": over})


def _identity(vae: Any) -> str:
    """The decoder counts too, unlike in a cache of latents."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
