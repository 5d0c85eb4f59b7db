"""generate.py check=true: the plan with its phones, the weights, the network evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import instantiate
from ..diffusion.composition import BOTH, NO_PHONES
from ..diffusion.estimate import estimate, on_meta
from ..diffusion.family import find_device
from ..diffusion.generate import plan, read_settings, refuse_unused
from ..diffusion.guidance import check_starts
from ..diffusion.layout import USUAL_SIZE, Layout, download_command, find_weights
from ..diffusion.loading import DTYPES
from ..diffusion.method import Job
from ..diffusion.sampling import make_scheduler
from ..errors import UserError
from ..networks.auffusion import condition_parts
from ..networks.autoencoder import autoencoder_class
from ..speech.phonemes import PAUSE
from .findings import Findings, compare, counted, table, weights
from .readers import check_readers

SHOWN = 5  # phrases whose phones are listed


def check(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """What `cfg` (configs/generate.yaml) would make, and everything that is wrong with it."""
    found = Findings()
    layout = _layout(found, cfg)
    with found.step("device"):
        found.tell("device", f"{find_device(cfg.device)}, {cfg.precision.trainer}")
    branches = _branches(found, cfg, layout)
    if layout is not None:
        with found.step("voice"):
            layout.voice_id(cfg.voice)
        with found.step("pitch"):
            layout.check_pitch(cfg.pitch)
        _tell_weights(found, layout, branches, cfg.vocoder.path)
        _compare_weights(found, layout, branches)
        jobs = _jobs(found, cfg, layout)
        _tell_steps(found, cfg, layout, len(jobs))
    check_readers(found, cfg)
    return found.lines, found.problems


def _layout(found: Findings, cfg: DictConfig) -> Layout | None:
    """The family's layout, or None when it is wrong or would have to be fetched."""
    absent = []
    if "offline" in cfg.family and not cfg.family.offline:
        for key in ("image", "speech"):
            try:
                find_weights(cfg.family[key], f"family.{key}", offline=True)
            except UserError as error:
                if "offline" not in str(error):
                    found.problems.append(str(error))
                absent.append(cfg.family[key])
        if absent:
            found.tell("family", f"{cfg.family.name}: {' and '.join(absent)} would be fetched from the hub, "
                       f"about {len(absent) * USUAL_SIZE / 1e9:.1f} GB; phones, weights and network "
                       "evaluations are not known before",
                       *(download_command(name) for name in absent))
            return None
    with found.step("family"):
        layout = instantiate(cfg.family)
        shape = "×".join(map(str, layout.latent_shape))
        voices = f", voices {', '.join(layout.voices)}" if layout.voices else ""
        found.tell("family", f"{layout.name}, latents {shape}{voices}")
        return layout
    return None


def _branches(found: Findings, cfg: DictConfig, layout: Layout | None) -> tuple[str, ...]:
    """The branches that the method calls; none when it or the composition is wrong."""
    method = None
    with found.step("method"):
        method = instantiate(cfg.method)
        refuse_unused(cfg, method)
    if method is not None and "composition" in method.unused:
        found.tell("method", f"{method.name} of {' and '.join(BOTH)}")
        return BOTH
    with found.step("composition"):
        compose = instantiate(cfg.composition)
        if layout is not None and getattr(compose, "needs_phones", False) and not layout.speaks_phonemes:
            found.problems.append(f"composition: {NO_PHONES.format(type(compose).__name__)}")
        if len(compose.branches) > 1:
            check_starts({"image": cfg.guidance.image_start, "speech": cfg.guidance.audio_start})
        found.tell("composition", f"{type(compose).__name__} of {' and '.join(compose.branches)}")
        return compose.branches
    return ()


def _tell_weights(found: Findings, layout: Layout, branches: tuple[str, ...], vocoder: str | None) -> None:
    """Parameters and bytes of every part that would be loaded."""
    parts: dict[str, Path] = {}
    for branch in branches:
        parts[f"{branch} UNet"] = layout.unet[branch]
        if branch in layout.text_encoder:
            parts[f"{branch} text encoder"] = layout.text_encoder[branch]
            if branch == "image" and layout.scene is not None:
                parts["scene adapter"] = layout.scene
        elif layout.adapter is not None:
            parts["phoneme adapter"] = layout.adapter
        elif layout.conditions is not None:
            for i, entry in enumerate(condition_parts(layout.conditions)):
                parts[f"text encoder {i}"] = layout.conditions / entry["text_encoder_name"]
                parts[f"condition adapter {i}"] = layout.conditions / entry["condition_adapter_name"]
    if layout.durations is not None:
        parts["duration model"] = layout.durations
    if layout.lora is not None and "speech" in branches:
        parts["LoRA"] = layout.lora
    parts["autoencoder"] = layout.vae
    player = vocoder or layout.vocoder
    if str(player) != "griffin_lim":
        parts["vocoder"] = Path(player)
    rows = []
    for name, folder in parts.items():
        with found.step(name):
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder (the {name})")
            parameters, size = weights(folder)
            if not size:
                raise UserError(f"{folder}: holds no weights (the {name})")
            rows.append((name, parameters, size))
    found.tell("weights", *table(rows))
    if "vocoder" not in parts:
        found.tell("", "played by Griffin-Lim, which has no weights")


def _compare_weights(found: Findings, layout: Layout, branches: tuple[str, ...]) -> None:
    """Whether the files of the large networks hold what their configs, built without numbers, say."""
    from diffusers import UNet2DConditionModel

    parts = [(UNet2DConditionModel, layout.unet[branch]) for branch in branches]
    with found.step("weights"):
        for cls, folder in [*parts, (autoencoder_class(layout.vae), layout.vae)]:
            compare(on_meta(cls, folder), folder)


def _tell_steps(found: Findings, cfg: DictConfig, layout: Layout, samples: int) -> None:
    """Scheduler, steps, and how many network evaluations they come to."""
    with found.step("scheduler"):
        options: Any = OmegaConf.to_container(cfg.scheduler, resolve=True)
        make_scheduler(schedule=layout.schedule, **options)
    if found.problems:
        return
    with found.step("guidance"):
        settings = read_settings(cfg, layout)
        together = min(cfg.batch_size, max(samples, 1))
        by = settings.method.name if "scheduler" in settings.method.unused else cfg.scheduler.name
        found.tell("steps", f"{counted(cfg.steps, 'step')} of {by}; {settings.evaluations:,} network "
                   f"evaluations a sample, {settings.evaluations * samples:,} in all, "
                   f"{counted(together, 'sample')} at once")
        guess = estimate(layout, settings.branches, settings.evaluations, together, cfg.precision.dtype)
        found.tell("estimate", *guess.lines(samples, find_device(cfg.device), DTYPES[cfg.precision.dtype]))


def _jobs(found: Findings, cfg: DictConfig, layout: Layout) -> list[Job]:
    """The samples to make; tells of them, and of the phones of the first phrases."""
    jobs: list[Job] = []
    with found.step("audio_prompt"):
        # An unknown voice and a seed out of range have been told already, and stop no plan.
        told = {"voice": cfg.voice if cfg.voice in layout.voices else None, "seed": max(cfg.seed, 0)}
        jobs = plan(OmegaConf.merge(cfg, told), layout)  # type: ignore[arg-type]
    pairs = list(dict.fromkeys(job.pair for job in jobs))
    if jobs:
        seeds = sorted({job.seed for job in jobs})
        found.tell("samples", f"{counted(len(jobs), 'sample')} of {counted(len(pairs), 'pair')} of prompts, "
                   + (f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"))
    for pair in pairs[:SHOWN]:
        found.tell("", f"{pair.image_prompt!r} says {pair.audio_prompt!r}")
        phones = next(job.phones for job in jobs if job.pair == pair)
        if phones:
            said = " ".join("·" if phone.symbol == PAUSE else phone.symbol for phone in phones)
            found.tell("", f"  {phones[0].start:.2f} to {phones[-1].end:.2f} s: {said}")
    if len(pairs) > SHOWN:
        found.tell("", f"… and {len(pairs) - SHOWN} pairs more")
    return jobs
