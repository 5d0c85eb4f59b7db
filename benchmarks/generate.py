"""How long a sample takes once the family is loaded, and how much memory: ours and the published way.

    python benchmarks/generate.py [key=value … as of generate.py]

The baseline is how the published code generates, with this family's networks: 100 steps, one sample at a
time, and a UNet call for every pass. A time is that of the whole sample: denoising, decoding, 8-bit picture,
vocoder. The peak is the process's resident memory, libraries and all.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from images_that_speak import config
from images_that_speak.audio.picture import quantise
from images_that_speak.diffusion import method
from images_that_speak.diffusion.composition import Guided
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.guidance import Branch
from images_that_speak.diffusion.method import Job
from images_that_speak.diffusion.planning import generate_batch, plan, read_settings
from images_that_speak.errors import UserError

LIMITS = {"seconds": 30.0, "GB": 3.0}  # what one sample may take on two CPU cores


class OnePassAtATime(Branch):
    """A branch whose two passes are two UNet calls."""

    def __call__(self, x: torch.Tensor, t: torch.Tensor, progress: float, uses_uncond: bool) -> Guided:
        n = len(x)
        uncond, cond = (self.predictor(x, t.expand(n), self.both[rows]).x0
                        for rows in (slice(0, n), slice(n, 2 * n)))
        return Guided(uncond, cond, self.guidance.scale)


def peak() -> float:
    """Peak resident memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(family: Family, settings: Any, jobs: list[Job], size: int,
          branch: Callable[..., Branch] = Branch) -> float:
    """Seconds a sample, after a first batch of one step that is not counted."""
    kept, method.Branch = method.Branch, branch  # type: ignore[misc,assignment]
    try:
        generate_batch(family, replace(settings, steps=1), jobs[:size])
        start = time.perf_counter()
        for at in range(0, len(jobs), size):
            for picture in generate_batch(family, settings, jobs[at: at + size]).numpy():
                family.vocoder.decode_picture(quantise(picture)[None])
        return (time.perf_counter() - start) / len(jobs)
    finally:
        method.Branch = kept  # type: ignore[misc]


def main() -> None:
    # What both branches of the family denoise together, unless another composition is asked for.
    overrides = sys.argv[1:]
    if not any(override.startswith("composition=") for override in overrides):
        overrides = ["composition=masks", *overrides]
    cfg = config.compose("generate", ["num_samples=4", *overrides])
    published = config.compose("generate", [
        "num_samples=1",
        *(o for o in overrides if o.split("=")[0] not in ("steps", "num_samples", "composition")),
        "composition=images_that_sound"])
    layout = config.instantiate(cfg.family)
    settings, jobs = read_settings(cfg, layout), plan(cfg, layout)
    start = time.perf_counter()
    family = Family.load(layout, device=cfg.device, dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
    print(f"{layout.name} on {family.device}, {torch.get_num_threads()} threads, "
          f"loaded in {time.perf_counter() - start:.1f} s")
    rows = [(f"one at a time, {settings.steps} steps", timed(family, settings, jobs[:1], 1), peak()),
            (f"batches of {cfg.batch_size}, {settings.steps} steps",
             timed(family, settings, jobs, int(cfg.batch_size)), peak())]
    baseline = timed(family, read_settings(published, layout), plan(published, layout), 1, OnePassAtATime)
    rows.append(("baseline: published procedure, 100 steps", baseline, peak()))
    print(f"{'':<42} {'s/sample':>9} {'speed-up':>9} {'peak GB':>9}")
    for name, seconds, memory in rows:
        print(f"{name:<42} {seconds:>9.2f} {baseline / seconds:>8.1f}x {memory:>9.2f}")
    first = rows[0]
    met = first[1] <= LIMITS["seconds"] and rows[1][2] <= LIMITS["GB"]
    print(f"limits: {LIMITS['seconds']:.0f} s a sample, {LIMITS['GB']:.0f} GB: {'met' if met else 'NOT MET'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
