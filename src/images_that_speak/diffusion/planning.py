"""Generating: pairs of prompts → sample folders.

Everything a user can get wrong is checked before a network is loaded; every sample is on disk before the
next batch begins.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from ..audio.mel import MEL
from ..config import changed, instantiate
from ..data.counts import beyond
from ..data.nearest import nearest_drawing
from ..errors import UserError, gathered
from ..files import content_hash, file_hash
from ..prompts import Pair, read_pairs
from ..runs import Run
from ..speech.alignment import speech_activity
from ..speech.durations import DurationModel, plan_speech
from ..speech.normalisation import normalise_text, spoken_otherwise
from ..speech.phonemes import PAUSE
from ..speech.tts import Phone
from .composition import Composition, as_composition
from .family import Family
from .guidance import Guidance
from .layout import Layout
from .loading import DTYPES
from .method import Job, Method, Settings
from .outputs import read_complete, write_sample
from .sampling import Callback

SHOWN = 12  # notes on prompts that are printed


def read_settings(cfg: DictConfig, layout: Layout, compose: Composition | None = None) -> Settings:
    """The settings in `cfg`, checked against the family and the method. Raises one UserError of all that is
    wrong.

    compose: in the place of `cfg.composition`.
    """
    with gathered() as step:
        with step():
            layout.voice_id(cfg.voice)
        with step():
            layout.check_pitch(cfg.pitch)
        with step():
            method = instantiate(cfg.method)
            refuse_unused(cfg, method)
        with step():
            compose = compose or as_composition(instantiate(cfg.composition))
    guidance = cfg.guidance
    scheduler: Any = OmegaConf.to_container(cfg.scheduler, resolve=True)
    autocast = cfg.precision.autocast
    first, last = guidance.interval
    rescale = float(guidance.rescale)
    settings = Settings(
        method, compose.settled(layout.told_times),
        guidance={"image": Guidance(float(guidance.image_scale), (float(first), float(last)), rescale),
                  "speech": Guidance(float(guidance.audio_scale), rescale=rescale)},
        starts={"image": float(guidance.image_start), "speech": float(guidance.audio_start)},
        scheduler=scheduler, steps=int(cfg.steps), audio_weight=float(guidance.audio_weight), voice=cfg.voice,
        pitch=float(cfg.pitch),
        autocast=DTYPES[autocast] if autocast else None)
    method.check(settings, layout)
    return settings


def refuse_unused(cfg: DictConfig, method: Method) -> None:
    """Raise UserError naming what is set, other than by default, and not read by the method."""
    different = changed(cfg, "generate") if method.unused else {}
    wrong = [f"{key}: {method.name} does not use it; leave it out" for key in method.unused
             if any(name == key or name.startswith(f"{key}.") for name in different)]
    if wrong:
        raise UserError("\n".join(wrong))


def plan(cfg: DictConfig, layout: Layout) -> list[Job]:
    """The samples to make, in order.

    Raises one UserError naming every phrase that cannot be spoken and every image prompt that is refused.
    """
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
    captions: dict[str, str | None] = {}
    for prompt in dict.fromkeys(pair.image_prompt for pair in pairs):
        try:
            captions[prompt] = caption_of(prompt, cfg, layout)
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))
    scenes = instantiate(cfg.scene) if layout.scene is not None else None

    def job(pair: Pair, seed: int) -> Job:
        spoken = phones[pair.audio_prompt]
        caption = captions[pair.image_prompt]
        scene = None if scenes is None else scenes.plan(
            caption or pair.image_prompt, seed, speech_activity(spoken, MEL.frames) if spoken else None)
        return Job(pair, seed, spoken, None if scene is None else tuple(
            tuple(round(float(x), 4) for x in square) for square in scene),
            caption, None if durations is None else normalise_text(pair.audio_prompt))

    return [job(pair, cfg.seed + i) for pair in pairs for i in range(cfg.num_samples)]


def caption_of(prompt: str, cfg: DictConfig, layout: Layout) -> str | None:
    """What is drawn for a prompt where the painter knows a list of things; None: the prompt as it stands.

    Raises UserError where `cfg.strict` is true and the painter does not know the prompt.
    """
    if not layout.drawings or cfg.strict is None:
        return None
    found = nearest_drawing(prompt)
    if cfg.strict and not found.known:
        raise UserError(found.refused())
    return found.caption


def notes(jobs: Sequence[Job], layout: Layout) -> list[str]:
    """What is to be said before the jobs are done: what is drawn and said otherwise than it was written."""
    told: dict[str, None] = {}
    for job in jobs:
        prompt = job.pair.image_prompt
        if layout.scene is not None and (number := beyond(prompt)) is not None:
            told[f"note: {number}"] = None
        elif job.caption is not None and not (found := nearest_drawing(prompt)).known:
            told[f"note: {found.told()}"] = None
        if job.spoken is not None and (spoken := spoken_otherwise(job.pair.audio_prompt)) is not None:
            told[f"{job.pair.audio_prompt!r} is spoken {spoken!r}"] = None
    lines = list(told)
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more such notes"]


def trimmed(phones: Sequence[Phone]) -> Sequence[Phone]:
    """`phones` without the pauses at either end."""
    sounding = [i for i, phone in enumerate(phones) if phone.symbol != PAUSE]
    return phones[sounding[0]: sounding[-1] + 1] if sounding else ()


def generate_batch(family: Family, settings: Settings, jobs: Sequence[Job],
                   callback: Callback | None = None, kept: Path | None = None) -> torch.Tensor:
    """Pictures (len(jobs), 256, 1024) in [0, 1], all made together; each is as it would be alone.

    kept: see `Method`.
    """
    return settings.method(family, settings, jobs, callback, kept)


def record(job: Job, cfg: DictConfig, evaluations: int | None = None,
           unused: Collection[str] = ()) -> dict[str, Any]:
    """What sample.json says of a sample before it is read back.

    evaluations: its UNet passes. unused: sections of the configuration that had no part in it.
    """
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    kept = ("family", "method", "guidance", "composition", "phonemes", "scheduler", "steps", "scene", "voice",
            "pitch", "vocoder", "precision")
    return {"sample_id": job.sample_id, "image_prompt": job.pair.image_prompt or None,
            "audio_prompt": job.pair.audio_prompt or None, "drawn": job.drawn or None, "spoken": job.spoken,
            "seed": job.seed,
            "mel_spec": MEL.hash,
            "evaluations": evaluations,
            "settings": {key: settings[key] for key in kept if key not in unused},
            "phones": [[phone.symbol, round(phone.start, 4), round(phone.end, 4)] for phone in job.phones],
            "scene": [list(square) for square in job.scene or () if square[2] > 0],
            **{key: {"path": str(path), "sha": file_hash(path)}
               for key, path in (("recording", job.recording), ("source", job.picture)) if path},
            "scores": {}}


def batches(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    for start in range(0, len(jobs), size):
        yield jobs[start: start + size]


def make_missing(run: Run, cfg: DictConfig, layout: Layout, settings: Settings,
                  jobs: Sequence[Job]) -> tuple[int, float]:
    """Make the samples that the run folder lacks; return how many and in how many seconds."""
    missing = {job.sample_id for job in jobs
               if read_complete(run.samples_dir / job.sample_id, job.sample_id) is None}
    if not missing:
        return 0, 0.0
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} samples are there already")
    # Whole batches, as they were begun: in a smaller one the last bit of a sum differs, and with it a pixel.
    todo = [(number, batch) for number, batch in enumerate(batches(jobs, cfg.batch_size))
            if any(job.sample_id in missing for job in batch)]
    # What counts operations loads diffusers and torch's decompositions, which photographs do without.
    from .estimate import announce

    torch.set_float32_matmul_precision(cfg.precision.matmul)
    announce(layout, settings, cfg, len(missing))
    family = Family.load(layout, (*settings.branches, "vae", "vocoder"), device=cfg.device,
                         dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
    begun = time.perf_counter()
    steps = sum(len(batch) for _, batch in todo) * settings.method.calls(settings)
    with tqdm(total=steps, unit="step", desc=settings.method.name, leave=False) as bar:
        for number, batch in todo:
            start = time.perf_counter()
            kept = run.checkpoints / f"{content_hash([job.sample_id for job in batch])}.safetensors"

            def told(state: dict[str, Any], size: int = len(batch), done: int = bar.n) -> None:
                bar.update(done + (state["i"] + 1) * size - bar.n)  # "i" begins beyond 0 where it goes on

            pictures = settings.method(family, settings, batch, told, kept)
            for job, picture in zip(batch, pictures.numpy(), strict=True):
                if job.sample_id in missing:
                    write_sample(run.sample_dir(job.sample_id), picture, family.vocoder,
                                 record(job, cfg, settings.evaluations, settings.method.unused))
            kept.unlink(missing_ok=True)
            run.log({"seconds_per_sample": (time.perf_counter() - start) / len(batch)}, number)
    return len(missing), time.perf_counter() - begun
