"""The four anchors that every table of results is read against.

    python -m images_that_speak.scoring.anchors prompts=prompts/test_5x5.csv

`tts`: the synthesiser's own sound. `copy_synthesis`: that sound as an 8-bit picture, played by the vocoder.
`autoencoder`: that picture through the autoencoder and back. `speech_alone`, `image_alone`: what each branch
makes without the other. Nothing that joins the branches can be expected to be better than these.

The arguments are those of generate.py: the anchors are made with the same steps, scales, seed and voice. What
is there already is not made again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from .. import config
from ..audio.mel import MEL, LogMel, logmel_to_picture
from ..audio.wave import write_wave
from ..config import instantiate
from ..diffusion.composition import ImageOnly, SpeechOnly
from ..diffusion.family import Family
from ..diffusion.method import Job, JointDenoising
from ..diffusion.outputs import read_complete, write_sample
from ..diffusion.planning import batches, generate_batch, plan, read_settings, record
from ..errors import UserError
from ..files import content_hash, write_json
from ..prompts import Pair
from ..runs.identity import by_content, family_fingerprint
from ..runs.sample import Sample, is_sample
from ..speech import tts
from ..terminal import lenient
from .evaluate import plain_totals
from .items import item_of
from .judges import Readers, load_readers
from .reading import read_items
from .statistics import Interval, totals
from .tables import TOTAL_COLUMNS, print_table, total_row, write_table

NAMES = {
    "tts": "anchor: the TTS audio itself", "copy_synthesis": "anchor: vocoder copy-synthesis",
    "autoencoder": "anchor: autoencoder round trip", "speech_alone": "anchor: speech branch alone",
    "image_alone": "anchor: image branch alone",
}


def anchors(cfg: DictConfig, out: str | Path | None = None, bootstrap: int = 1000) -> dict[str, Any]:
    """Make and read back the anchors for the prompts of `cfg`, a configuration of generate.py.

    Args:
        out: folder of the samples, one folder an anchor; by default below `paths.logs`.

    Returns {anchor: totals as numbers, "left_out": {anchor: why}}, also written to anchors.json, with the
    tables beside it. The anchors that start from synthesised speech need flite; where it is missing they are
    left out.
    """
    layout = instantiate(cfg.family)
    settings = read_settings(cfg, layout)
    if not isinstance(settings.method, JointDenoising):
        raise UserError("method: the anchors are single branches; leave it out")
    jobs = plan(cfg, layout)
    readers = load_readers(cfg.reader, cfg.device)
    family = Family.load(layout, device=cfg.device, dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
    key = _key(cfg, jobs)
    folder = Path(out) if out else Path(cfg.paths.logs) / "anchors" / key
    spoken = [replace(job, pair=Pair("", job.pair.audio_prompt), seed=cfg.seed)
              for job in {job.pair.audio_prompt: job for job in jobs}.values()]
    shown = [replace(job, pair=Pair(job.pair.image_prompt, ""), seed=cfg.seed)
             for job in {job.pair.image_prompt: job for job in jobs}.values()]
    left_out: dict[str, str] = {}

    def made(name: str, jobs: Sequence[Job], make: Callable[[Sequence[Job]], Any],
             evaluations: int | None = None) -> list[Path]:
        """The sample folders of an anchor, those that are missing made now."""
        folders = [folder / name / job.sample_id for job in jobs]
        missing = [job for job, where in zip(jobs, folders, strict=True)
                   if read_complete(where, job.sample_id) is None]
        for batch in batches(missing, cfg.batch_size):
            for job, picture in zip(batch, np.asarray(make(batch)), strict=True):
                where = folder / name / job.sample_id
                where.mkdir(parents=True, exist_ok=True)
                write_sample(where, picture, family.vocoder, record(job, cfg, evaluations))
        return folders

    found: dict[str, dict[str, Interval | int]] = {}
    try:
        flite = tts.Flite()
        voice = cfg.voice or next((v for v in layout.voices if v in flite.voices), "slt")
        waves = {job.pair.audio_prompt: speak(flite, job.pair.audio_prompt, voice) for job in spoken}
    except UserError as error:
        left_out |= dict.fromkeys(("tts", "copy_synthesis", "autoencoder"), str(error))
    else:
        for job in spoken:
            where = folder / "tts" / job.sample_id
            where.mkdir(parents=True, exist_ok=True)
            write_wave(where / "speech.wav", waves[job.pair.audio_prompt])
            if not is_sample(where):
                Sample(where, record(job, cfg)).write()
        log_mel = LogMel()

        def pictures(batch: Sequence[Job]) -> torch.Tensor:
            stack = torch.from_numpy(np.stack([waves[job.pair.audio_prompt] for job in batch]))
            return (logmel_to_picture(log_mel(stack)) * 255).round() / 255

        found["tts"] = _read([folder / "tts" / job.sample_id for job in spoken], readers, bootstrap, "wav")
        found["copy_synthesis"] = _read(made("copy_synthesis", spoken, pictures), readers, bootstrap)
        found["autoencoder"] = _read(
            made("autoencoder", spoken, lambda batch: family.decode(family.encode(pictures(batch)))),
            readers, bootstrap)
    alone = replace(settings, starts={"image": 0.0, "speech": 0.0})
    branches = (("speech_alone", SpeechOnly(*settings.compose.speech_draws), spoken),
                ("image_alone", ImageOnly(), shown))
    for name, compose, chosen in branches:
        only = replace(alone, compose=compose)
        found[name] = _read(
            made(name, chosen, lambda batch, only=only: generate_batch(family, only, batch),  # type: ignore[misc]
                 only.evaluations), readers, bootstrap)
    result: dict[str, Any] = {"family": key.split("-")[0], "speech_reader": readers.speech.name,
              "picture_reader": readers.names["picture_reader"], "left_out": left_out,
              "rows": [total_row(NAMES[name], figures) for name, figures in found.items()],
              **{name: plain_totals(figures) for name, figures in found.items()}}
    write_json(folder / "anchors.json", result)
    write_table(folder / "anchors", result["rows"], readers.named(TOTAL_COLUMNS))
    for name, why in left_out.items():
        print(f"{NAMES[name]}: left out ({why})")
    print_table(result["rows"], readers.named(TOTAL_COLUMNS))
    return result


def speak(backend: tts.TTS, text: str, voice: str) -> np.ndarray:
    """A phrase in the middle of 10.24 s of silence, its peak at 0.95: (163840,) float32.

    Raises UserError when it is longer than that.
    """
    wave = np.asarray(backend.speak(text, voice).wave, np.float32)
    if len(wave) > MEL.samples:
        raise UserError(f"audio_prompt={text!r}: {len(wave) / MEL.sample_rate:.1f} s of speech "
                        f"(expected at most {MEL.seconds} s)")
    clip = np.zeros(MEL.samples, np.float32)
    start = (MEL.samples - len(wave)) // 2
    clip[start:start + len(wave)] = wave * (0.95 / max(float(np.abs(wave).max()), 1e-6))
    return clip


def _key(cfg: DictConfig, jobs: Sequence[Any]) -> str:
    """Fingerprint of the family, then of everything else the anchors depend on."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    kept = ("steps", "seed", "voice", "pitch", "guidance", "phonemes", "scheduler", "scene", "precision",
            "vocoder", "reader")
    others = {name: settings[name] for name in kept}
    # Of the composition only how often the speech is drawn; the rest joins branches that are alone here.
    others["draws"] = [settings["composition"].get(name) for name in ("draws", "draw_steps")]
    others["vocoder"] = {**others["vocoder"], "path": by_content(others["vocoder"]["path"])}
    pairs = sorted({(job.pair.image_prompt, job.pair.audio_prompt) for job in jobs})
    return f"{family_fingerprint(settings['family'])}-{content_hash([others, pairs], 8)}"


def _read(folders: Sequence[Path], readers: Readers, bootstrap: int,
          source: str = "wav") -> dict[str, Interval | int]:
    """Totals of an anchor's folders; what is not asked of it (an empty prompt) is not scored."""
    report = read_items([item_of(folder) for folder in folders], replace(readers, source=source))
    report.tell()
    return totals(report.rows, bootstrap)


def main() -> None:
    lenient()
    try:
        chosen = any(text.startswith("composition=") for text in sys.argv[1:])
        # How often the speech is drawn is said by the compositions of branches.
        anchors(config.compose("generate", [*([] if chosen else ["composition=masks"]), *sys.argv[1:]]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
