"""generate.py check=true: the plan with its phones, the weights, the network evaluations."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf

from ..config import instantiate
from ..diffusion.composition import BOTH, as_composition
from ..diffusion.estimate import estimate, held, parameters
from ..diffusion.family import Family, find_device
from ..diffusion.layout import USUAL_SIZE, Layout, NotFetched, download_command, find_weights
from ..diffusion.loading import DTYPES
from ..diffusion.method import Job
from ..diffusion.planning import read_settings
from ..errors import UserError
from ..listening.plan import listens, planned_jobs
from ..speaking.from_sound import draws_sounds, plan_sounds
from ..speaking.make import in_same_cells, refuse_files
from ..speech.phonemes import PAUSE
from .findings import Findings, counted, table
from .readers import check_metrics, check_readers
from .speaking import check_speaking

SHOWN = 5  # phrases whose phones are listed


def check(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """What `cfg` (configs/generate.yaml) would make, and everything that is wrong with it."""
    found = Findings()
    layout = _layout(found, cfg)
    device = torch.device("cpu")
    with found.step("device"):
        device = find_device(cfg.device)
        found.tell("device", f"{device}, {cfg.precision.trainer}")
    if draws_sounds(cfg):
        with found.step("method"):
            method, sounds = plan_sounds(cfg)
            found.tell("samples", f"{counted(len(sounds), 'picture')} of {counted(len(sounds), 'sound')}")
            found.tell("networks", f"{parameters(method.generator):,} parameters, {method.listen.name}")
        return found.lines, found.problems
    if not in_same_cells(cfg):
        with found.step("image"):
            if not listens(cfg):
                refuse_files(cfg)
        with found.step("composition"):
            as_composition(instantiate(cfg.composition))
        if layout is not None:
            _denoising(found, cfg, layout, device)
    elif layout is not None:
        _family(found, cfg, layout, check_speaking(found, cfg, layout), device)
    check_metrics(found, cfg)
    check_readers(found, cfg)
    return found.lines, list(dict.fromkeys(found.problems))


def _layout(found: Findings, cfg: DictConfig) -> Layout | None:
    """The family's layout, or None when it is wrong or would have to be fetched."""
    absent = []
    if "offline" in cfg.family:
        for key in ("image", "speech"):
            try:
                find_weights(cfg.family[key], f"family.{key}", offline=True)
            except UserError as error:
                if isinstance(error, NotFetched) and not cfg.family.offline:
                    absent.append(cfg.family[key])
                else:
                    found.problems.append(str(error))
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


def _denoising(found: Findings, cfg: DictConfig, layout: Layout, device: torch.device) -> None:
    """What the branches make together: networks, samples, steps, memory and time."""
    settings = None
    with found.step("composition"):
        settings = read_settings(cfg, layout)
        branches = " and ".join(settings.branches)
        if "composition" in settings.method.unused:
            found.tell("method", f"{settings.method.name} of {branches}")
        else:
            found.tell("composition", f"{settings.compose.name} of {branches}")
    family = _family(found, cfg, layout, settings.branches if settings else BOTH, device)
    jobs = _jobs(found, cfg, layout)
    if settings is None:
        return
    together = min(cfg.batch_size, max(len(jobs), 1))
    by = settings.method.name if "scheduler" in settings.method.unused else cfg.scheduler.name
    found.tell("steps", f"{counted(cfg.steps, 'step')} of {by}; {settings.evaluations:,} network "
               f"evaluations a sample, {settings.evaluations * len(jobs):,} in all, "
               f"{counted(together, 'sample')} at once")
    if family is not None:
        guess = estimate(family, settings.evaluations, together)
        found.tell("estimate", *guess.lines(len(jobs), device, DTYPES[cfg.precision.dtype]))


def _family(found: Findings, cfg: DictConfig, layout: Layout, branches: tuple[str, ...],
            device: torch.device) -> Family | None:
    """The networks as they will be loaded, without their weights; tells of their parameters and bytes."""
    with found.step("family"):
        family = Family.load(layout, (*branches, *(["vae"] if branches else []), "vocoder"), weights=False,
                             device=str(device), dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
        rows = [(name, parameters(network), held(network)) for name, network in family.networks.items()]
        untrained = [] if family.vocoder.trained else [
            f"played by {cfg.vocoder.path or layout.vocoder}, which has no weights"]
        found.tell("weights", *table([row for row in rows if row[1]]), *untrained)
        return family
    return None


def _jobs(found: Findings, cfg: DictConfig, layout: Layout) -> list[Job]:
    """The samples to make; tells of them, and of the phones of the first phrases."""
    jobs: list[Job] = []
    with found.step("audio_prompt"):
        # An unknown voice and a seed out of range have been told already, and stop no plan.
        told = {"voice": cfg.voice if cfg.voice in layout.voices else None, "seed": max(cfg.seed, 0)}
        jobs = planned_jobs(OmegaConf.merge(cfg, told), layout)  # type: ignore[arg-type]
    pairs = list(dict.fromkeys(job.pair for job in jobs))
    if jobs:
        seeds = sorted({job.seed for job in jobs})
        found.tell("samples", f"{counted(len(jobs), 'sample')} of {counted(len(pairs), 'pair')} of prompts, "
                   + (f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"))
    for pair in pairs[:SHOWN] if not listens(cfg) else ():
        found.tell("", f"{pair.image_prompt!r} says {pair.audio_prompt!r}")
        phones = next(job.phones for job in jobs if job.pair == pair)
        if phones:
            said = " ".join("·" if phone.symbol == PAUSE else phone.symbol for phone in phones)
            found.tell("", f"  {phones[0].start:.2f} to {phones[-1].end:.2f} s: {said}")
    if len(pairs) > SHOWN:
        found.tell("", f"… and {len(pairs) - SHOWN} pairs more")
    return jobs
