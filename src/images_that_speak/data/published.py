"""The published layout of Images that Speak: mel pictures, pooled phoneme embeddings and a manifest.

    manifest.csv               columns audio_prompt and mel_npy, one row a clip, rows appended at every run
    spectograms/*.npy          256 × 1024 floats (the folder is so spelt)
    plbert_sentence_emb*.npz   "emb" (N, D) float32, row i for line i of the prompts
    prompts*.txt               one prompt a line (not always there)

The published training pairs these by position. Here a clip is known by its picture's name, a row said twice
counts once, and an embedding belongs to the text of its line. Published files also hold row 0 as the lowest
frequency and power mels in [-11, 0]: `low_first=True, value_range=(-11, 0)` turns them into pictures. What
they sound like is then still another mel spec than this project's; they serve to train the published
baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.mel import MEL
from ..errors import UserError
from ..files import content_hash, read_text
from ..packages import need
from .datamodule import BatchDataset, token_ids

SHAPE = (MEL.n_mels, MEL.frames)


def read_published_picture(path: Path, value_range: tuple[float, float] = (0.0, 1.0),
                           low_first: bool = False) -> np.ndarray:
    """One npy → (256, 1024) float32 in [0, 1], the lowest frequency in the last row.

    value_range: what the file's values lie between; low_first: whether its row 0 is the lowest frequency.
    Raises UserError naming the file on another shape, NaN or values out of range.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable npy file ({error})") from error
    if values.shape == SHAPE[::-1]:
        values = values.T
    if values.shape != SHAPE:
        raise UserError(f"{path}: shape {values.shape} (expected {SHAPE})")
    if values.dtype.kind != "f":
        raise UserError(f"{path}: holds {values.dtype} (expected floats)")
    picture = np.asarray(values, np.float32)
    if not np.isfinite(picture).all():
        raise UserError(f"{path}: holds NaN or infinity")
    low, high = value_range
    slack = 1e-3 * (high - low)
    if picture.min() < low - slack or picture.max() > high + slack:
        raise UserError(f"{path}: values in [{picture.min():.3g}, {picture.max():.3g}] (expected [{low:g}, "
                        f"{high:g}]; say with value_range what the files hold)")
    picture = np.clip((picture - low) / (high - low), 0, 1)
    return np.ascontiguousarray(picture[::-1]) if low_first else picture


class PublishedClips(BatchDataset):
    """A folder of the published layout. A batch has "picture" and, with embeddings, "embedding" (B, D).

    root: the folder. value_range, low_first: see `read_published_picture`. embeddings, prompts: files, by
    default the only plbert_sentence_emb*.npz and the only prompts*.txt in the folder; embeddings=False does
    without. Without prompts, row i belongs to the i-th clip by file name, and there must be as many of each.
    tokenizer: a CLIPTokenizer or its folder; a batch then has "input_ids" (B, T) of what is said.

    `names` are the clips' file names without suffix, sorted; `texts` their prompts.
    """

    def __init__(self, root: str | Path, value_range: tuple[float, float] = (0.0, 1.0),
                 low_first: bool = False, embeddings: str | Path | bool = True,
                 prompts: str | Path | None = None, latents: str | Path | None = None,
                 autoencoder: Any = None, mean: Sequence[float] | None = None,
                 std: Sequence[float] | None = None, seed: int = 0, tokenizer: Any = None):
        super().__init__(latents, autoencoder, mean, std, seed)
        self.tokenizer = tokenizer
        self.root, self.low_first = Path(root), low_first
        self.embeddings, self.prompts = embeddings, prompts
        self.value_range = (float(value_range[0]), float(value_range[1]))
        if not self.value_range[0] < self.value_range[1]:
            raise UserError(f"value_range={list(value_range)}: expected the lower value first")

    def prepare(self) -> None:
        clips, errors = self._manifest()
        self.names = sorted(clips)
        self.texts = [clips[name][0] for name in self.names]
        self._files = [clips[name][1] for name in self.names]
        for file in self._files:
            try:
                read_published_picture(file, self.value_range, self.low_first)
            except UserError as error:
                errors.append(str(error))
        self._ids = token_ids(self.tokenizer, self.texts)
        self._embedding: np.ndarray | None = None
        if self.embeddings is not False:
            try:
                self._embedding = self._embeddings()
            except UserError as error:
                errors.append(str(error))
        if errors:
            more = f"\n… and {len(errors) - 10} more" if len(errors) > 10 else ""
            raise UserError(f"{self.root}: {len(errors)} errors:\n" + "\n".join(errors[:10]) + more)

    def _manifest(self) -> tuple[dict[str, tuple[str, Path]], list[str]]:
        """{name: (text, picture)} and what is wrong with the rows."""
        need("pandas", where="reading a corpus")
        import pandas

        path = self.root / "manifest.csv"
        if not path.exists():
            raise UserError(f"{path}: no such manifest (expected the published layout: manifest.csv and "
                            "spectograms/*.npy)")
        try:
            table = pandas.read_csv(path, dtype=str, keep_default_na=False)
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: not a readable csv file ({error})") from error
        lacking = [column for column in ("audio_prompt", "mel_npy") if column not in table.columns]
        if lacking:
            raise UserError(f"{path}: no column {', '.join(lacking)} (found {', '.join(table.columns)})")
        if not len(table):
            raise UserError(f"{path}: no clips")
        clips: dict[str, tuple[str, Path]] = {}
        errors = []
        for line, (text, file) in enumerate(zip(table["audio_prompt"], table["mel_npy"], strict=True), 2):
            # The manifest often holds paths of the machine it was written on: the name is what counts.
            name = Path(file.replace("\\", "/")).name
            found = [p for p in (self.root / "spectograms" / name, self.root / name, self.root / file)
                     if name and p.is_file()]
            stem = Path(name).stem
            if not found:
                errors.append(f"{path}, line {line}: no picture {self.root / 'spectograms' / name}")
            elif stem in clips and clips[stem][0] != text:
                errors.append(f"{path}, line {line}: {stem!r} says {text!r} (before: {clips[stem][0]!r})")
            else:
                clips[stem] = (text, found[0])
        return clips, errors

    def _only(self, given: str | Path | bool | None, pattern: str, key: str) -> Path | None:
        if isinstance(given, (str, Path)):
            return Path(given)
        found = sorted(self.root.glob(pattern))
        if len(found) > 1:
            raise UserError(f"{self.root}: {len(found)} files {pattern} (expected one; choose with {key}=…): "
                            + ", ".join(path.name for path in found))
        return found[0] if found else None

    def _embeddings(self) -> np.ndarray:
        """(clips, D) float32 in the order of `names`."""
        path = self._only(self.embeddings, "plbert_sentence_emb*.npz", "embeddings")
        if path is None:
            raise UserError(f"{self.root}: no plbert_sentence_emb*.npz (embeddings=false does without)")
        try:
            with np.load(path, allow_pickle=False) as archive:
                values = archive["emb"]
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: not a readable npz file ({error})") from error
        except KeyError as error:
            raise UserError(f"{path}: no array 'emb' (expected (N, D) floats)") from error
        if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise UserError(f"{path}: 'emb' is {values.dtype} {values.shape} (expected finite floats (N, D))")
        prompts = self._only(self.prompts, "prompts*.txt", "prompts")
        if prompts is None:
            if len(values) != len(self.names):
                raise UserError(f"{path}: {len(values)} embeddings for {len(self.names)} clips, and no "
                                "prompts*.txt that says whose they are")
            return values.astype(np.float32)
        lines = [line.strip() for line in read_text(prompts).splitlines() if line.strip()]
        if len(lines) != len(values):
            raise UserError(f"{path}: {len(values)} embeddings for the {len(lines)} prompts of {prompts}")
        row = {line: i for i, line in enumerate(lines)}
        lost = [text for text in self.texts if text.strip() not in row]
        if lost:
            raise UserError(f"{prompts}: {len(lost)} prompts of the manifest are not in it, "
                            f"first {lost[0]!r}")
        return values[[row[text.strip()] for text in self.texts]].astype(np.float32)

    def __len__(self) -> int:
        self.open()
        return len(self.names)

    def identity(self) -> str:
        sizes = [(name, file.stat().st_size, file.stat().st_mtime_ns)
                 for name, file in zip(self.names, self._files, strict=True)]
        return content_hash(["published", MEL.hash, self.low_first, self.value_range, sizes])

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([read_published_picture(self._files[int(i)], self.value_range, self.low_first)
                         for i in indices])[:, None]

    def gives(self) -> set[str]:
        there = {"embedding": self.embeddings is not False, "input_ids": self.tokenizer is not None}
        return {key for key, given in there.items() if given}

    def advice(self, key: str) -> str | None:
        return "embeddings=false: expected true, or a file of them" if key == "phone_embedding" else None

    def conditions(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        found = {"embedding": self._embedding, "input_ids": self._ids}
        return {name: values[keys % len(self)] for name, values in found.items() if values is not None}
