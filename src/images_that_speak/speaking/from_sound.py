"""`method=sound_to_image`: a picture of what sounds, and a film of it where that takes longer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from ..audio.film import load_av, write_film
from ..audio.mel import MEL, LogMel, logmel_to_picture
from ..audio.picture import colour_map, quantise, write_png
from ..audio.sound_features import SoundFeatures, sound_checked, windows
from ..audio.wave import write_wave
from ..config import changed, class_of, instantiate
from ..diffusion.outputs import read_complete
from ..errors import UserError
from ..files import atomic_path, content_hash, file_hash
from ..prompts import Source
from ..ranges import check_ranges
from ..runs import Run
from ..runs.sample import Sample
from ..scoring.sound_embedding import FEATURES
from .jobs import record_source
from .voices import find_recordings, read_recording

USED = ("method", "speech", "rate", "paths", "logger", "device", "fresh", "check", "profile", "debug",
        "report", "reader", "optimized_metrics", "experiment")  # sections and keys that it reads
FILM = "drawn.mp4"


@dataclass(frozen=True)
class SoundToImage:
    """How sounds are drawn.

    weights: folder of a `SoundPictureGenerator`. seconds: of sound that each frame of a film hears.
    frame_rate: of the film, frames a second. batch_size: frames drawn at once.
    """

    weights: str | None = None
    seconds: float = 2.0
    frame_rate: int = 5
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_ranges({"method.seconds": self.seconds, "method.frame_rate": self.frame_rate})
        if self.weights is None or not (Path(self.weights) / "config.json").is_file():
            raise UserError(f"method.weights={self.weights}: no such folder (expected weights/sound of a run "
                            "of python train.py experiment=mfcc_gan)")

    @cached_property
    def generator(self) -> Any:
        """The network. Raises UserError where the folder holds another one."""
        from ..diffusion.loading import load_model
        from ..networks.mfcc_gan import SoundPictureGenerator

        return load_model(SoundPictureGenerator, Path(str(self.weights)), torch.float32).eval()

    @cached_property
    def listen(self) -> SoundFeatures:
        """The features that the network learnt from."""
        name = self.generator.config.features
        if name not in FEATURES:
            raise UserError(f"method.weights={self.weights}: learnt from features {name!r} (expected "
                            f"{' or '.join(FEATURES)})")
        return FEATURES[name]()

    @torch.no_grad()
    def draw(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Sounds (T,) at 16 kHz → (N, 256, 256, 3) uint8."""
        heard = torch.from_numpy(np.stack([self.listen(wave) for wave in waves]))
        made = torch.cat([self.generator(part) for part in heard.split(self.batch_size)])
        return ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class SoundJob:
    """A picture to draw: of a file's sound."""

    sound: Path

    @property
    def sample_id(self) -> str:
        """By what the file holds."""
        return content_hash({"sound": file_hash(self.sound)})


def draws_sounds(cfg: DictConfig) -> bool:
    """Whether a configuration of generate.py draws what sounds."""
    return class_of(cfg, "method", SoundToImage) is not None


def plan_sounds(cfg: DictConfig) -> tuple[SoundToImage, list[SoundJob]]:
    """What draws, and what is to be drawn.

    Raises one UserError on settings that it does not use, and on all sounds that cannot be read.
    """
    method = instantiate(cfg.method)
    wrong = [f"{key}: method=sound_to_image does not use it; leave it out"
             for key in changed(cfg, "generate") if key.split(".")[0] not in USED]
    if cfg.speech is None:
        wrong.append("speech=null: method=sound_to_image draws a sound (expected speech=FILE, of any sound, "
                     "or a folder of them)")
    jobs = [] if cfg.speech is None else [SoundJob(path) for path in find_recordings(cfg.speech)]
    for job in jobs:
        try:
            sound_checked(read_recording(job.sound), f"speech={job.sound}")
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))
    return method, list({job.sample_id: job for job in jobs}.values())


def draw_missing(run: Run, cfg: DictConfig, method: SoundToImage, jobs: Sequence[SoundJob]
                 ) -> tuple[int, float]:
    """Draw the samples that the run folder lacks; return how many and in how many seconds."""
    missing = [job for job in jobs if read_complete(run.samples_dir / job.sample_id, job.sample_id) is None]
    begun = time.perf_counter()
    settings: Any = OmegaConf.to_container(cfg.method, resolve=True)
    for job in tqdm(missing, unit="picture", desc="sounds", leave=False):
        folder = run.sample_dir(job.sample_id)
        wave = sound_checked(read_recording(job.sound, cfg.rate), f"speech={job.sound}")
        write_png(folder / "image.png", method.draw([wave])[0])
        _write_spectrogram(folder / "spectrogram.png", wave)
        write_wave(folder / "speech.wav", wave)
        _write_film(folder / FILM, method, wave)
        record = {
            "sample_id": job.sample_id, "image_prompt": None, "audio_prompt": None, "drawn": job.sound.stem,
            "spoken": None, "seed": 0, "mel_spec": MEL.hash, "voice": "recording", "source": None,
            "recording": record_source(Source(job.sound)), "settings": {"method": settings}, "scores": {}}
        Sample(folder, record).write()
    return len(missing), time.perf_counter() - begun


def _write_spectrogram(path: Path, wave: np.ndarray) -> None:
    size = max(len(wave[: MEL.samples]), MEL.n_fft)
    padded = np.pad(wave[: MEL.samples], (0, max(0, size - len(wave))))
    logmel = LogMel()(torch.from_numpy(padded)[None])
    with atomic_path(path) as temporary:
        colour_map(quantise(logmel_to_picture(logmel)[0].numpy()) / 255).save(temporary, format="PNG")


def _write_film(path: Path, method: SoundToImage, wave: np.ndarray) -> None:
    """A film of a sound that is longer than what a frame hears; a line in its place without PyAV."""
    if len(wave) <= method.seconds * MEL.sample_rate:
        return
    try:
        load_av()
    except UserError as error:
        print(f"note: no film of a longer sound: {error}")
        return
    drawn = method.draw(windows(wave, method.seconds, method.frame_rate))
    write_film(path, drawn, (drawn.shape[2], drawn.shape[1]), method.frame_rate, wave, MEL.sample_rate)
