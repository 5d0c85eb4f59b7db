"""A video of a sample: its picture, coloured where it is, a sweeping bar in time with the sound, words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ..audio.film import load_av, write_film
from ..errors import UserError
from ..files import content_hash, shortest
from .caption import draw_caption, lines, open_picture
from .folders import RunFolder, Sample, find_runs

FPS = 25  # of a picture of 1024 columns and 10.24 s, each frame sweeps four columns
BAR = (255, 90, 60)  # the pages' play-head
VERSION = 1  # of how a video looks; another makes them anew


def write_videos(runs: Sequence[RunFolder]) -> list[Path]:
    """Write video.mp4 into the folder of every sample, or x_video.mp4 beside a picture x.png of anyone.

    A video that shows and says what it would show and say now is not made again. Samples without a picture
    or a sound are named and left out. Returns the videos, old and new. Raises UserError when PyAV is not
    installed or no sample is left.
    """
    load_av()
    # An evaluation comes last: of the same sample it knows more.
    ordered = sorted(runs, key=lambda run: run.reads)
    samples = {video_path(sample): sample for run in ordered for sample in run.samples}
    broken = [sample for sample in samples.values() if sample.sound is None or not sample.image.exists()]
    for sample in broken:
        print(f"left out: {sample.image.parent} (no picture)" if sample.sound else
              f"left out: {sample.image} (no sound beside it)")
    whole = {path: sample for path, sample in samples.items() if sample not in broken}
    if not whole:
        raise UserError(f"{', '.join(str(run.path) for run in runs)}: no sample with a picture and a sound")
    marks = {path: mark(sample) for path, sample in whole.items()}
    missing = {path: sample for path, sample in whole.items() if read_mark(path) != marks[path]}
    for path, sample in tqdm(missing.items(), unit="video", desc="videos", leave=False):
        write_video(path, sample, marks[path])
    place = os.path.commonpath([path.parent.resolve() for path in whole])
    print(f"{len(missing)} videos made, {len(whole) - len(missing)} there already: {shortest(place)}")
    return list(whole)


def videos_of(paths: Sequence[Path]) -> list[Path]:
    """`write_videos` for run folders, or folders that hold some."""
    return write_videos(find_runs(paths))


def video_path(sample: Sample) -> Path:
    """Where the video of `sample` belongs."""
    if sample.image.name == "image.png":
        return sample.image.with_name("video.mp4")
    return sample.image.with_name(sample.image.stem.removesuffix("_img") + "_video.mp4")


def shown(sample: Sample) -> Path:
    """The picture that the video of `sample` shows: in colour, where it has been coloured."""
    return sample.colour or sample.image


def write_video(path: Path, sample: Sample, comment: str = "") -> None:
    """Write the video of one sample; `comment` is kept in the file.

    Raises UserError when its picture or its sound cannot be read, or the file cannot be written.
    """
    try:
        wave, rate = soundfile.read(sample.sound, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{sample.sound}: not a readable sound file ({error})") from error
    if not len(wave):
        raise UserError(f"{sample.sound}: holds no samples")
    picture = open_picture(shown(sample))
    scene = np.vstack([np.asarray(picture), np.asarray(draw_caption(sample, picture.width))])
    # H.264 halves the resolution of colour and wants even sides.
    scene = np.pad(scene, ((0, scene.shape[0] % 2), (0, scene.shape[1] % 2), (0, 0)), mode="edge")
    count = max(1, round(FPS * len(wave) / rate))
    write_film(path, frames(scene, picture.size, count), (scene.shape[1], scene.shape[0]), FPS, wave.mean(1),
               rate, comment)


def frames(scene: np.ndarray, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
    """`count` frames: in each, the bar covers the columns of the picture that sound while it is seen.

    Args:
        scene: (H, W, 3) uint8, the picture at the top left. size: width and height of the picture.
    """
    width, height = size
    for number in range(count):
        pixels = scene.copy()
        # The last edge is rounded up, so that there is a bar where frames outnumber columns.
        pixels[:height, width * number // count:-(-width * (number + 1) // count)] = BAR
        yield pixels


def mark(sample: Sample) -> str:
    """A hash of all that the video of `sample` shows and says."""
    said = [[label, [piece.__dict__ for piece in words], figure] for label, words, figure in lines(sample)]
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (shown(sample), sample.sound) if path]
    return content_hash([VERSION, FPS, said, files])


def read_mark(path: Path) -> str | None:
    """The mark in a video, or None when there is no video, or none that can be read."""
    av = load_av()
    if not path.exists():
        return None
    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment")
    except av.FFmpegError:
        return None
