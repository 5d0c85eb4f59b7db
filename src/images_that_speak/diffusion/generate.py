"""Generating: pairs of prompts → sample folders.

Everything a user can get wrong is checked before a network is loaded; every sample is on disk before the
next batch begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from ..audio.mel import MEL
from ..config import instantiate
from ..errors import UserError
from ..prompts import Pair, read_pairs
from ..runs import Run
from ..speech.alignment import speech_activity
from ..speech.durations import DurationModel, plan_speech
from ..speech.phonemes import PAUSE
from ..speech.tts import Phone
from .composition import NO_PHONES, Composition
from .estimate import announce
from .family import DTYPES, Family, Layout, activity
from .guidance import Branch, Guidance, Joint, check_starts, evaluations
from .outputs import read_complete, sample_id, write_sample
from .sampling import Callback, make_scheduler, noise, sample, set_steps


@dataclass(frozen=True)
class Job:
    """One sample to make.

    phones: empty when the speech branch reads the prompt as a text. scene: rows of networks.scene.FIELDS,
    one a copy; None when the image branch takes no scenes.
    """

    pair: Pair
    seed: int
    phones: tuple[Phone, ...] = ()
    scene: tuple[tuple[float, ...], ...] | None = None

    @property
    def sample_id(self) -> str:
        return sample_id(self.pair.image_prompt, self.pair.audio_prompt, self.seed)


@dataclass(frozen=True)
class Settings:
    """How samples are made, whatever they show and say.

    guidance, starts: by branch, "image" and "speech". scheduler: `make_scheduler`'s name and options.
    """

    compose: Composition
    guidance: dict[str, Guidance]
    starts: dict[str, float]
    scheduler: dict[str, Any]
    steps: int
    voice: str | None = None
    autocast: torch.dtype | None = None

    @property
    def evaluations(self) -> int:
        """UNet passes a sample takes."""
        return evaluations(self.compose, self.guidance, self.starts, self.steps)


def read_settings(cfg: DictConfig, layout: Layout) -> Settings:
    """The settings in `cfg`, checked against the family. Raises UserError."""
    layout.voice_id(cfg.voice)
    compose = instantiate(cfg.composition)
    if getattr(compose, "needs_phones", False) and not layout.speaks_phonemes:
        raise UserError(NO_PHONES.format(type(compose).__name__))
    guidance = cfg.guidance
    starts = {"image": float(guidance.image_start), "speech": float(guidance.audio_start)}
    if len(compose.branches) > 1:
        check_starts(starts)
    scheduler: Any = OmegaConf.to_container(cfg.scheduler, resolve=True)
    set_steps(make_scheduler(schedule=layout.schedule, **scheduler), cfg.steps)
    autocast = cfg.precision.autocast
    first, last = guidance.interval
    rescale = float(guidance.rescale)
    branches = {"image": Guidance(float(guidance.image_scale), (float(first), float(last)), rescale),
                "speech": Guidance(float(guidance.audio_scale), rescale=rescale)}
    return Settings(compose, branches, starts, scheduler, int(cfg.steps), cfg.voice,
                    DTYPES[autocast] if autocast else None)


def plan(cfg: DictConfig, layout: Layout) -> list[Job]:
    """The samples to make, in order. Raises one UserError naming every phrase that cannot be spoken."""
    pairs = (read_pairs(cfg.prompts) if cfg.prompts
             else [Pair(" ".join(cfg.image_prompt.split()), " ".join(cfg.audio_prompt.split()))])
    pairs = list(dict.fromkeys(pairs))
    phones: dict[str, tuple[Phone, ...]] = {}
    wrong = []
    durations = DurationModel.from_pretrained(layout.durations) if layout.durations else None
    voice = cfg.voice or (layout.voices[0] if layout.voices else None)
    for phrase in dict.fromkeys(pair.audio_prompt for pair in pairs):
        try:
            # Silence before and after has no phone, as in the corpus the adapters were trained on.
            planned = [] if durations is None else plan_speech(phrase, durations, voice, **cfg.phonemes)
            phones[phrase] = tuple(trimmed(planned))
        except UserError as error:
            wrong.append(f"audio_prompt={phrase!r}: {error}")
    if wrong:
        raise UserError("\n".join(wrong))
    scenes = instantiate(cfg.scene) if layout.scene is not None else None

    def job(pair: Pair, seed: int) -> Job:
        spoken = phones[pair.audio_prompt]
        scene = None if scenes is None else scenes.plan(
            pair.image_prompt, seed, speech_activity(spoken, MEL.frames) if spoken else None)
        return Job(pair, seed, spoken, None if scene is None else tuple(
            tuple(round(float(x), 4) for x in square) for square in scene))

    return [job(pair, cfg.seed + i) for pair in pairs for i in range(cfg.num_samples)]


def trimmed(phones: Sequence[Phone]) -> Sequence[Phone]:
    """`phones` without the pauses at either end."""
    sounding = [i for i, phone in enumerate(phones) if phone.symbol != PAUSE]
    return phones[sounding[0]: sounding[-1] + 1] if sounding else ()


def generate_batch(family: Family, settings: Settings, jobs: Sequence[Job],
                   callback: Callback | None = None) -> torch.Tensor:
    """Pictures (len(jobs), 256, 1024) in [0, 1], all denoised together; each is as it would be alone."""
    plans = [job.phones for job in jobs]
    conditions: dict[str, Callable[[], Any]] = {
        "image": lambda: family.text_condition(
            "image", [job.pair.image_prompt for job in jobs],
            None if family.layout.scene is None else np.array([job.scene for job in jobs], np.float32)),
        "speech": lambda: (
            family.phone_condition(plans, [family.layout.voice_id(settings.voice)] * len(jobs),
                                   [job.pair.audio_prompt for job in jobs])
            if family.layout.speaks_phonemes
            else family.text_condition("speech", [job.pair.audio_prompt for job in jobs]))}
    branches = {
        name: Branch(family.predictors[name], conditions[name](), family.null(name, len(jobs)),
                     settings.guidance[name])
        for name in settings.compose.branches}
    sounding = activity(plans).to(family.device) if family.layout.speaks_phonemes else None
    joint = Joint(settings.compose, branches, settings.starts, sounding)
    scheduler = make_scheduler(schedule=family.layout.schedule, **settings.scheduler)
    x = noise([job.seed for job in jobs], family.layout.latent_shape).to(family.device)
    cast = torch.autocast(family.device.type, settings.autocast) if settings.autocast else nullcontext()
    with cast:
        pictures = family.decode(sample(joint, x, scheduler, settings.steps, callback))
    finish = getattr(settings.compose, "finish", None)
    return pictures if finish is None or sounding is None else finish(pictures, sounding)


def record(job: Job, cfg: DictConfig, evaluations: int | None = None) -> dict[str, Any]:
    """What sample.json says of a sample before it is read back; `evaluations` counts its UNet passes."""
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    kept = ("family", "guidance", "composition", "phonemes", "scheduler", "steps", "scene", "voice",
            "vocoder", "precision")
    return {"sample_id": job.sample_id, "image_prompt": job.pair.image_prompt,
            "audio_prompt": job.pair.audio_prompt, "seed": job.seed, "mel_spec": MEL.hash,
            "evaluations": evaluations,
            "settings": {key: settings[key] for key in kept},
            "phones": [[phone.symbol, round(phone.start, 4), round(phone.end, 4)] for phone in job.phones],
            "scene": [list(square) for square in job.scene or () if square[2] > 0],
            "scores": {}}


def batches(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    for start in range(0, len(jobs), size):
        yield jobs[start: start + size]


def make_missing(run: Run, cfg: DictConfig, layout: Layout, settings: Settings,
                  jobs: Sequence[Job]) -> tuple[int, float]:
    """Make the samples that the run folder lacks; return how many and in how many seconds."""
    missing = [job for job in jobs if read_complete(run.samples_dir / job.sample_id, job.sample_id) is None]
    if not missing:
        return 0, 0.0
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} samples are there already")
    torch.set_float32_matmul_precision(cfg.precision.matmul)
    announce(layout, settings, cfg, len(missing))
    family = Family.load(layout, (*settings.compose.branches, "vae", "vocoder"), device=cfg.device,
                         dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
    begun = time.perf_counter()
    with tqdm(total=len(missing) * settings.steps, unit="step", desc="denoising", leave=False) as bar:
        for number, batch in enumerate(batches(missing, cfg.batch_size)):
            start = time.perf_counter()
            pictures = generate_batch(family, settings, batch, lambda _: bar.update(len(batch)))  # noqa: B023
            for job, picture in zip(batch, pictures.numpy(), strict=True):
                write_sample(run.sample_dir(job.sample_id), picture, family.vocoder,
                             record(job, cfg, settings.evaluations))
            run.log({"seconds_per_sample": (time.perf_counter() - start) / len(batch)}, number)
    return len(missing), time.perf_counter() - begun
