"""`train.py`: from a configuration to a finished training run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import SimpleProfiler
from omegaconf import DictConfig, OmegaConf

from ..config import instantiate, locate, unbound
from ..data.datamodule import PictureData
from ..data.embeddings import cache_embeddings
from ..data.latents import cache_latents
from ..data.pitches import cache_pitch
from ..diffusion.family import find_device
from ..diffusion.layout import find_part, latent_statistics
from ..diffusion.loading import LORA_FILE
from ..errors import UserError
from ..files import shortest
from ..networks.autoencoder import load_autoencoder
from ..runs import Run, describe, export_weights, open_run
from ..runs.metrics import MetricsJsonl
from ..runs.profile import profiled
from ..speech.plbert import PhonemeBERT
from ..weights import finite
from .checkpoints import check_reached
from .diffusion import LatentDiffusionTraining
from .fit import check_strategy, ema_of, fit, whole_state
from .matching import match


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train what `cfg.model` says on what `cfg.data` gives; return the result.

    `model` is a LightningModule's `_target_`, or a `job`: the dotted name of a function (cfg, run) → result,
    for what is not trained by Lightning.
    """
    if cfg.model is None:
        raise UserError("model: nothing to train (expected experiment=…; python train.py --help lists them)")
    if wrong := misnamed(cfg):
        raise UserError("\n".join(wrong))
    check_resumed(cfg)
    with open_run(cfg, "train") as run:
        if run.result is not None:
            return run.result
        torch.set_float32_matmul_precision(cfg.precision.matmul)
        job = OmegaConf.select(cfg, "model.job")
        began = time.monotonic()
        result = locate(job, "model.job")(cfg, run) if job else train_module(cfg, run)
        export = None if run.follows else export_weights(run.dir, cfg)
        done = run.finish({**result, "seconds": round(time.monotonic() - began, 1)})
        if not run.follows:
            tell_where(run.dir, done, export)
        return done


def misnamed(cfg: DictConfig) -> list[str]:
    """The keys of model, data and callbacks that what they would build does not take."""
    return [problem for section in ("model", "data", "callbacks")
            for problem in unbound(cfg.get(section), section)]


def tell_where(folder: Path, result: dict[str, Any], export: str | None) -> None:
    """Print what came of a training, and where it lies."""
    place = shortest(folder)
    weights = folder / "weights"
    print(f"run folder: {place}\nresult:     {place}/result.json\n{describe(result)}")
    if weights.is_dir():
        parts = ", ".join(sorted(path.name for path in weights.iterdir() if not path.name.startswith(".")))
        print(f"weights:    {place}/weights ({parts})" + (f", copied to {export}" if export else ""))
    if (weights / LORA_FILE).exists():
        print(f"to speak with it: python generate.py family.lora={shlex.quote(f'{place}/weights')}")


def check_resumed(cfg: DictConfig) -> None:
    """Raise UserError, before anything of the run changes, when `resume` is beyond `steps` already."""
    if cfg.resume:
        check_reached(Path(cfg.resume) / "checkpoints" / "last.ckpt", int(cfg.steps))


def slow_precision(precision: str, device: str) -> str | None:
    """What is to be said of a half precision that this CPU has no instructions for, or None.

    Measured on a CPU with AVX2 alone: the pocket UNet trains on 0.3 samples a second in bf16-mixed and on 6.7
    in 32-true.
    """
    if not precision.startswith(("bf16", "16")) or find_device(device).type != "cpu":
        return None
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return None
    return (f"precision={precision}: this CPU has no such instructions and takes about 20 times as long as "
            "with precision=32-true")


def train_module(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Fit a LightningModule and write its averaged weights to `weights/` of the run folder."""
    check_strategy(cfg.trainer.get("strategy"), cfg.trainer.ema_decay)  # before latents are made for hours
    # Networks are initialised from the seed, whatever was drawn before.
    L.seed_everything(cfg.seed, verbose=False)
    # What it begins with may come from any folder.
    module = finite(instantiate(cfg.model, max_steps=cfg.steps), "model")
    data = instantiate(cfg.data)
    if isinstance(data, PictureData):
        if isinstance(module, LatentDiffusionTraining):
            match(module, data)
        prepare_latents(data, bf16=cfg.precision.trainer.startswith("bf16"), device=cfg.device,
                        offline=bool(OmegaConf.select(cfg, "model.unet.offline")))
        prepare_embeddings(data)
        prepare_pitch(data)
    settings: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    batches_kept = settings.pop("overfit", None)
    valid: Any = None
    if batches_kept is not None:
        data = valid = Repeated(data, batches_kept)
    if cfg.profile:
        settings["profiler"] = SimpleProfiler(run.dir, "phases")
    metrics = MetricsJsonl(run.metrics_path, settings["log_every"])
    callbacks = [metrics, *(instantiate(node) for node in (cfg.callbacks or {}).values())]
    if note := slow_precision(cfg.precision.trainer, cfg.device):
        print(f"note: {note}")

    def begin(done: int) -> list[Any]:
        run.begin()
        run.refill(done)
        return run.loggers

    with profiled(run.dir, cfg.profile):
        trainer = fit(module, data, run.dir, max_steps=cfg.steps, seed=cfg.seed, valid=valid,
                      begin=begin, callbacks=callbacks, precision=cfg.precision.trainer,
                      accelerator=cfg.device, **settings)
    if run.follows:
        return {"steps": trainer.global_step}
    if (state := whole_state(trainer)) is not None:
        # What was trained is in parts; the same module anew takes the whole.
        module = instantiate(cfg.model, max_steps=cfg.steps)
        module.load_state_dict(state)
    average = ema_of(trainer)
    module.to("cpu")
    batches = islice(iter(data.train_dataloader() if isinstance(data, L.LightningDataModule) else data), 64)
    if average is None:
        module.export(run.dir / "weights", batches)
    else:
        average.shadow = {name: value.cpu() for name, value in average.shadow.items()}
        with average.applied(module):
            module.export(run.dir / "weights", batches)
    return {"steps": trainer.global_step, **metrics.figures}


def prepare_pitch(data: PictureData) -> None:
    """Track the pitch of the data module's clips where they name a file for it and that is not done yet."""
    for dataset in data.clips:
        if dataset.pitch is not None:
            dataset.open()
            cache_pitch(dataset.corpus, dataset.identity(), dataset.pitch)


class Repeated:
    """The first `count` batches of a data module or loader: what is iterated over, again and again."""

    def __init__(self, data: Any, count: int):
        if isinstance(data, L.LightningDataModule):
            data.prepare_data()
            data.setup("fit")
            data = data.train_dataloader()
        self.batches = list(islice(iter(data), count))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def prepare_latents(data: PictureData, bf16: bool = False, device: str = "cpu",
                    offline: bool = False) -> None:
    """Encode what the data module's datasets read as cached latents, where that is not done yet.

    Their `autoencoder` is a folder, or owner/name/vae on the hub, which is not asked when `offline`; the mean
    and deviation that its config tells become theirs.
    """
    place = find_device(device)
    for name, dataset in data.sets.items():
        if dataset.latents is None:
            continue
        folder = autoencoder_folder(str(dataset.autoencoder), f"data.{name}.autoencoder", offline)
        vae = load_autoencoder(folder)
        latents, dataset.latents = dataset.latents, None
        dataset.open()  # with its pictures; not all that it reads beside them may be there yet
        dataset.latents = latents
        dataset.autoencoder = vae
        _, dataset.mean, dataset.std = latent_statistics(folder)
        with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
            cache_latents(vae.to(place), dataset, latents)
        vae.to("cpu")


def autoencoder_folder(name: str, key: str, offline: bool = False) -> Path:
    """The folder of an autoencoder, which `key` names.

    Raises UserError when it is neither there nor to be had from the hub.
    """
    folder = Path(name)
    if (folder / "config.json").exists():
        return folder
    if name.count("/") == 2 and not name.startswith("/"):
        return find_part(name, key, offline)
    raise UserError(f"{key}={folder}: no such folder (train it first: "
                    "python train.py experiment=pocket/autoencoder)")


def prepare_embeddings(data: PictureData) -> None:
    """Embed the phones of the data module's clips by the PL-BERT they name, where that is not done yet."""
    for dataset in data.clips:
        if dataset.embeddings is not None and dataset.phoneme_bert is not None:
            dataset.open()
            table = dataset.corpus.table
            bert = PhonemeBERT.from_pretrained(str(dataset.phoneme_bert))
            cache_embeddings(bert, table["symbols"].tolist(), table["text"].tolist(), dataset.identity(),
                             dataset.embeddings)
