"""The figures of a result that a search can make small or large, by task; known before anything runs.

    python generate.py -m hydra/sweeper=optuna 'optimized_metrics=[wer,clip]' …

tests/test_sweep.py holds these names to what scores and trainings are called where they are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .errors import nearest
from .tasks import TASKS, named

LOW, HIGH = "minimize", "maximize"
METRIC_STEMS = ("ssim", "stoi", "pesq", "mcd", "clap", "dnsmos", "fid", "fad")
READ_BACK = {**dict.fromkeys(("wer", "cer", "per", "insertions", "deletions", "substitutions", "wer_capped",
                              "invented"), LOW),
             **dict.fromkeys(("clip", "top1", "joint", "noun_mass", "top1_agreement", "top5_agreement"),
                             HIGH)}
# What only some readers of pictures say: those of drawings, and the classifier of photographs.
OF_CLIP = ("clip",)
OF_CLASSES = ("noun_mass", "top1_agreement", "top5_agreement")
CLASSIFIER = ("efficientnet", "EfficientNetReader")  # reader.picture, or its `_target_`
# What a metric of an evaluation adds, by the last name of its `_target_`.
MEASURED = {
    "PictureSimilarity": dict.fromkeys(("ssim", "hss"), HIGH), "Intelligibility": {"stoi": HIGH},
    "SpeechQuality": {"pesq": HIGH}, "CepstralDistortion": {"mcd_dtw": LOW},
    "ClapScore": {"clap": HIGH},
    "Dnsmos": dict.fromkeys(("dnsmos_p808", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovr"), HIGH),
    "PictureDistances": dict.fromkeys(("fid", "kid"), LOW),
    "SoundDistances": dict.fromkeys(("fad", "kad"), LOW),
}
# How they are called in tables: figures of each sample, and of a set of samples alone.
OF_SAMPLES = {"ssim": "SSIM", "hss": "HSS", "stoi": "STOI", "pesq": "PESQ", "mcd_dtw": "MCD", "clap": "CLAP",
              "dnsmos_p808": "DNSMOS P.808", "dnsmos_sig": "DNSMOS SIG", "dnsmos_bak": "DNSMOS BAK",
              "dnsmos_ovr": "DNSMOS OVR"}
OF_SETS = {"fid": "FID", "kid": "KID", "fid_pocket": "FID (pocket)", "kid_pocket": "KID (pocket)",
           "fid_clip": "FID (CLIP)", "kid_clip": "KID (CLIP)", "fad_mel": "FAD (mel)", "kad_mel": "KAD (mel)",
           "fad_clap": "FAD (CLAP)", "kad_clap": "KAD (CLAP)"}
# What the names of a distance end in, by the last name of its features' `_target_`.
FEATURES = {"ClipSquares": "clip", "MelStatistics": "mel", "ClapSounds": "clap"}
# What a LightningModule logs, or a job returns, by the last name of its `_target_` or `job`.
TRAINED = {
    "LatentDiffusionTraining": dict.fromkeys(("train/loss", "valid/loss"), LOW),
    "AutoencoderTraining": dict.fromkeys(
        ("train/loss", "train/l1", "train/edge", "train/kl", "valid/l1", "valid/edge", "valid/kl"), LOW),
    "VocoderTraining": {**dict.fromkeys(
        ("train/loss", "train/mel", "train/stft", "valid/mel_error", "valid/mcd", "valid/stft_convergence",
         "valid/stft_log", "valid/wer"), LOW), **dict.fromkeys(("valid/pesq", "valid/stoi"), HIGH)},
    "RecogniserTraining": dict.fromkeys(
        ("train/loss", "train/ctc", "train/alignment", "train/frame_error", "valid/ctc", "valid/alignment",
         "valid/frame_error", "valid/phone_error"), LOW),
    "TextTraining": {**dict.fromkeys(("train/loss", "valid/loss"), LOW), "valid/right": HIGH},
    "SceneTraining": {**dict.fromkeys(("train/loss", "valid/loss"), LOW), "valid/variance_explained": HIGH},
    "ColourTraining": dict.fromkeys(("train/loss", "train/error", "valid/error"), LOW),
    "DurationTraining": dict.fromkeys(("train/loss", "valid/mae_ms", "valid/utterance_error"), LOW),
    "ClipTraining": {"train/loss": LOW, "train/right": HIGH, "valid/window_top1": HIGH},
    "basis": {"variance_kept": HIGH},
    "letters": dict.fromkeys(("phone_error", "word_error"), LOW),
}


def declared(cfg: DictConfig, task: str) -> dict[str, str]:
    """{name: minimize or maximize} of the figures that a run of `cfg` will have."""
    figures = TASKS[task].figures
    return {} if figures is None else named(figures)(cfg)


def of_generation(cfg: DictConfig) -> dict[str, str]:
    """What a run of generate.py measures."""
    return {"seconds": LOW, **of_evaluation(cfg)}


def of_evaluation(cfg: DictConfig) -> dict[str, str]:
    """What is read back of pictures and of their sound."""
    return {} if cfg.reader is None else {**READ_BACK, **measured(cfg)}


def of_training(cfg: DictConfig) -> dict[str, str]:
    """What the module that is trained logs, or its job returns."""
    model = OmegaConf.select(cfg, "model._target_") or OmegaConf.select(cfg, "model.job")
    return TRAINED.get(_last(model), {})


def measured(cfg: DictConfig) -> dict[str, str]:
    """{name: minimize or maximize} of what the section `metrics` of `cfg` adds."""
    found: dict[str, str] = {}
    for part in (cfg.get("metrics") or {}).values():
        features = part.get("features") or {}
        kind = _last(features.get("_target_"))
        ending = "pocket" if features.get("model") == "pocket" else FEATURES.get(kind, "")
        found |= {f"{name}_{ending}" if ending else name: better
                  for name, better in MEASURED.get(_last(part.get("_target_")), {}).items()}
    return found


def larger_is_better(name: str) -> bool:
    """Of a name in `OF_SAMPLES` or `OF_SETS`."""
    known = {key: better for group in MEASURED.values() for key, better in group.items()}
    return known[name if name in known else name.partition("_")[0]] == HIGH


def _last(target: Any) -> str:
    return str(target or "").rpartition(".")[2]


def undeclared(cfg: DictConfig, task: str) -> list[str]:
    """What is wrong with `optimized_metrics` of `cfg`, one line each."""
    names = list(cfg.get("optimized_metrics") or ())
    known = declared(cfg, task)
    if not known:
        return ["optimized_metrics: this run gives no figure that could be optimised"]
    if not names:
        return [f"optimized_metrics: names nothing to optimise; expected some of {', '.join(known)}"]
    wrong = [f"optimized_metrics: {name!r} is no figure of this run; expected some of {', '.join(known)}."
             f"{_by_metric(cfg, name) or nearest(name, known)}" for name in names if name not in known]
    return wrong + [f"optimized_metrics: {name!r} would be missing: {reason}" for name in names
                    if name in known and (reason := _lacking(cfg, task, name))]


def _by_metric(cfg: DictConfig, name: str) -> str:
    """The choice of `metrics` that would measure `name`, as a hint; empty where none would."""
    stem = name.partition("_")[0]
    return f" metrics={stem} measures it." if "metrics" in cfg and stem in METRIC_STEMS else ""


def _lacking(cfg: DictConfig, task: str, name: str) -> str | None:
    """Why every run of `cfg` will be without the figure `name`, as far as its settings tell."""
    if TASKS[task].trains:
        data: Any = cfg.get("data") or {}
        if name.startswith("valid/") and "valid" in data and data["valid"] is None:
            return "nothing is validated on (data.valid is null)"
        return None
    eye = OmegaConf.select(cfg, "reader.picture")
    if name in (*OF_CLIP, *OF_CLASSES, "top1", "joint") and eye is None:
        return "nobody looks at the pictures (reader.picture is null)"
    classifies = (eye if isinstance(eye, str) else _last((eye or {}).get("_target_"))) in CLASSIFIER
    if name in OF_CLASSES and not classifies:
        return "this reader of pictures tells no classes (reader.picture=efficientnet does)"
    if name in OF_CLIP and classifies:
        return "this reader of pictures has no CLIP (reader.picture=clip has)"
    if TASKS[task].makes_samples and name in ("top1", "joint") and cfg.get("prompts") is None:
        return "one image prompt cannot be taken for another (prompts=FILE gives several)"
    return None


def figures(names: Sequence[str], result: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The figures of a result that are optimised, NaN for each that it lacks; None where none is."""
    found = [result.get(name) for name in names]
    return tuple(float(value) if isinstance(value, (int, float)) else math.nan for value in found) or None
