"""Run folders for the pages to read: real pictures and sounds, made without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from PIL import Image

from images_that_speak.scoring.statistics import score_sample


def picture_and_sound(folder: Path, seed: int = 0) -> None:
    """A picture with one bright column, and the sound of 10.24 s that has a tone there."""
    folder.mkdir(parents=True, exist_ok=True)
    column = 100 + 150 * seed % 800
    pixels = np.full((256, 1024), 40, np.uint8)
    pixels[:, column:column + 100] = 220
    Image.fromarray(pixels).save(folder / "image.png")
    Image.fromarray(pixels).convert("RGB").save(folder / "spectrogram.png")
    wave = np.zeros(163840, np.float32)
    wave[160 * column:160 * (column + 100)] = 0.3 * np.sin(np.arange(16000) * 0.3)
    soundfile.write(folder / "speech.wav", wave, 16000, subtype="PCM_16")


def write_run(folder: Path, samples: Sequence[Mapping[str, Any]] = (),
              config: Mapping[str, Any] | None = None, changed: Mapping[str, Any] | None = None,
              result: Mapping[str, Any] | None = None, task: str = "generate") -> Path:
    """A run folder. A sample: {image, audio, heard, clip, top1, seed}."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(
        {"task": task, "status": "running", "changed": changed or {}}))
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config or {"steps": 8})))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    (folder / "samples").mkdir()
    for number, sample in enumerate(samples):
        where = folder / "samples" / sample.get("id", f"{number:012x}")
        picture_and_sound(where, number)
        scores = (score_sample(sample["audio"], sample["heard"], sample.get("clip"), sample.get("top1"))
                  if "heard" in sample else {})
        (where / "sample.json").write_text(json.dumps({
            "sample_id": where.name, "image_prompt": sample["image"], "audio_prompt": sample["audio"],
            "seed": sample.get("seed", 0), "scores": scores}))
    return folder


def sweep(root: Path) -> Path:
    """Three runs of the same four samples: a and b on the front, c beaten by b; d is not finished."""
    # What is heard drops words and adds as many: 0, 2 (one gone, one too many) and 3 (all others) edits of 3.
    for name, weight, wrong, wer, clip in (("a", 0.3, 0, 0.0, 5.0), ("b", 0.6, 1, 2 / 3, 9.0),
                                           ("c", 0.9, 2, 1.0, 7.0)):
        rows: list[dict[str, Any]] = [
            {"image": image, "audio": audio, "clip": clip, "top1": True,
             "heard": " ".join([*audio.split()[wrong:], *["x"] * wrong])}
            for image in ("a cat", "a dog") for audio in ("happy baby music", "blue ocean dream")]
        changed = {"guidance.audio_weight": weight}
        write_run(root / name, rows, {"guidance": {"audio_weight": weight}}, changed,
                  {"wer": wer, "wer_interval": [wer - 0.1, wer + 0.1], "clip": clip, "joint": 0.5})
    write_run(root / "d")
    return root
