"""Training a vocoder against discriminators, as HiFi-GAN is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from ..audio.distance import (
    available,
    mel_cepstral_distortion,
    mel_error,
    multi_resolution_stft_distance,
    pesq,
    stoi,
)
from ..audio.hifigan import (
    HiFiGAN,
    load_published,
    new_names,
    old_names,
    published_files,
    read_generator_config,
    save_published,
    torch_load,
)
from ..audio.mel import LogMel
from ..audio.vocoder import WEIGHTS, build_vocoder, save_vocoder, vocoder_file
from ..audio.vocoder_base import load_strictly
from ..diffusion.layout import find_part
from ..errors import UserError
from ..figures import declares
from ..files import atomic_path
from ..networks.discriminators import (
    Judged,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from ..ranges import check_ranges
from ..scoring.heard import SpeechReader
from ..scoring.statistics import corpus_wer
from .adversarial import step
from .ema import EMA


class GeneratorEMA(EMA):
    """An average of the generator only: the discriminators are thrown away after training."""

    @staticmethod
    def averaged(module: nn.Module) -> dict[str, Tensor]:
        return {name: p for name, p in module.named_parameters() if name.startswith("generator.")}


class ReadBack(L.Callback):
    """Plays whole pictures of the validation and has them read: `valid/wer`, the corpus word error rate.

    Args:
        reader: of speech; words of the phrases that it lacks are added to a closed vocabulary.
        clips: how many of the validation's first clips.
    """

    def __init__(self, reader: SpeechReader, clips: int = 8):
        check_ranges({"callbacks.read_back.clips": clips})
        self.reader, self.clips = reader, clips

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or data is None:  # debug=overfit validates on the training batch
            return
        texts, pictures = data.phrases(self.clips)
        self.reader.extend(texts)
        vocoder: Any = pl_module.generator
        waves = [vocoder.decode_picture(picture[None])[0].cpu().numpy() for picture in pictures]
        heard = [sound.text for sound in self.reader.read_many(waves)]
        pl_module.log("valid/wer", corpus_wer(texts, heard, self.reader.normaliser))


def find_start(start: str, offline: bool = False) -> Path:
    """The checkpoint that `model.start` names: a file g_<steps>, a folder with one or with vocoder.pt, the
    folder above that, or owner/name/vocoder on the hub.

    Raises UserError when there is none, or one that has no weight norm to be trained with.
    """
    path = Path(start)
    file = vocoder_file(path if path.is_file() else find_part(start, "model.start", offline))
    if file.name == WEIGHTS:
        raise UserError(f"model.start={start}: {WEIGHTS} is made for playing (expected a published "
                        "HiFi-GAN's vocoder.pt or g_<steps>)")
    return file


def _nothing() -> None:
    return None


@declares("train/loss", "train/mel", "train/stft", "valid/mel_error", "valid/mcd", "valid/stft_convergence",
          "valid/stft_log", "valid/wer", "valid/pesq", "valid/stoi")
class VocoderTraining(L.LightningModule):
    """A generator, its discriminators and their losses; steps are counted in batches.

    Generator: LSGAN + feature_weight · feature matching + mel_weight · mean |Δ log-mel|
    + stft_weight · multi-resolution STFT. Discriminators: LSGAN. One AdamW each.

    A batch is {"logmel": (B, 256, F) in nats, "wave": (B, F · 160)}.

    Args:
        architecture: `hifigan` or `vocos`; `generator` holds its settings.
        start: a published HiFi-GAN to go on from, such as Auffusion's folder `vocoder` or a run's (see
            `find_start`): its generator, whose settings are then its own config.json's, and whatever else it
            kept of its training.
        discriminator_width: multiplies the discriminators' channels; 1 is as published.
        decay: of the learning rates after every `epoch_steps` steps (809 is LJSpeech in batches of 16).
        pretrain_mel_steps: so many first steps without discriminators, on the other two losses alone, which
            cost a small part of a full step.
        clip: largest gradient norm of either optimiser, or None.
        max_steps: of the run; the published schedule does not depend on it.
        offline: never ask the hub for `start`.
    """

    steps_before: Tensor  # of the published checkpoint that this training goes on from

    def __init__(self, architecture: str = "hifigan", generator: dict[str, Any] | None = None,
                 periods: Sequence[int] = (2, 3, 5, 7, 11), scales: int = 3, discriminator_width: float = 1.0,
                 lr: float = 2e-4, betas: tuple[float, float] = (0.8, 0.99), decay: float = 0.999,
                 epoch_steps: int = 809, mel_weight: float = 45.0, feature_weight: float = 2.0,
                 stft_weight: float = 0.0, pretrain_mel_steps: int = 0, clip: float | None = None,
                 max_steps: int | None = None, start: str | None = None,
                 offline: bool = False):
        super().__init__()
        if start is not None:
            if architecture != "hifigan":
                raise UserError(f"model.start={start}: a HiFi-GAN (expected model.architecture=hifigan, got "
                                f"{architecture})")
            generator = read_generator_config(published_files(find_start(start, offline))[0])
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = build_vocoder(architecture, dict(generator or {}))
        self.mpd = MultiPeriodDiscriminator(periods, discriminator_width)
        self.msd = MultiScaleDiscriminator(scales, discriminator_width)
        self.analysis = LogMel()
        self.register_buffer("steps_before", torch.tensor(0))
        self._optimisers_before: tuple[dict[str, Any], dict[str, Any]] | None = None

    def setup(self, stage: str) -> None:
        # Before Lightning restores a checkpoint: a resumed run has its own weights again.
        if stage == "fit" and self.hparams["start"] is not None:
            self.load_published(find_start(self.hparams["start"], self.hparams["offline"]))

    def on_fit_start(self) -> None:
        # It advises to store the weights from before the step, which would not resume exactly.
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")

    def judge(self, wave: Tensor) -> Judged:
        return self.mpd(wave) + self.msd(wave)

    def training_step(self, batch: dict[str, Tensor], _: int) -> None:
        generator_step, discriminator_step = self.optimizers()  # type: ignore[attr-defined]
        # Lightning counts every optimiser's step; without this, max_steps, checkpoints and logs would count
        # each batch twice. The hooks are private: tests/test_hifigan_training.py holds them to it.
        discriminator_step._on_before_step = discriminator_step._on_after_step = _nothing
        real, logs = batch["wave"], {}
        made = self.generator(batch["logmel"])
        adversarial = self.global_step >= self.hparams["pretrain_mel_steps"]
        if adversarial:
            with self.toggled_optimizer(discriminator_step):
                loss = discriminator_loss(self.judge(real).scores, self.judge(made.detach()).scores)
                step(self, discriminator_step, loss, self.hparams["clip"])
                logs["discriminator"] = loss.detach()
        with self.toggled_optimizer(generator_step):
            losses = self.spectral_losses(made, real)
            if adversarial:
                judged = self.judge(made)
                with torch.no_grad():
                    truth = self.judge(real)
                losses["adversarial"] = generator_loss(judged.scores)
                losses["features"] = (self.hparams["feature_weight"]
                                      * feature_matching_loss(truth.features, judged.features))
            loss = torch.stack(list(losses.values())).sum()
            step(self, generator_step, loss, self.hparams["clip"])
        logs.update({name: value.detach() for name, value in losses.items()})
        self.log_dict({f"train/{name}": value for name, value in logs.items()})
        self.log("train/loss", loss.detach(), prog_bar=True)
        if self.global_step % self.hparams["epoch_steps"] == 0:
            for schedule in self.lr_schedulers()[: 1 + adversarial]:  # type: ignore[index]
                schedule.step()

    def spectral_losses(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The weighted losses that need no discriminator. Computed in float32 under any precision."""
        with torch.autocast(made.device.type, enabled=False):
            made = made.float()
            losses = {"mel": self.hparams["mel_weight"] * mel_error(made, self.analysis(real), self.analysis)}
            if self.hparams["stft_weight"]:
                losses["stft"] = self.hparams["stft_weight"] * sum(multi_resolution_stft_distance(made, real))
        return losses

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        made, real = self.generator(batch["logmel"]).float(), batch["wave"]
        convergence, logarithm = multi_resolution_stft_distance(made, real)
        # Of what should sound, which a picture with drawings does not show.
        self.log_dict({"valid/mel_error": mel_error(made, self.analysis(real), self.analysis),
                       "valid/mcd": mel_cepstral_distortion(made, real, analysis=self.analysis),
                       "valid/stft_convergence": convergence, "valid/stft_log": logarithm},
                      batch_size=len(made))
        for name, measure, package in (("pesq", pesq, "pesq"), ("stoi", stoi, "pystoi")):
            if available(package):
                found = measure(made, real)
                found = found[~found.isnan()]  # a segment may be all silence
                if len(found):
                    self.log(f"valid/{name}", found.mean().to(self.device), batch_size=len(found))

    def configure_optimizers(self) -> tuple[list[torch.optim.AdamW], list[Any]]:
        settings = {"lr": self.hparams["lr"], "betas": tuple(self.hparams["betas"])}
        # The published order of the discriminators: an optimiser's state is stored by position.
        optimizers = [torch.optim.AdamW(self.generator.parameters(), **settings),
                      torch.optim.AdamW(chain(self.msd.parameters(), self.mpd.parameters()), **settings)]
        for optimizer, state in zip(optimizers, self._optimisers_before or (), strict=False):
            optimizer.load_state_dict(state)
        return optimizers, [torch.optim.lr_scheduler.ExponentialLR(optimizer, self.hparams["decay"])
                            for optimizer in optimizers]

    def export(self, folder: str | Path, batches: Any = None) -> None:
        """Write the generator to `vocoder/` of the folder, as `load_vocoder` takes it, in float16."""
        save_vocoder(self.generator, Path(folder) / "vocoder")

    def save_published(self, folder: str | Path) -> None:
        """Write config.json, g_<steps> and do_<steps> as the published HiFi-GAN code resumes from them.

        Call it while the module is attached to a trainer: the optimisers' states are in the second file.
        """
        if not isinstance(self.generator, HiFiGAN):
            raise UserError(f"{folder}: the published layout holds HiFi-GAN (expected architecture=hifigan)")
        steps = int(self.steps_before) + self.global_step
        states = [optimizer.state_dict() for optimizer in self.trainer.optimizers]
        save_published(self.generator, folder, steps)
        content = {"mpd": old_names(self.mpd.state_dict()), "msd": old_names(self.msd.state_dict()),
                   "optim_g": states[0], "optim_d": states[1], "steps": steps,
                   "epoch": steps // self.hparams["epoch_steps"]}
        with atomic_path(Path(folder) / f"do_{steps:08d}") as temporary:
            torch.save(content, temporary)

    def load_published(self, path: str | Path) -> None:
        """Go on from a published HiFi-GAN run: its generator and, if `do_<steps>` is there, all else.

        path is the run's folder (its newest checkpoint) or one g_<steps>. Call it before fitting. Raises
        UserError when the files do not fit this module's settings.
        """
        _, checkpoint = published_files(Path(path))
        theirs = load_published(checkpoint, weight_norm=True)
        if theirs.config != self.generator.config:
            raise UserError(f"{checkpoint}: made with {theirs.config} (expected {self.generator.config})")
        self.generator.load_state_dict(theirs.state_dict())
        rest = checkpoint.with_name(checkpoint.name.replace("g_", "do_", 1))
        if not checkpoint.name.startswith("g_") or not rest.exists():
            return
        content = torch_load(rest)
        lacking = [key for key in ("mpd", "msd", "optim_g", "optim_d", "steps") if key not in content]
        if lacking:
            raise UserError(f"{rest}: no key {', '.join(lacking)} (expected a HiFi-GAN training state)")
        load_strictly(self.mpd, new_names(content["mpd"]), rest)
        load_strictly(self.msd, new_names(content["msd"]), rest)
        self._optimisers_before = content["optim_g"], content["optim_d"]
        self.steps_before.fill_(content["steps"])


def averaged(checkpoint: str | Path) -> VocoderTraining:
    """The module of a Lightning checkpoint, its generator carrying the average if one was kept."""
    content = torch_load(Path(checkpoint))
    # What it started from may be gone, and its weights are in the checkpoint.
    module = VocoderTraining(**{**content["hyper_parameters"], "start": None})
    load_strictly(module, content["state_dict"], checkpoint)
    for name, state in content.get("callbacks", {}).items():
        if name.startswith(("GeneratorEMA", "EMA")) and state["shadow"]:
            parameters = dict(module.named_parameters())
            with torch.no_grad():
                for key, value in state["shadow"].items():
                    parameters[key].copy_(value)
    return module.eval()
