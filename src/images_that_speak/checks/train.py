"""train.py check=true: the networks without their numbers, the data, the steps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from accelerate import init_empty_weights
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..audio.hifigan import load_published
from ..config import instantiate, locate, unbound, without_weights
from ..data.datamodule import PictureData
from ..data.manifest import Corpus
from ..data.published import PublishedClips
from ..data.sound_pictures import SoundPictures
from ..diffusion.estimate import parameters
from ..diffusion.loading import without_bars
from ..errors import UserError
from ..training.checkpoints import damage
from ..training.diffusion import LatentDiffusionTraining
from ..training.fit import check_strategy
from ..training.jobs import BUILT
from ..training.matching import match
from ..training.resume import refuse_misfit
from ..training.train import autoencoder_folder, check_resumed, misnamed
from ..training.vocoder import VocoderTraining, find_start
from .findings import Findings, table


def check(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """What `cfg` (configs/train.yaml) would train, and everything that is wrong with it."""
    found = Findings()
    if cfg.model is None:  # told already
        return found.lines, found.problems
    if (job := OmegaConf.select(cfg, "model.job")) is not None:
        with found.step("model.job"):
            function = locate(job, "model.job")
            found.tell("job", (function.__doc__ or job).splitlines()[0])
            if function in BUILT:
                _tell_networks(found, BUILT[function](cfg).items())
        module = None
    else:
        module = _networks(found, cfg)
    if cfg.data is not None:
        _data(found, cfg)
        if module is not None and not found.problems:
            with found.step("data"):
                data = instantiate(cfg.data)
                if isinstance(module, LatentDiffusionTraining) and isinstance(data, PictureData):
                    match(module, data)
    last = Path(cfg.resume or "", "checkpoints", "last.ckpt")
    if cfg.resume is not None and module is not None and last.exists():
        with found.step("resume"):
            if (fault := damage(last)) is not None:
                found.tell("resume", f"{last}: {fault}; goes on from the one before it, if that is whole")
            else:
                refuse_misfit(module, last)
    for name, node in (cfg.callbacks or {}).items():
        found.problems += unbound(node, f"callbacks.{name}")
    trainer = cfg.trainer
    with found.step("trainer"):
        check_strategy(trainer.get("strategy"), trainer.ema_decay)
    with found.step("steps"):
        check_resumed(cfg)
    found.tell("steps", f"{cfg.steps}, {cfg.precision.trainer} on {cfg.device}; a checkpoint every "
               f"{trainer.checkpoint_every}")
    if cfg.export and cfg.debug is None:
        found.tell("export", f"the weights would replace those in {cfg.export}")
    return found.lines, found.problems


def _networks(found: Findings, cfg: DictConfig) -> L.LightningModule | None:
    """The module as it will be built, but for its weights."""
    if wrong := [problem for problem in misnamed(cfg) if problem.startswith("model")]:
        found.problems += wrong
        return None
    with found.step("model"):
        without_bars()
        node = without_weights(OmegaConf.to_container(cfg.model, resolve=True))
        with init_empty_weights(include_buffers=False):  # tables that a module computes are made of numbers
            module: L.LightningModule = instantiate(node, max_steps=cfg.steps)
        if isinstance(module, VocoderTraining) and module.hparams["start"] is not None:
            load_published(find_start(module.hparams["start"], offline=True))  # small enough to be read
        _tell_networks(found, module.named_children())
        return module
    return None


def _tell_networks(found: Findings, parts: Iterable[tuple[str, nn.Module]]) -> None:
    rows, bytes_ = [], 0
    for name, part in parts:
        if (count := parameters(part)):
            trained = parameters(part, trained=True)
            mark = "" if trained == count else f", {trained:,} of them trained"
            rows.append((f"{name}{mark}", count, 4 * count))
            bytes_ += 4 * count + 12 * trained
    if rows:
        found.tell("networks", *table(rows))
        # In float32: the weights, and a gradient and AdamW's two moments of what is trained.
        found.tell("memory", f"{bytes_ / 2**30:.1f} GiB for weights, gradients and "
                   "optimiser, and feature maps beside them")


def _data(found: Findings, cfg: DictConfig) -> None:
    """Whether the corpora are there; of a whole corpus only the manifest is read."""
    node: Any = OmegaConf.to_container(cfg.data, resolve=True)
    problems = unbound(node, "data")
    found.problems += problems
    parts = {"data": node} | {f"data.{name}": part for name in ("train", "valid")
                              if isinstance(part := node.get(name), dict)}
    told = []
    for key, part in parts.items():
        with found.step(key):
            root = part.get("root") or part.get("corpus")
            for name in ("phoneme_bert", "tokenizer"):
                if part.get(name) is not None and not Path(part[name]).is_dir():
                    raise UserError(f"{key}.{name}={part[name]}: no such folder")
            if part.get("autoencoder") is not None and part.get("latents") is not None:
                autoencoder_folder(str(part["autoencoder"]), f"{key}.autoencoder", offline=True)
            for corpus in part.get("corpora") or ():
                with found.step(key):  # each that is missing is told
                    told.append(f"{len(Corpus.open(corpus)):,} clips of {corpus}")
            if "_target_" in part and locate(part["_target_"], key) is PublishedClips:
                clips = instantiate({**part, "latents": None, "autoencoder": None})
                told.append(f"{len(clips):,} clips in the published layout of {root}")
            elif "_target_" in part and locate(part["_target_"], key) is SoundPictures:
                data = instantiate(part)
                told.append(f"{len(data.train):,} pairs of {root}, {len(data.valid):,} held out")
            elif part.get("folder"):
                told.append(f"{len(instantiate(part)):,} records of {part['folder']}")
            elif root is not None:
                split = part.get("split", "train")
                told.append(f"{len(Corpus.open(root, split)):,} clips, split {split}, of {root}")
            elif part.get("length"):
                told.append(f"{part['length']:,} drawings, made when they are needed")
    if node.get("batch_size"):
        told.append(f"batches of {node['batch_size']}, {cfg.steps * node['batch_size']:,} samples in all")
    found.tell("data", *told)
