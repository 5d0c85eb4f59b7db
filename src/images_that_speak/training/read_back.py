"""Validation by ear and eye: fixed prompts are generated with what is being trained, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from ..config import compose, instantiate
from ..data.datamodule import PictureData, SpeechClips
from ..diffusion.family import Family
from ..diffusion.layout import Layout
from ..diffusion.outputs import write_sample
from ..diffusion.planning import Job, Settings, batches, generate_batch, plan, read_settings, record
from ..errors import UserError
from ..networks.adapters import PhonemeAdapter
from ..ranges import check_ranges
from ..runs.samples import log_samples
from ..scoring.evaluate import read_back
from ..scoring.judges import load_readers
from ..speech.plbert import PhonemeBERT
from .diffusion import LatentDiffusionTraining


class ReadBack(L.Callback):
    """At the end of a validation, generates and reads back what a configuration of generate.py says.

    One branch is the module in training (averaged, where its weights are), the others are the family's.
    Samples go to `read_back/step-N/` of the run folder, WER and CLIP to `valid/wer` and `valid/clip`, and
    with W&B a table of pictures and sounds.

    Args:
        generate: overrides of configs/generate.yaml: prompts, family, steps, reader and so on.
        every: of how many validations one is read back.
        branch: which branch is in training, "image" or "speech".
    """

    def __init__(self, generate: Sequence[str], every: int = 1, branch: str = "speech"):
        if branch not in ("image", "speech"):
            raise UserError(f"callbacks.read_back.branch={branch!r}: expected image or speech")
        check_ranges({"callbacks.read_back.every": every})
        self.cfg = compose("generate", list(generate))
        if self.cfg.reader is None:
            raise UserError("callbacks.read_back.generate: reader=null reads nothing back")
        self.every, self.branch, self.validations = every, branch, 0
        self.made: tuple[Layout, Settings, list[Job], Any] | None = None
        self.phoneme_bert: PhonemeBERT | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Everything a user can get wrong is found before the training begins."""
        layout = instantiate(self.cfg.family)
        if not isinstance(pl_module, LatentDiffusionTraining):
            raise UserError(f"callbacks.read_back: {type(pl_module).__name__} is no branch of a family")
        if pl_module.device_mesh is not None:
            # One process generates, and has but a part of the networks.
            raise UserError("callbacks.read_back with trainer=fsdp: a network in parts cannot generate "
                            "(expected trainer=ddp, or callbacks=default)")
        conditioner = pl_module.conditioner
        if self.branch == "speech" and isinstance(conditioner, PhonemeAdapter):
            if layout.durations is None:
                raise UserError("callbacks.read_back.generate: family.durations=null; phonemes need a "
                                "duration model")
            # The adapter is in memory: of the layout its class matters, not where it lies.
            layout = replace(layout, adapter_in_memory=type(conditioner), conditions=None)
            data = trainer.datamodule  # type: ignore[attr-defined]
            train = data.train if isinstance(data, PictureData) else None
            # Voices and embeddings are those it is trained on.
            if not layout.voices and train is not None:
                layout = replace(layout, voices=tuple(train.numbered()))
            if conditioner.config.get("features"):
                bert = layout.phoneme_bert or (
                    train.phoneme_bert if isinstance(train, SpeechClips) else None)
                if bert is None:
                    raise UserError("callbacks.read_back.generate: family.phoneme_bert=null; the adapter "
                                    "reads embeddings of a PL-BERT (expected its folder)")
                layout = replace(layout, phoneme_bert=Path(bert))
                self.phoneme_bert = PhonemeBERT.from_pretrained(str(bert))
        settings = read_settings(self.cfg, layout)
        self.made = layout, settings, plan(self.cfg, layout), load_readers(self.cfg.reader, self.cfg.device)

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    # Before the epoch's end, when the average of the weights is taken out again.
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validations += 1
        if trainer.sanity_checking or self.validations % self.every or not trainer.is_global_zero:
            return
        assert self.made is not None
        layout, settings, jobs, readers = self.made
        family = self._family(layout, settings, pl_module)
        root = Path(trainer.default_root_dir)
        folders = []
        with torch.no_grad():
            for batch in batches(jobs, self.cfg.batch_size):
                for job, picture in zip(batch, generate_batch(family, settings, batch).numpy(), strict=True):
                    folders.append(root / "read_back" / f"step-{trainer.global_step}" / job.sample_id)
                    write_sample(folders[-1], picture, family.vocoder, record(job, self.cfg,
                                                                              settings.evaluations))
        scores = read_back(folders, readers, resamplings=0, quiet=True)
        for name in ("wer", "clip"):
            if scores.get(name) is not None:
                pl_module.log(f"valid/{name}", float(scores[name]), rank_zero_only=True)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_samples(folders, root, wandb=logger.experiment)

    def _family(self, layout: Layout, settings: Settings, module: Any) -> Family:
        parts = (*(name for name in settings.compose.branches if name != self.branch), "vae", "vocoder")
        family = Family.load(layout, parts, device=str(module.device), dtype=self.cfg.precision.dtype,
                             vocoder=self.cfg.vocoder.path)
        family.predictors[self.branch] = module.predictor
        family.conditioners[self.branch] = module.conditioner
        if self.phoneme_bert is not None:
            family.phoneme_bert = self.phoneme_bert
        return family
