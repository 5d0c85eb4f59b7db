"""Embeddings of the phones of a corpus, computed once and kept in one safetensors file.

"values" (N, width) float16: one row a phone, clip after clip; "starts" (clips + 1,) int64: where each clip's
begin. The metadata names the corpus and the PL-BERT, and a file of others is refused. Rows are read where
they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import UserError
from ..files import atomic_path
from ..speech.plbert import PhonemeBERT


def cache_embeddings(bert: PhonemeBERT, phrases: Sequence[Sequence[str]], texts: Sequence[str | None],
                     identity: str, path: str | Path, batch_size: int = 64) -> EmbeddingCache:
    """Embed the phones of every clip, unless `path` holds them already.

    identity: of the corpus. Raises UserError when the file is there and of another corpus or PL-BERT.
    """
    if Path(path).exists():
        return EmbeddingCache(path, identity, bert.hash)
    values: list[np.ndarray] = []
    # Phrases of like length together: padding costs as much as phones.
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start: start + batch_size]
        embedded = bert.embed([phrases[i] for i in rows], [texts[i] for i in rows])
        found |= {i: value.cpu().numpy().astype(np.float16) for i, value in zip(rows, embedded, strict=True)}
    values = [found[i] for i in range(len(phrases))]
    starts = np.cumsum([0, *map(len, values)], dtype=np.int64)
    with atomic_path(path) as temporary:
        save_file({"values": np.concatenate(values), "starts": starts}, temporary,
                  {"dataset": identity, "model": bert.hash})
    return EmbeddingCache(path, identity, bert.hash)


class EmbeddingCache:
    """Reads such a file. `width` is that of an embedding.

    dataset, model: what it must have been made for; None accepts any. Raises UserError when it is missing,
    broken, or made for something else.
    """

    def __init__(self, path: str | Path, dataset: str | None = None, model: str | None = None):
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f"{path}: no such embeddings (a training that names data.phoneme_bert makes "
                            "them)")
        try:
            with safe_open(str(path), "np") as file:
                kept = file.metadata() or {}
                self.starts = file.get_tensor("starts")
                self.width = int(file.get_slice("values").get_shape()[1])
        except (SafetensorError, OSError, IndexError) as error:
            raise UserError(f"{path}: not a readable file of embeddings ({error})") from error
        for name, expected in (("dataset", dataset), ("model", model)):
            if expected is not None and kept.get(name) != expected:
                raise UserError(f"{path}: made for another {name} ({kept.get(name)!r}, expected "
                                f"{expected!r}); delete it or choose another")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: np.ndarray) -> list[np.ndarray]:
        """For each clip its phones' embeddings, (L, width) float32."""
        with safe_open(str(self.path), "np") as file:
            values = file.get_slice("values")
            return [values[int(self.starts[i]): int(self.starts[i + 1])].astype(np.float32) for i in rows]
