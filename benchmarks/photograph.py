"""How long a photograph takes to speak once all is loaded, and the memory at its peak.

    python benchmarks/photograph.py [PHOTOGRAPH ...]

Baseline of the same run: Griffin-Lim alone on a picture of the same length, which is the sound's share.
Speech, reading, framing, composing, painting and sound are timed apart: medians over the photographs and
three rounds.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from images_that_speak import config
from images_that_speak.audio.picture import luminance, to_grid
from images_that_speak.resources import ROOT
from images_that_speak.speaking.make import Maker, placed
from images_that_speak.speaking.paint import LUMA, painted
from images_that_speak.speaking.voices import speech_of_wave, spoken_by

SENTENCE = "Never trust a cat with your dinner said the mouse."


def main() -> None:
    shipped = sorted((ROOT / "docs/media/photographs").glob("*.jpg"))
    photographs = [Path(name) for name in sys.argv[1:]] or shipped
    cfg = config.compose("generate", [f"image={photographs[0]}", f"audio_prompt={SENTENCE}", "device=cpu"])
    maker = Maker.plan(cfg, config.instantiate(cfg.family))
    spent: dict[str, list[float]] = defaultdict(list)

    def timed(name, call):
        began = time.perf_counter()
        made = call()
        spent[name].append(time.perf_counter() - began)
        return made

    for number in range(4):
        if number == 1:
            spent.clear()  # the first round loads
        for path in photographs:
            began = time.perf_counter()
            speech = timed("speech", lambda: speech_of_wave(spoken_by(maker.voice, SENTENCE)))
            pixels = timed("reading", lambda path=path: maker.framing.read(path))
            frames = max(maker.framing.own_frames(pixels), speech.frames)
            rgb = timed("framing", lambda pixels=pixels, frames=frames: maker.framing.framed(pixels, frames))
            grid = to_grid(rgb @ LUMA, frames)
            voice = torch.from_numpy(placed(speech.picture, frames))[None]
            message = timed("composing", lambda grid=grid, voice=voice: maker.modulation(
                torch.from_numpy(grid)[None], voice)[0].numpy())
            mixed = timed("painting", lambda message=message, rgb=rgb: painted(message, rgb, 0.9))
            played = to_grid(luminance(mixed)) / 255
            timed("sound", lambda played=played: maker.vocoder.decode_message(played[None]))
            spent["in all"].append(time.perf_counter() - began)
    base = float(np.median(spent["sound"]))
    for name, seconds in spent.items():
        print(f"{name:10} {np.median(seconds):.3f} s   {np.median(seconds) / base:.2f} of Griffin-Lim's time")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB, "
          f"{torch.get_num_threads()} threads, {cfg.picture.rows} rows")


if __name__ == "__main__":
    main()
