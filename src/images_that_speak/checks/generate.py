"""generate.py check=true: the plan with its phones, the weights, the network evaluations."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..audio.vocoder import load_vocoder, vocoder_file, without_weights
from ..config import instantiate
from ..diffusion.composition import BOTH, NO_PHONES, as_composition
from ..diffusion.estimate import estimate
from ..diffusion.family import find_device
from ..diffusion.generate import plan, read_settings, refuse_unused
from ..diffusion.guidance import check_starts
from ..diffusion.layout import USUAL_SIZE, Layout, NotFetched, download_command, find_weights
from ..diffusion.loading import DTYPES
from ..diffusion.method import Job
from ..diffusion.parts import parameters, parts
from ..diffusion.sampling import make_scheduler
from ..errors import UserError
from ..speaking.make import in_same_cells, refuse_files
from ..speech.phonemes import PAUSE
from .findings import Findings, compare, compare_lora, counted, size, table, weights
from .readers import check_metrics, check_readers
from .speaking import check_speaking

SHOWN = 5  # phrases whose phones are listed


def check(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """What `cfg` (configs/generate.yaml) would make, and everything that is wrong with it."""
    found = Findings()
    layout = _layout(found, cfg)
    with found.step("device"):
        found.tell("device", f"{find_device(cfg.device)}, {cfg.precision.trainer}")
    if in_same_cells(cfg):
        if layout is not None:
            _tell_weights(found, layout, check_speaking(found, cfg, layout), cfg.vocoder.path)
        check_metrics(found, cfg)
        check_readers(found, cfg)
        return found.lines, found.problems
    with found.step("image"):
        refuse_files(cfg)
    branches = _branches(found, cfg, layout)
    if layout is not None:
        with found.step("voice"):
            layout.voice_id(cfg.voice)
        with found.step("pitch"):
            layout.check_pitch(cfg.pitch)
        _tell_weights(found, layout, branches, cfg.vocoder.path)
        jobs = _jobs(found, cfg, layout)
        _tell_steps(found, cfg, layout, len(jobs))
    check_metrics(found, cfg)
    check_readers(found, cfg)
    return found.lines, found.problems


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


def _branches(found: Findings, cfg: DictConfig, layout: Layout | None) -> tuple[str, ...]:
    """The branches that the method calls; none when it or the composition is wrong."""
    method = None
    with found.step("method"):
        method = instantiate(cfg.method)
        refuse_unused(cfg, method)
    if method is not None and "composition" in method.unused:
        found.tell("method", f"{method.name} of {' and '.join(BOTH)}")
        return BOTH
    compose = None
    with found.step("composition"):
        compose = as_composition(instantiate(cfg.composition))
    if compose is None:
        return ()
    if layout is not None and compose.needs_phones and not layout.speaks_phonemes:
        found.problems.append(NO_PHONES.format(compose.name))
    if len(compose.branches) > 1:
        with found.step("guidance"):
            check_starts({"image": cfg.guidance.image_start, "speech": cfg.guidance.audio_start})
    found.tell("composition", f"{compose.name} of {' and '.join(compose.branches)}")
    return compose.branches


def _tell_weights(found: Findings, layout: Layout, branches: tuple[str, ...], vocoder: str | None) -> None:
    """Parameters and bytes of every part that would be loaded, and whether its files hold what it says.

    Large networks are built without numbers; the vocoder, which is small, is loaded.
    """
    rows: list[tuple[str, int, int]] = []
    unet = None
    # Malformed conditions have been told with the family.
    for name, part in parts(layout, branches).items():
        with found.step(name):
            module = part.build()
            unet = module if name == "speech UNet" else unet
            rows.append((name, parameters(module), size(part.folder)))
            compare(module, part.folder)
    if layout.durations is not None:
        with found.step("duration model"):
            rows.append(("duration model", *weights(layout.durations)))
    if layout.lora is not None and unet is not None:
        with found.step("LoRA"):
            rows.append(("LoRA", *weights(layout.lora)))
            compare_lora(unet, layout.lora)
    player = vocoder or layout.vocoder
    with found.step("vocoder"):
        playing = load_vocoder(player)
        if not without_weights(player):
            rows.append(("vocoder", parameters(playing), vocoder_file(player).stat().st_size))
    found.tell("weights", *table(rows))
    if without_weights(player):
        found.tell("", f"played by {player}, which has no weights")


def _tell_steps(found: Findings, cfg: DictConfig, layout: Layout, samples: int) -> None:
    """Scheduler, steps, and how many network evaluations they come to."""
    with found.step("scheduler"):
        options: Any = OmegaConf.to_container(cfg.scheduler, resolve=True)
        make_scheduler(schedule=layout.schedule, **options)
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
