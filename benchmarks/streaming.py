"""Memory and speed of reading a speech corpus as it grows: records from the disk, and all in memory.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --clips 1000 10000 100000 1000000 --folder /scratch

For each number of clips a synthetic corpus is written (pocket latents of zeros, which take no room as sparse
files, and 40 phones a clip), and a fresh process reads `--batches` shuffled batches of 16 from it. Printed is
what the process holds beyond what it held after its imports: anonymous memory, which is its own, when it has
read them, and the peak of all its resident memory, to which pages of mapped files count; and the seconds to
open the corpus and for each batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE = (32, 16, 64)
PHONES = 40


def memory() -> tuple[float, float]:
    """Anonymous resident memory and the peak of all resident memory of this process, MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def spoken(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of phones and their edges in seconds."""
    return rng.integers(3, 40, PHONES), 1 + np.cumsum(rng.uniform(0.05, 0.15, PHONES + 1))


def write_records(folder: Path, clips: int) -> None:
    """As `images_that_speak.data.streamed` writes them, the latents left out of the file's blocks."""
    from images_that_speak.audio.mel import MEL
    from images_that_speak.data.streamed import SHARD, record_type
    from images_that_speak.files import write_json

    dtype, rng = record_type("latent", SHAPE, PHONES), np.random.default_rng(0)
    folder.mkdir(parents=True)
    latent = int(np.prod(SHAPE)) * 2
    for number, first in enumerate(range(0, clips, SHARD)):
        count = min(SHARD, clips - first)
        with open(folder / f"shard-{number:05d}.bin", "wb") as file:
            file.truncate(count * dtype.itemsize)
            for i in range(count):
                record = np.zeros(1, dtype)
                phones, edges = spoken(rng)
                record["phones"], record["length"], record["voice"] = phones, PHONES, 1
                record["times"] = np.stack([edges[:-1], edges[1:]], 1)
                file.seek(i * dtype.itemsize + latent)
                file.write(record.tobytes()[latent:])
    write_json(folder / "index.json", {
        "clips": clips, "shard": SHARD, "image": "latent", "phones": PHONES, "shape": SHAPE,
        "voices": ["slt"], "mel_spec": MEL.to_dict(), "split": "train", "identity": "synthetic",
        "mean": [0.0] * SHAPE[0], "std": [1.0] * SHAPE[0]})


def write_corpus(folder: Path, clips: int) -> None:
    """A manifest as the corpus builder writes it, and a cache of latents."""
    from images_that_speak.audio.mel import MEL
    from images_that_speak.data.manifest import write_manifest
    from images_that_speak.files import content_hash, write_json
    from images_that_speak.speech.phonemes import PHONES as SYMBOLS

    rows, rng = [], np.random.default_rng(0)
    for i in range(clips):
        phones, edges = spoken(rng)
        rows.append({"id": f"{i:016x}", "text": "six words are said in here", "voice": "slt", "tts": "none",
                     "tts_version": "0", "mel_spec": MEL.hash, "split": "train", "start": edges[0],
                     "seconds": edges[-1] - edges[0], "symbols": [SYMBOLS[p] for p in phones],
                     "starts": edges[:-1].tolist(), "ends": edges[1:].tolist(),
                     "spectrogram": f"spectrograms/{i:016x}.npy", "wave": f"wav/{i:016x}.flac"})
    write_manifest(folder / "manifest.parquet", rows)
    identity, size = content_hash(["speech", MEL.hash, *(row["id"] for row in rows)]), 512
    for number, first in enumerate(range(0, clips, size)):
        (folder / "latents").mkdir(exist_ok=True)
        np.lib.format.open_memmap(folder / f"latents/shard-{number:05d}.npy", "w+", "float16",
                                  (min(size, clips - first), *SHAPE)).flush()
    write_json(folder / "latents/index.json", {
        "mel_spec": MEL.to_dict(), "autoencoder": "none", "dataset": identity, "length": clips,
        "dtype": "float16", "shard": size, "complete": True, "shape": SHAPE,
        "mean": [0.0] * SHAPE[0], "std": [1.0] * SHAPE[0]})


def read(kind: str, folder: Path, batches: int) -> None:
    """Read batches and print what it took, as JSON."""
    import pandas  # noqa: F401 - imports are not the corpus' memory
    import pyarrow.parquet  # noqa: F401

    from images_that_speak.data.datamodule import SpeechClips, batch_loader
    from images_that_speak.data.streamed import StreamedClips

    before, _ = memory()
    began = time.perf_counter()
    dataset = (StreamedClips(folder, roll=True) if kind == "records" else
               SpeechClips(folder, roll=True, latents=folder / "latents"))
    loader = batch_loader(dataset, 16)
    source = iter(loader)
    next(source)
    opened = time.perf_counter()
    done = 0
    while done < batches:
        for _ in source:
            done += 1
            if done == batches:
                break
        source = iter(loader)
    taken = (time.perf_counter() - opened) / batches
    anonymous, peak = memory()
    print(json.dumps({"anonymous": anonymous - before, "peak": peak, "before": before,
                      "opened": opened - began, "batch": taken}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None, help="where to write the corpora")
    parser.add_argument("--kinds", nargs="+", default=["records", "memory"])
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read[0], Path(options.read[1]), options.batches)
        return
    print(f"{'':10s}{'clips':>10s}{'own memory, MB':>16s}{'peak in all, MB':>17s}{'opening, s':>12s}"
          f"{'batch, ms':>11s}")
    for kind in options.kinds:
        for clips in options.clips:
            folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="clips-"))
            try:
                (write_records if kind == "records" else write_corpus)(folder / kind, clips)
                done = subprocess.run(
                    [sys.executable, __file__, "--read", kind, str(folder / kind), "--batches",
                     str(options.batches)], capture_output=True, encoding="utf-8")
                if done.returncode:
                    raise SystemExit(done.stderr)
                found = json.loads(done.stdout.splitlines()[-1])
                print(f"{kind:10s}{clips:10,d}{found['anonymous']:16.1f}{found['peak']:17.1f}"
                      f"{found['opened']:12.2f}{1000 * found['batch']:11.2f}", flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
