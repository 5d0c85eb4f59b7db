"""generate.py check=true of pictures that speak in the same cells: what is shown, said, and by whom."""

from __future__ import annotations

from omegaconf import DictConfig

from ..audio.mel import MEL
from ..diffusion.layout import Layout
from ..speaking.make import Maker
from .findings import Findings, counted

SHOWN = 5  # samples that are listed


def check_speaking(found: Findings, cfg: DictConfig, layout: Layout) -> tuple[str, ...]:
    """Tell what would be made; return the branches of the family that it takes.

    Photographs are read and synthesisers speak, which is quick; the speech branch is not loaded.
    """
    maker = None
    with found.step("composition"):
        maker = Maker.plan(cfg, layout)
    if maker is None:
        return ()
    found.tell("composition", f"modulation, style {_style(cfg)}; "
               + (f"voice {maker.voice}" if maker.voice else "recordings"))
    if not maker.speaks:
        with found.step("speech"):
            maker.say_all()
        if maker.speeches:
            with found.step("image"):
                maker.check_photographs()
    found.tell("samples", f"{counted(len(maker.jobs), 'sample')}, {maker.evaluations:,} network evaluations "
               "each")
    for job in maker.jobs[:SHOWN]:
        speech = maker.speeches.get(job.speech)
        seconds = f", {speech.frames * MEL.hop / MEL.sample_rate:.2f} s" if speech else ""
        found.tell("", f"{job.picture.file or repr(job.picture.prompt)} says "
                   f"{job.speech.file or repr(job.speech.prompt)}{seconds}")
    if len(maker.jobs) > SHOWN:
        found.tell("", f"… and {len(maker.jobs) - SHOWN} more")
    return (*(["image"] if maker.draws else []), *(["speech"] if maker.speaks else []))


def _style(cfg: DictConfig) -> str:
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        return str(HydraConfig.get().runtime.choices.get("style"))
    return "as configured"
