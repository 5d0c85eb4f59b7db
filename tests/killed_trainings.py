"""Every training of the family on tiny settings: at once, and killed twice and gone on with.

python tests/killed_trainings.py FOLDER KIND… writes run folders to FOLDER/KIND/whole and FOLDER/KIND/killed.
Each training has a process of its own, forked from one that has imported all there is to import.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from dataclasses import astuple
from pathlib import Path

import lightning as L
import numpy as np
import soundfile
import torch
from kill_at import KillAt
from PIL import Image

from images_that_speak import config
from images_that_speak.audio.mel import MEL
from images_that_speak.data.manifest import write_manifest
from images_that_speak.data.utter import COLUMNS, Spoken
from images_that_speak.training import train as training

STEPS = 5
KILLED_AT = (3, 4)  # a checkpoint is written after every second step
TINY = {
    "text": ["data.batch_size=4", "model.width=16", "model.heads=2", "model.layers=1"],
    "scene": ["data.train.length=12", "data.valid.length=4", "data.batch_size=4", "model.hidden=16",
              "model.layers=1", "data.train.latents={root}/latents/train",
              "data.valid.latents={root}/latents/valid"],
    "speech_mapping": ["data.batch_size=2", "data.spoken={root}/spoken",
                       "model.conditioner.encoder=recogniser", "model.conditioner.width=16"],
    "colour": ["data.batch_size=2", "data.corpus={root}/corpus", "model.widths=[8,8]"],
    "clip": ["data.batch_size=4", "model.pixels=32", "model.width=8", "model.embed_dim=32",
             "model.text_width=64", "model.text_layers=1"],
    "durations": ["data.batch_size=4", "data.corpus={root}/corpus", "model.width=16", "model.layers=1"],
    "vocoder": ["data.batch_size=2", "data.segment=2400", "data.root={root}/corpus", "model.generator.dim=16",
                "model.generator.layers=1",
                "model.discriminator_width=0.03125", "model.pretrain_mel_steps=1", "~callbacks.read_back"],
    "ctc": ["data.batch_size=2", "data.corpora=[{root}/corpus]", "data.frames=64", "data.valid_windows=2",
            "model.dim=16", "model.layers=1"],
    "sound": ["data.root={root}/pairs", "data.batch_size=4", "data.held_out=['3']", "data.sequences=true",
              "data.features=null", "data.variants=1", "model.generator.inputs=104",
              "model.generator.hidden=[8]", "model.generator.channels=[8,8,8,8,8,8,8,8]", "model.warmup=1",
              "model.discriminator_width=4", "model.losses.perceptual=0"],
}
EXPERIMENTS = {"sound": "mfcc_gan"}  # all others lie in pocket/


def write_corpus(root: Path, clips: int = 12) -> None:
    """Clips of noise, half of them of each of two voices."""
    rows = []
    for folder in ("waves", "spectrograms"):
        (root / folder).mkdir(parents=True)
    for i in range(clips):
        rng = np.random.default_rng(i)
        picture = rng.integers(0, 200, (MEL.n_mels, MEL.frames)).astype(np.uint8)
        np.save(root / f"spectrograms/{i}.npy", picture)
        soundfile.write(root / f"waves/{i}.flac", rng.normal(size=MEL.samples) * 0.1, MEL.sample_rate)
        symbols = ["pau", *rng.choice(["ah", "b", "iy", "s"], int(rng.integers(6, 12))), "pau"]
        ends = np.cumsum(rng.uniform(0.05, 0.3, len(symbols)))
        rows.append({"id": str(i), "text": "a", "voice": ("slt", "rms")[i % 2], "tts": "noise",
                     "tts_version": "1", "mel_spec": MEL.hash,
                     "split": "valid" if i % 3 == 0 else "train", "start": 0.0,
                     "seconds": float(ends[-1]), "symbols": [str(symbol) for symbol in symbols],
                     "starts": [0.0, *ends[:-1]], "ends": list(ends), "spectrogram": f"spectrograms/{i}.npy",
                     "wave": f"waves/{i}.flac"})
    write_manifest(root / "manifest.parquet", rows)


def write_pairs(root: Path, rows: int = 12) -> None:
    """Pairs of tones and plain pictures: labels a and b, sources 0 to 3, each a clip of three frames."""
    lines = ["image,sound,label,source,clip"]
    for folder in ("images", "sounds"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(rows):
        Image.new("RGB", (40, 40), (20 * i, 100, 50)).save(root / f"images/{i}.png")
        tone = np.sin(2 * np.pi * (200 + 100 * i) * np.arange(8000) / 16_000)
        soundfile.write(root / f"sounds/{i}.wav", 0.5 * tone, 16_000)
        lines.append(f"{i}.png,sounds/{i}.wav,{'ab'[i % 2]},{i // 3},{i // 3}")
    (root / "pairs.csv").write_text("\n".join(lines))


def write_utterances(root: Path) -> None:
    """Three nouns, each said twice in noise, once of them for validation."""
    rows = [Spoken(f"{noun}-{split}.flac", noun, noun, "noise", split)
            for noun in ("owl", "cat", "dog") for split in ("train", "sentences")]
    for number, row in enumerate(rows):
        root.mkdir(parents=True, exist_ok=True)
        wave = np.random.default_rng(number).normal(size=5000) * 0.1
        soundfile.write(root / row.file, wave, MEL.sample_rate)
    lines = [",".join(COLUMNS), *(",".join(astuple(row)) for row in rows)]
    (root / "utterances.csv").write_text("\n".join(lines))


def train(kind: str, root: Path, logs: Path, kill: int | None) -> int:
    """Train in a process of its own; the signal that ended it, or 0."""
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)
        fit = training.fit

        def killed(*parts: object, callbacks: list[L.Callback], **settings: object) -> L.Trainer:
            return fit(*parts, callbacks=[*callbacks, *([] if kill is None else [KillAt(kill)])], **settings)

        training.fit = killed
        code = 1
        try:
            training.train(config.compose("train", [
                f"experiment={EXPERIMENTS.get(kind, f'pocket/{kind}')}", f"steps={STEPS}",
                f"paths.logs={logs}", "device=cpu", "export=null", "trainer.checkpoint_every=2",
                "trainer.validate_every=3", "trainer.log_every=1",
                *(text.format(root=root) for text in TINY[kind])]))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"{kind}: failed")
    return os.WTERMSIG(status)


def main() -> None:
    root, kinds = Path(sys.argv[1]), sys.argv[2:]
    write_corpus(root / "corpus")
    write_pairs(root / "pairs")
    write_utterances(root / "spoken")
    for kind in kinds:
        assert train(kind, root, root / kind / "whole", None) == 0
        for batch in KILLED_AT:
            assert train(kind, root, root / kind / "killed", batch) == signal.SIGKILL, batch
        assert train(kind, root, root / kind / "killed", None) == 0


if __name__ == "__main__":
    main()
