"""Pictures drawn from sounds that a training was not given: are they like the right ones, of the right thing?

    python benchmarks/sound_to_image.py logs/train/RUN …

Each RUN is a finished one of experiment=mfcc_published or mfcc_gan; what it was validated on is drawn. SSIM,
HSS (correlation of histograms of 256 levels), mean squared error in [-1, 1], a distance of KID's kind over
the last features of EfficientNet-Lite2 (kid_lite2), and top-1: of all labels the one with the picture nearest
to what is drawn, by the cosine of these features about their means, and by squared error. Intervals are
bootstraps over sounds. Beside each run: the mean of the pictures it was trained on, and the picture of the
training sound that is nearest (cosine of standardised features), which needs no generator. RUN/held_out.png
shows what is right above what is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from images_that_speak.config import instantiate
from images_that_speak.data.sound_pictures import SoundPictures
from images_that_speak.files import write_json
from images_that_speak.networks.mfcc_gan import SoundPictureGenerator
from images_that_speak.scoring.distances import kernel_inception_distance
from images_that_speak.scoring.efficientnet import EfficientNetReader
from images_that_speak.scoring.pairs import histogram_similarity
from images_that_speak.training.sound_to_image import ssim

RESAMPLINGS = 2000


def nearest_sound(data: SoundPictures) -> np.ndarray:
    """The picture of the training sound nearest to each held-out one, (N, 256, 256, 3) uint8."""
    heard = np.stack([vectors[0] for vectors in data.vectors])
    known = heard[data.train]
    scaled = (heard - known.mean(0)) / (known.std(0) + 1e-6)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    chosen = (scaled[data.valid] @ scaled[data.train].T).argmax(1)
    return np.stack([data.pictures[data.train[i]] for i in chosen]).transpose(0, 2, 3, 1)


def measured(made: np.ndarray, data: SoundPictures, eye: EfficientNetReader) -> dict[str, Any]:
    """The figures of pictures (N, 256, 256, 3) uint8 of the held-out sounds, each of a sound and of all."""
    real = np.stack([data.pictures[i] for i in data.valid]).transpose(0, 2, 3, 1)
    as_made, as_real = (torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1
                        for part in (made, real))
    seen, truth = eye.embed(made), eye.embed(real)
    gallery = {pair.image: (pair.label, data.pictures[i]) for i, pair in enumerate(data.pairs)}
    shown = eye.embed([pixels.transpose(1, 2, 0) for _, pixels in gallery.values()])
    labels = [label for label, _ in gallery.values()]
    # About their means: all that is blurred is alike, which tells nothing of what it is of.
    taken = [labels[i] for i in (_directions(seen) @ _directions(shown).T).argmax(1)]
    whole = np.stack([pixels.transpose(1, 2, 0) for _, pixels in gallery.values()]).astype(np.float32)
    nearest = [labels[((whole - picture) ** 2).mean((1, 2, 3)).argmin()] for picture in made]
    asked = [data.pairs[i].label for i in data.valid]
    return {"ssim": [float(ssim(a[None], b[None])) for a, b in zip(as_made, as_real, strict=True)],
            "hss": [histogram_similarity(a, b) for a, b in zip(made, real, strict=True)],
            "mse": ((as_made - as_real) ** 2).mean((1, 2, 3)).tolist(),
            "top1_pixels": [float(a == b) for a, b in zip(nearest, asked, strict=True)],
            "top1": [float(a == b) for a, b in zip(taken, asked, strict=True)],
            "kid_lite2": kernel_inception_distance(*map(torch.from_numpy, (seen, truth))),
            "taken": taken, "asked": asked}


def _directions(features: np.ndarray) -> np.ndarray:
    """(N, D) → the same about their mean, of length 1."""
    apart = features - features.mean(0)
    return apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-9)


def interval(values: list[float]) -> str:
    """mean [low, high], 95 %."""
    rng, found = np.random.default_rng(0), np.array(values)
    means = found[rng.integers(0, len(found), (RESAMPLINGS, len(found)))].mean(1)
    return f"{found.mean():.3f} [{np.percentile(means, 2.5):.3f}, {np.percentile(means, 97.5):.3f}]"


def sheet(made: np.ndarray, data: SoundPictures, path: Path, columns: int = 12) -> None:
    """What is drawn below what is right, of the first sounds."""
    count = min(len(made), 2 * columns)
    out = Image.new("RGB", (columns * 128, 256 * -(-count // columns)))
    for i in range(count):
        x, y = i % columns * 128, i // columns * 256
        for below, pixels in ((0, data.pictures[data.valid[i]].transpose(1, 2, 0)), (128, made[i])):
            out.paste(Image.fromarray(pixels).resize((128, 128)), (x, y + below))
    out.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    eye = EfficientNetReader("lite2")
    for run in parser.parse_args().runs:
        data: SoundPictures = instantiate(OmegaConf.load(run / "config.yaml").data)
        generator = SoundPictureGenerator.from_pretrained(run / "weights/sound").float().eval()
        with torch.inference_mode():
            heard = torch.cat([data.valid_batch(i)["features"] for i in range(data.valid_batches)])
            made = ((generator(heard) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        mean = np.mean([data.pictures[i] for i in data.train], 0).round().astype(np.uint8).transpose(1, 2, 0)
        print(f"{run.name}: {len(data.valid)} sounds held out of {len(data.pairs)}, "
              f"{len({pair.label for pair in data.pairs})} labels")
        everything = {}
        for name, pictures in (("drawn", made), ("mean picture", np.stack([mean] * len(made))),
                               ("nearest sound's picture", nearest_sound(data))):
            figures = measured(pictures, data, eye)
            everything[name] = figures
            told = ", ".join(f"{key} {interval(figures[key])}"
                             for key in ("ssim", "hss", "mse", "top1", "top1_pixels"))
            print(f"  {name}: {told}, kid_lite2 {figures['kid_lite2']:.2f}")
        sheet(made, data, run / "held_out.png")
        write_json(run / "held_out.json", everything)


if __name__ == "__main__":
    main()
