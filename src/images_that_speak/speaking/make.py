"""Making speaking pictures: sources → one picture that is both, and the sound that it plays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from PIL import Image
from tqdm import tqdm

from ..audio.mel import MEL
from ..audio.picture import to_grid
from ..config import class_of, instantiate
from ..data.counts import beyond
from ..data.nearest import nearest_drawing
from ..diffusion.composition import ImageOnly, SpeechOnly
from ..diffusion.family import Family
from ..diffusion.layout import Layout
from ..diffusion.method import Method, Settings
from ..diffusion.outputs import read_complete, write_sample
from ..diffusion.planning import caption_of, read_settings, trimmed
from ..diffusion.scene import copies_of
from ..errors import UserError
from ..files import atomic_path
from ..runs import Run
from ..speech.durations import plan_speech
from ..speech.normalisation import normalise_text, spoken_otherwise
from .draw import Drawing, draw, in_colour, spoken_by_branch, whole
from .jobs import Source, SpeakingJob, by_branch, chosen_voice, plan_jobs, record_source
from .modulation import CellComposition
from .networks import Networks
from .paint import LUMA, painted
from .photographs import ENOUGH, Framing
from .voices import Speech, read_recording, speech_of_wave, spoken_by

COPY, BESIDE_COPIES = 200, 32  # columns of each copy in a drawing, and beside them
KEPT = ("family", "composition", "picture", "voice", "rate", "pitch", "scheduler", "steps", "guidance",
        "vocoder", "precision", "phonemes")


@dataclass
class Maker:
    """Makes the samples of a configuration; networks are loaded when the first sample needs them.

    networks: what is loaded; makers that follow one another may share them. tell: is called with whatever is
    said or shown otherwise than one might think, a line each.
    """

    cfg: DictConfig
    layout: Layout
    jobs: Sequence[SpeakingJob]
    modulation: CellComposition
    framing: Framing
    voice: str | None
    networks: Networks
    tell: Callable[[str], None] = print
    speeches: dict[Source, Speech] = field(default_factory=dict)
    settings: Any = None

    @classmethod
    def plan(cls, cfg: DictConfig, layout: Layout, networks: Networks | None = None,
             tell: Callable[[str], None] = print) -> Maker:
        """What `cfg` asks for. Raises UserError on settings out of range and on files that are not there."""
        jobs = plan_jobs(cfg)
        shown = cfg.picture
        framing = Framing(int(shown.rows), shown.fit, tuple(shown.focus), shown.ground)
        modulation = instantiate(cfg.composition)
        voice = chosen_voice(cfg, layout, any(job.speech.file is None for job in jobs))
        maker = cls(cfg, layout, jobs, modulation, framing, voice, networks or Networks(cfg, layout), tell)
        maker.settings = branch_settings(cfg, layout, voice) if maker.needs_family else None
        return maker

    @cached_property
    def captions(self) -> dict[str, str]:
        """{image prompt: what is drawn for it}. Raises one UserError on all that the painter refuses."""
        found, wrong = {}, []
        for prompt in dict.fromkeys(str(job.picture.prompt) for job in self.jobs if job.picture.file is None):
            try:
                found[prompt] = caption_of(prompt, self.cfg, self.layout) or prompt
            except UserError as error:
                wrong.append(str(error))
        if wrong:
            raise UserError("\n".join(wrong))
        return found

    def notes(self) -> list[str]:
        """What is to be said before anything is made: what is drawn otherwise than it was written or set."""
        told = self._unused() if self.draws else []
        for prompt in self.captions:
            if self.layout.scene is not None and (number := beyond(prompt)) is not None:
                told.append(f"note: {number}")
            elif self.layout.drawings and not (found := nearest_drawing(prompt)).known:
                told.append(f"note: {found.told()}")
        return told

    def _unused(self) -> list[str]:
        """A line for each setting of the composition that was changed, and that drawings have otherwise."""
        compose, style = self.cfg.composition, self.cfg.get("style") or {}
        return [f"note: composition.{key}={compose[key]} is for photographs; drawings have "
                f"style.drawings.{key}={value}"
                for key, value in (compose.get("drawings") or {}).items()
                if key in style and compose.get(key) != style[key]]

    def prepare(self) -> None:
        """Have everything said and every photograph read once. Raises one UserError on all that is wrong.

        Synthesisers are fast, so what they say is known, and whether it fits, before the first picture.
        """
        self.say_all()
        self.check_photographs()

    @property
    def draws(self) -> bool:
        """Whether anything has to be drawn."""
        return any(job.picture.file is None for job in self.jobs)

    @property
    def speaks(self) -> bool:
        """Whether the family's speech branch has to speak."""
        return by_branch(self.voice, self.layout) and any(job.speech.file is None for job in self.jobs)

    @property
    def needs_family(self) -> bool:
        return self.draws or self.speaks

    @property
    def evaluations(self) -> int:
        """UNet passes that a sample takes; none where a photograph speaks by a synthesiser."""
        if self.settings is None:
            return 0
        spoken = replace(self.settings, compose=SpeechOnly(*self.settings.compose.speech_draws))
        drawn = replace(self.settings, compose=ImageOnly())
        return ((drawn.evaluations if self.draws else 0) + (spoken.evaluations if self.speaks else 0))

    # --- speech

    def say_all(self) -> None:
        """Fill `speeches`. Raises one UserError naming all that cannot be said or does not fit."""
        wrong = []
        for source in dict.fromkeys(job.speech for job in self.jobs):
            try:
                self.speeches[source] = self._say(source)
            except UserError as error:
                wrong.append(str(error))
                continue
            seconds = self.speeches[source].frames * MEL.hop / MEL.sample_rate
            if seconds > MEL.seconds:
                name = f"speech={source.file}" if source.file else f"audio_prompt={source.prompt!r}"
                enough = 1.05 * self.cfg.rate * seconds / MEL.seconds
                wrong.append(f"{name}: takes {seconds:.1f} s to say (expected at most {MEL.seconds} s, a "
                             f"picture of {MEL.frames} columns): rate={enough:.2f} is fast enough, or say "
                             "less, or cut it into several pictures with sentences=FILE")
        if wrong:
            raise UserError("\n".join(wrong))

    def _say(self, source: Source) -> Speech:
        if source.file is not None:
            return speech_of_wave(read_recording(source.file, self.cfg.rate), source.prompt)
        assert source.prompt is not None
        words = normalise_text(source.prompt)
        if (other := spoken_otherwise(source.prompt)) is not None:
            self.tell(f"says {other!r} for {source.prompt!r}")
        if self.speaks:
            phones = self._phones(source.prompt)
            return spoken_by_branch(self.family, self.settings, source.prompt, phones, int(self.cfg.seed),
                                    words)
        assert self.voice is not None
        wave = spoken_by(self.voice, normalise_text(source.prompt, pauses=True), self.cfg.rate)
        return speech_of_wave(wave, words)

    def _phones(self, text: str) -> tuple[Any, ...]:
        if self.networks.durations is None:
            return ()
        voice = self.voice if self.voice in self.layout.voices else self.layout.voices[0]
        options = {**self.cfg.phonemes, "rate": self.cfg.phonemes.rate * self.cfg.rate}
        return tuple(trimmed(plan_speech(text, self.networks.durations, voice, **options)))

    # --- pictures

    def check_photographs(self) -> None:
        """Read every photograph once. Raises one UserError naming all that cannot be read."""
        wrong, told = [], []
        for job in self.jobs:
            if job.picture.file is None:
                continue
            try:
                pixels = self.framing.read(job.picture.file)
            except UserError as error:
                wrong.append(str(error))
                continue
            frames = self.frames_of(job, pixels)
            left = self.framing.kept(pixels, frames)
            if self.framing.fit in ("auto", "crop") and left < ENOUGH:
                way = "all of it is shown, on a blurred copy (picture.fit=crop cuts)" \
                    if self.framing.fit == "auto" else "the rest is cut (picture.fit=pad shows all of it)"
                told.append(f"{job.picture.file.name}: a crop as wide as the sentence would keep {left:.0%} "
                            f"of it; {way}; rate= above 1 speaks faster")
        if wrong:
            raise UserError("\n".join(dict.fromkeys(wrong)))
        for line in dict.fromkeys(told):
            self.tell(line)

    def frames_of(self, job: SpeakingJob, pixels: np.ndarray) -> int:
        """How wide a picture is: as its photograph, or as wide as it speaks where that is more."""
        return max(self.framing.own_frames(pixels), self.speeches[job.speech].frames)

    @property
    def family(self) -> Family:
        """The parts of the family that are needed."""
        parts = [*(["image"] if self.draws else []), *(["speech"] if self.speaks else []), "vae"]
        return self.networks.family(parts)

    @property
    def colorizer(self) -> Any:
        return self.networks.colorizer if self.cfg.picture.colour else None

    @property
    def vocoder(self) -> Any:
        return self.networks.vocoder

    def drawing(self, job: SpeakingJob) -> Drawing:
        """What is drawn for a job: its copies lie within the columns that the speech takes."""
        frames = self.drawn_frames(job)
        caption = self.captions[str(job.picture.prompt)]
        scene = None
        if self.layout.scene is not None:
            outside = np.zeros(MEL.frames)
            outside[frames:] = 1
            planned = instantiate(self.cfg.scene).plan(caption, job.seed, outside)
            scene = tuple(tuple(round(float(x), 4) for x in square) for square in planned)
        return Drawing(caption, job.seed, scene)

    def drawn_frames(self, job: SpeakingJob) -> int:
        """Columns of a drawing: as wide as it speaks, or as its copies are where they are drawn large."""
        copies = copies_of(self.captions[str(job.picture.prompt)])[0] if self.layout.scene is not None else 1
        return min(MEL.frames, max(self.speeches[job.speech].frames, MEL.n_mels + 32,
                                   copies * COPY + BESIDE_COPIES))

    def make(self, batch: Sequence[SpeakingJob], callback: Any = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """(mixed, unmixed) pictures of some jobs, (H, W, 3) uint8 each."""
        drawn = [job for job in batch if job.picture.file is None]
        sheets: dict[SpeakingJob, np.ndarray] = {}
        if drawn:
            drawings = [self.drawing(job) for job in drawn]
            voices = whole([placed(self.speeches[job.speech].picture, self.drawn_frames(job))
                            for job in drawn])
            pictures = draw(self.family, self.settings, drawings, voices, self.modulation, callback).numpy()
            for job, picture, what in zip(drawn, pictures, drawings, strict=True):
                small = in_colour(self.colorizer, picture, what, self.drawn_frames(job))
                sheets[job] = enlarged(small, self.framing.rows // MEL.n_mels)
        return [self._join(job, sheets.get(job)) for job in batch]

    def _join(self, job: SpeakingJob, rgb: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        join = self.modulation if rgb is None else self.modulation.for_drawings
        if rgb is None:
            assert job.picture.file is not None
            pixels = self.framing.read(job.picture.file)
            rgb = self.framing.framed(pixels, self.frames_of(job, pixels))
        if not self.cfg.picture.colour:
            rgb = np.repeat((rgb @ LUMA)[..., None], 3, -1)
        times = self.framing.rows // MEL.n_mels
        grid = to_grid(rgb @ LUMA, rgb.shape[1] // times)
        voice = placed(self.speeches[job.speech].picture, grid.shape[1])
        message = join(torch.from_numpy(grid)[None], torch.from_numpy(voice)[None])[0].numpy()
        mixed = painted(message, rgb, join.detail, float(self.cfg.picture.saturation))
        return mixed, np.round(255 * rgb).astype(np.uint8)

    def record(self, job: SpeakingJob) -> dict[str, Any]:
        """What sample.json says of a sample before it is read back."""
        settings: Any = OmegaConf.to_container(self.cfg, resolve=True)
        speech = self.speeches[job.speech]
        return {"sample_id": job.sample_id, "image_prompt": job.picture.prompt,
                "drawn": None if job.picture.file else self.captions[str(job.picture.prompt)],
                "audio_prompt": job.speech.prompt, "spoken": speech.text, "seed": job.seed,
                "mel_spec": MEL.hash, "voice": self.voice if job.speech.file is None else "recording",
                "source": record_source(job.picture), "recording": record_source(job.speech),
                "settings": {key: settings[key] for key in KEPT if key in settings}, "scores": {}}


def in_same_cells(cfg: DictConfig) -> bool:
    """Whether a configuration joins picture and voice in the same cells, by denoising and pasting alone."""
    method = class_of(cfg, "method", Method)  # type: ignore[type-abstract]
    compose = class_of(cfg, "composition", CellComposition)  # type: ignore[type-abstract]
    return compose is not None and method is not None and method.pastes


def refuse_files(cfg: DictConfig) -> None:
    """Raise UserError when files are given to a composition or method that only knows prompts."""
    given = [key for key in ("image", "speech", "sentences") if cfg[key] is not None]
    if given:
        raise UserError(f"{given[0]}={cfg[given[0]]}: needs composition=modulation and method=joint; the "
                        "others draw and speak prompts alone")


def branch_settings(cfg: DictConfig, layout: Layout, voice: str | None) -> Settings:
    """`read_settings` for the family's branches, each by itself."""
    alone = cfg.copy()
    with open_dict(alone):
        alone.voice = voice if voice in layout.voices else None
    modulation: Any = instantiate(cfg.composition).settled(layout.told_times)
    return replace(read_settings(alone, layout, SpeechOnly()), compose=modulation)


def placed(picture: np.ndarray, frames: int) -> np.ndarray:
    """(256, F) speech in the middle of `frames` columns, silence beside it."""
    room = frames - picture.shape[1]
    return np.pad(picture, ((0, 0), (room // 2, room - room // 2))).astype(np.float32)


def enlarged(rgb: np.ndarray, times: int) -> np.ndarray:
    """(H, W, 3) in [0, 1] → (H·k, W·k, 3), smoothly."""
    if times == 1:
        return rgb
    size = (rgb.shape[1] * times, rgb.shape[0] * times)
    channels = [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC))
                for channel in np.ascontiguousarray(rgb.transpose(2, 0, 1))]
    return np.stack(channels, -1).clip(0, 1)


def make_missing(run: Run, maker: Maker) -> tuple[int, float]:
    """Make the samples that the run folder lacks; return how many and in how many seconds."""
    missing = {job.sample_id for job in maker.jobs
               if read_complete(run.samples_dir / job.sample_id, job.sample_id) is None}
    if not missing:
        return 0, 0.0
    if len(missing) < len(maker.jobs):
        print(f"{len(maker.jobs) - len(missing)} of {len(maker.jobs)} samples are there already")
    begun = time.perf_counter()
    size = int(maker.cfg.batch_size)
    with tqdm(total=len(missing), unit="picture", desc="speaking pictures", leave=False) as bar:
        for first in range(0, len(maker.jobs), size):
            batch = maker.jobs[first:first + size]
            if not any(job.sample_id in missing for job in batch):
                continue
            start = time.perf_counter()
            for job, (mixed, unmixed) in zip(batch, maker.make(batch), strict=True):
                if job.sample_id in missing:
                    write_speaking(run.sample_dir(job.sample_id), mixed, unmixed, maker.vocoder,
                                   maker.record(job))
                    bar.update()
            run.log({"seconds_per_sample": (time.perf_counter() - start) / len(batch)}, first // size)
    return len(missing), time.perf_counter() - begun


def write_speaking(folder: Path, mixed: np.ndarray, unmixed: np.ndarray, vocoder: Any,
                   record: dict[str, Any]) -> None:
    """Write a sample folder: what `write_sample` does, and photograph.jpg, the picture before it spoke."""
    with atomic_path(folder / "photograph.jpg") as temporary:
        Image.fromarray(unmixed).save(temporary, format="JPEG", quality=90)
    write_sample(folder, mixed, vocoder, record)
