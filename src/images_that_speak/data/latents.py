"""Latents computed once, kept in memory-mappable shards, and refused when anything they depend on differs.

A cache is a folder: `shard-00000.npy` … (n, C, H, W) of the posterior's mean, and `index.json` with the mel
spec, the autoencoder's content hash, the identity of the dataset and per-channel statistics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..audio.mel import MEL
from ..errors import UserError
from ..files import atomic_path, read_json, write_json
from ..networks.codec import encode

IN_MEMORY = 1 << 30  # bytes up to which a cache is read into memory


def autoencoder_hash(vae: nn.Module) -> str:
    """Identity of what makes an autoencoder's latents, the same before and after saving in fp16.

    The decoder does not count: it may be trained further without a latent changing.
    """
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("decoder.", "post_quant_conv.", "correction.")):
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def cache_latents(vae: Any, dataset: Any, out_dir: str | Path, batch_size: int = 16,
                  dtype: str = "float16", shard: int = 512, progress: bool = True) -> LatentCache:
    """Encode every picture of `dataset`; shards that are already there are kept.

    vae: an AutoencoderKL, run on the device it is on.
    dataset: a BatchDataset of pictures: its `identity()` and `pictures(indices)` are used.
    Raises UserError when the folder was begun for another autoencoder, dataset, mel spec, dtype or shard
    size.
    """
    dataset.open()
    out_dir, length = Path(out_dir), len(dataset)
    claim = {"mel_spec": MEL.to_dict(), "autoencoder": autoencoder_hash(vae), "dataset": dataset.identity(),
             "length": length, "dtype": dtype, "shard": shard}
    path = out_dir / "index.json"
    if path.exists():
        _compare(path, read_json(path), claim)
    else:
        write_json(path, {**claim, "complete": False})
    weight = next(vae.parameters())
    starts: Iterable[int] = range(0, length, shard)
    if progress:
        from rich.progress import track

        starts = track(starts, description="Encoding")
    mode, total = vae.training, np.zeros((2, 1))
    vae.eval()
    try:
        for number, start in enumerate(starts):
            stop = min(start + shard, length)
            file = out_dir / f"shard-{number:05d}.npy"
            if not file.exists():
                parts = []
                for at in range(start, stop, batch_size):
                    pictures = dataset.pictures(np.arange(at, min(at + batch_size, stop)))
                    latent = encode(vae, torch.as_tensor(pictures).to(weight)).mean
                    parts.append(latent.float().cpu().numpy())
                values = np.concatenate(parts)
                if not np.isfinite(values).all():
                    raise UserError(f"{file}: the autoencoder gives NaN or infinity")
                with atomic_path(file) as temporary:
                    np.save(temporary, values.astype(dtype))
            values = np.load(file, mmap_mode="r", allow_pickle=False)
            moments = np.stack([values.mean((0, 2, 3), dtype=np.float64),
                                np.square(values, dtype=np.float32).mean((0, 2, 3), dtype=np.float64)])
            total = total + moments * len(values)
    finally:
        vae.train(mode)
    mean, square = total / length
    write_json(path, {**claim, "complete": True, "shape": list(values.shape[1:]), "mean": mean.tolist(),
                      "std": np.sqrt(np.maximum(square - mean**2, 1e-12)).tolist()})
    return LatentCache(out_dir)


def _compare(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    MEL.check(found.get("mel_spec"), path)
    names = {"autoencoder": "another autoencoder", "dataset": "another dataset"}
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(f"{path}: made for {names.get(key, f'another {key}')} ({key}={found.get(key)!r}, "
                            f"expected {value!r}); delete the folder or choose another")


class LatentCache:
    """Reads a finished cache. `mean`, `std` (C,) are its per-channel statistics, `shape` is (C, H, W).

    Up to `in_memory` bytes it is held in memory as it is stored, else memory-mapped.

    autoencoder: an autoencoder or its hash; dataset: the identity of the data it should hold. Raises
    UserError when the cache is missing, unfinished, incomplete, or made for something else.
    """

    def __init__(self, folder: str | Path, autoencoder: nn.Module | str | None = None,
                 dataset: str | None = None, in_memory: int = IN_MEMORY):
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.exists():
            raise UserError(f"{path}: no such latent cache (expected a folder written by cache_latents)")
        self.index = read_json(path)
        expected: dict[str, Any] = {} if dataset is None else {"dataset": dataset}
        if autoencoder is not None:
            expected["autoencoder"] = (autoencoder if isinstance(autoencoder, str)
                                       else autoencoder_hash(autoencoder))
        _compare(path, self.index, expected)
        if not self.index.get("complete"):
            raise UserError(f"{path}: the cache is not finished; run the same caching command again")
        self.shape = tuple(self.index["shape"])
        self.mean = np.array(self.index["mean"], np.float32)
        self.std = np.array(self.index["std"], np.float32)
        self._size = int(self.index["shard"])
        self._shards, errors = [], []
        for number, start in enumerate(range(0, len(self), self._size)):
            file = self.folder / f"shard-{number:05d}.npy"
            shape = (min(self._size, len(self) - start), *self.shape)
            try:
                values = np.load(file, mmap_mode="r", allow_pickle=False)
                if values.shape != shape or values.dtype != self.index["dtype"]:
                    errors.append(f"{file}: {values.dtype} {values.shape} "
                                  f"(expected {self.index['dtype']} {shape})")
                self._shards.append(values)
            except (OSError, ValueError, EOFError) as error:
                errors.append(f"{file}: {error}")
        if errors:
            raise UserError("\n".join(errors))
        if sum(values.nbytes for values in self._shards) <= in_memory:
            self._shards = [np.concatenate(self._shards)]
            self._size = max(len(self), 1)

    def __len__(self) -> int:
        return int(self.index["length"])

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """(n,) indices → (n, C, H, W) as stored, not normalised."""
        indices = np.asarray(indices)
        if len(self._shards) == 1:
            return self._shards[0][indices]
        out = np.empty((len(indices), *self.shape), self.index["dtype"])
        for number in np.unique(indices // self._size):
            rows = np.flatnonzero(indices // self._size == number)
            out[rows] = self._shards[number][indices[rows] - number * self._size]
        return out
