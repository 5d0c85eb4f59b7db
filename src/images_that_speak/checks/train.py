"""train.py check=true: the networks without their numbers, the data, the steps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..audio.hifigan import load_published
from ..config import instantiate, locate, unbound
from ..data.datamodule import PictureData
from ..data.manifest import Corpus
from ..data.published import PublishedClips
from ..diffusion.layout import find_part
from ..diffusion.parts import no_numbers, parameters
from ..errors import UserError
from ..training.checkpoints import damage
from ..training.diffusion import LatentDiffusionTraining
from ..training.fit import check_strategy
from ..training.matching import match
from ..training.resume import refuse_misfit
from ..training.train import autoencoder_folder, check_resumed, misnamed
from ..training.vocoder import VocoderTraining, find_start
from .findings import Findings, table
from .jobs import JOBS


def check(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """What `cfg` (configs/train.yaml) would train, and everything that is wrong with it."""
    found = Findings()
    if cfg.model is None:  # told already
        return found.lines, found.problems
    if (job := OmegaConf.select(cfg, "model.job")) is not None:
        with found.step("model.job"):
            found.tell("job", (locate(job, "model.job").__doc__ or job).splitlines()[0])
            _job(found, cfg, job)
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


def skeleton(target: str, path: str) -> Any:
    """The network that `target`, a `from_pretrained`, would load from the folder `path`, without its weights.

    Raises UserError when the folder has no configuration.
    """
    cls = locate(target.removesuffix(".from_pretrained"), "model")
    try:
        return cls.from_config(cls.load_config(path, local_files_only=True))
    except OSError as error:
        raise UserError(f"{path}: no {cls.__name__} (expected a folder with its config.json)") from error


def skeleton_text(source: str) -> Any:
    """The text conditioner of a pipeline without its weights; frozen, as in training."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from ..networks.text import TextConditioner

    encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(
        str(find_part(f"{source}/text_encoder", "adapter.source", offline=True))))
    folder = find_part(f"{source}/tokenizer", "adapter.source", offline=True)
    words = CLIPTokenizer.from_pretrained(str(folder))
    return TextConditioner(encoder.requires_grad_(False), words)


def _networks(found: Findings, cfg: DictConfig) -> L.LightningModule | None:
    """The module, built without its numbers."""
    if wrong := [problem for problem in misnamed(cfg) if problem.startswith("model")]:
        found.problems += wrong
        return None
    with found.step("model"):
        node = _without_weights(OmegaConf.to_container(cfg.model, resolve=True))
        with no_numbers():
            module: L.LightningModule = instantiate(node, max_steps=cfg.steps)
        _tell_networks(found, module.named_children())
        return module
    return None


def _job(found: Findings, cfg: DictConfig, job: str) -> None:
    """The same for what a job trains, where it is one of ours."""
    options: Any = OmegaConf.to_container(cfg.model, resolve=True)
    del options["job"]
    if job in JOBS:
        with no_numbers():
            parts = JOBS[job](cfg, options)
        _tell_networks(found, parts.items())


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


def _without_weights(node: Any) -> Any:
    """`node` with every network that would be read from a folder replaced by its `skeleton`."""
    if isinstance(node, list):
        return [_without_weights(child) for child in node]
    if not isinstance(node, dict):
        return node
    if node.get("_target_") == "images_that_speak.training.pretrained.pretrained_unet":
        # Without asking the hub: what it would take to fetch it is told.
        folder = find_part(f"{node['source']}/unet", "model.unet.source", offline=True)
        return {"_target_": f"{__name__}.skeleton",
                "target": "diffusers.UNet2DConditionModel.from_pretrained",
                "path": str(folder)}
    if node.get("_target_") == "images_that_speak.training.pretrained.pretrained_text":
        return {"_target_": f"{__name__}.skeleton_text", "source": node["source"]}
    if node.get("start") and "_target_" in node and locate(node["_target_"]) is VocoderTraining:
        file = find_start(node["start"], offline=True)
        load_published(file)  # small enough to be read, and broken before it is trained
        return {**node, "start": str(file)}
    if str(node.get("_target_", "")).endswith(".from_pretrained"):
        return {"_target_": f"{__name__}.skeleton", "target": node["_target_"],
                "path": node["pretrained_model_name_or_path"]}
    return {key: _without_weights(child) for key, child in node.items()}


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
