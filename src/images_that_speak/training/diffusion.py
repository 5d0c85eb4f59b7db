"""Latent diffusion: the image branch, the speech branch and the LoRA fine-tune, by one module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from diffusers import UNet2DConditionModel
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from ..diffusion.predictor import NoiseSchedule, Predictor
from ..errors import UserError
from ..figures import declares
from ..networks.condition import Conditioner
from ..networks.squares import scene_cells
from ..ranges import check_ranges
from ..speech.phonemes import PAUSE, PHONE_IDS
from ..weights import finite
from .export import save_half
from .lora import LoraSettings, add_lora, export_lora, trainable_state
from .schedule import adamw, regrouped


def pocket_unet(channels: tuple[int, ...] = (96, 128, 160), latent_channels: int = 32,
                size: tuple[int, int] = (16, 64), cross_attention_dim: int = 128,
                layers: int = 1, pooled_dim: int | None = None) -> UNet2DConditionModel:
    """A small stock UNet: attention only at its lowest resolution, where it is nearly free.

    pooled_dim: width of a pooled prompt that goes into the time embedding, and so into every layer; None for
    conditions that have none. What is to be drawn is learnt late by attention alone.
    """
    depth = len(channels)
    down = ("DownBlock2D",) * (depth - 1) + ("CrossAttnDownBlock2D",)
    up = ("CrossAttnUpBlock2D",) + ("UpBlock2D",) * (depth - 1)
    unet = UNet2DConditionModel(
        sample_size=list(size), in_channels=latent_channels, out_channels=latent_channels,
        block_out_channels=tuple(channels), layers_per_block=layers, down_block_types=down,
        up_block_types=up, cross_attention_dim=cross_attention_dim,
        attention_head_dim=4, norm_num_groups=16,
        time_cond_proj_dim=pooled_dim)
    if pooled_dim:
        torch.nn.init.zeros_(unet.time_embedding.cond_proj.weight)
    return unet


def widened_unet(folder: str, latent_channels: int) -> UNet2DConditionModel:
    """A UNet of a folder, to train on in a latent space that has more channels after those it knows.

    What it says of the channels it knows stays the same; of the others it says 0 until it is trained.
    """
    unet = finite(UNet2DConditionModel.from_pretrained(folder), folder)
    known = unet.config.in_channels
    if known > latent_channels:
        raise UserError(f"model.unet.latent_channels={latent_channels}: {folder} has {known} "
                        "(expected at least as many)")
    if known == latent_channels:
        return unet
    wide = UNet2DConditionModel.from_config({**unet.config, "in_channels": latent_channels,
                                             "out_channels": latent_channels})
    state = unet.state_dict()
    for name, value in wide.state_dict().items():
        if value.shape != state[name].shape:
            larger = torch.zeros_like(value)
            larger[tuple(slice(size) for size in state[name].shape)] = state[name]
            state[name] = larger
    wide.load_state_dict(state)
    return wide


def column_weights(frame_phones: Tensor, columns: int, silence: float) -> Tensor:
    """(B, frames) phone ids → (B, 1, 1, columns) loss weights: 1 where a column or its neighbour sounds.

    Most of a picture of speech is silence, which is learnt at once: it need not take most of the gradient.
    """
    sounds = ((frame_phones != PHONE_IDS[PAUSE]) & (frame_phones != 0)).float()
    sounds = max_pool1d(sounds[:, None], frame_phones.shape[1] // columns)
    sounds = max_pool1d(sounds, 3, stride=1, padding=1)
    return (silence + (1 - silence) * sounds)[:, :, None]


def crop_to_speech(batch: dict[str, Tensor], columns: int) -> dict[str, Tensor]:
    """Windows of `columns` latent columns, each at a random place whose middle lies within the speech.

    "latent" (B, C, H, W) and what is said of frames (B, F) are cut alike. A picture of speech is
    mostly silence: half its width costs half the time and loses little of what is to be learnt.
    """
    width = batch["latent"].shape[-1]
    ratio = batch["frame_phones"].shape[1] // width
    phones = batch["frame_phones"].unflatten(1, (width, ratio))
    sounds = ((phones != PHONE_IDS[PAUSE]) & (phones != 0)).any(2).float()
    first, last = sounds.argmax(1), width - 1 - sounds.flip(1).argmax(1)
    middle = first + torch.rand(len(first), device=first.device) * (last - first + 1)
    start = (middle - columns / 2).long().clamp(0, width - columns)
    at = start[:, None] + torch.arange(columns, device=start.device)
    frames = (at[..., None] * ratio + torch.arange(ratio, device=at.device)).flatten(1)
    latent = batch["latent"].gather(3, at[:, None, None].expand(*batch["latent"].shape[:3], -1))
    return {**batch, "latent": latent, **{name: batch[name].gather(1, frames)
                                          for name in ("frame_phones", "frame_position", "frame_pitch")
                                          if name in batch}}


def scene_weights(scene: Tensor, rows: int, columns: int, ground: float) -> Tensor:
    """(B, N, 5) squares → (B, 1, rows, columns) loss weights: 1 in and beside a square, `ground`
    elsewhere."""
    return ground + (1 - ground) * scene_cells(scene, rows, columns, margin=1.5).float()


def crop_to_scene(batch: dict[str, Any], columns: int) -> dict[str, Any]:
    """Windows of `columns` latent columns, each with its middle near that of a copy picked at random."""
    height, width = batch["latent"].shape[-2:]
    scene = batch["scene"]
    there = (scene[..., 2] > 0).float() + 1e-6
    aside = (torch.rand(len(scene), 1, device=scene.device) - 0.5) * columns
    at = scene[..., 0].gather(1, there.multinomial(1)) * height + aside
    start = (at[:, 0] - columns / 2).long().clamp(0, width - columns)
    index = start[:, None] + torch.arange(columns, device=start.device)
    latent = batch["latent"].gather(3, index[:, None, None].expand(*batch["latent"].shape[:3], -1))
    shifted = scene.clone()
    shifted[..., 0] -= start[:, None] / height
    return {**batch, "latent": latent, "scene": shifted, "columns": columns}


def shard(unet: UNet2DConditionModel, conditioner: Conditioner, mesh: Any) -> None:
    """Keep of each block of the networks one part in every process of `mesh` (FSDP2)."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        fully_shard(block, mesh=mesh)
    fully_shard(unet, mesh=mesh)
    fully_shard(conditioner, mesh=mesh)
    # It is called by this name: what is sharded must be gathered there too.
    register_fsdp_forward_method(conditioner, "encode")


@declares("train/loss", "valid/loss")
class LatentDiffusionTraining(L.LightningModule):
    """Weighted MSE between what the UNet says and the v or ε of a noised latent.

    Timesteps are uniform. Weights follow min-SNR-γ (Hang et al. 2023): min(SNR, γ)/(SNR + 1) for v,
    min(SNR, γ)/SNR for ε. A share of the conditions is dropped, for classifier-free guidance.

    A batch holds "latent" (B, C, H, W), normalised, and what the conditioner reads. What a conditioner calls
    its `auxiliary_loss` is added in training.

    Args:
        unet, conditioner: the networks; both are trained, unless `lora` says what is.
        train_unet: False leaves the UNet as it is, and trains what of the conditioner is not frozen.
        prediction_type: "v_prediction" or "epsilon".
        min_snr_gamma: γ, or None for weight 1.
        condition_dropout: share of samples that lose their condition, in [0, 1].
        silence_weight: loss weight in [0, 1] of columns where no phoneme sounds (speech only).
        ground_weight: loss weight in [0, 1] of latent cells beside which nothing is drawn (scenes only).
        channel_weights: (C,) loss weights of the latent's channels; None weighs whitened channels alike, the
            faintest detail as much as the shape.
        crop_columns: train on windows of that many latent columns around the speech or a drawing (the
            aligned adapter and scenes only), until the share `crop_until` of `max_steps` is done; None
            trains on whole pictures.
        lora: trains low-rank updates, unfrozen patterns and the conditioner; None trains everything.
        conditioner_lr: learning rate of the conditioner; None uses `lr`.
        lr_decay: whether the learning rate falls to 0 along a cosine; else it stays.
        betas: of AdamW.
    """

    # Of a batch, beside what the conditioner reads: what weighs the loss and says where to crop.
    reads: ClassVar[tuple[str, ...]] = ("frame_phones", "scene")

    def __init__(self, unet: UNet2DConditionModel, conditioner: Conditioner, *,
                 prediction_type: str = "v_prediction", min_snr_gamma: float | None = 5.0,
                 condition_dropout: float = 0.1, silence_weight: float = 1.0,
                 ground_weight: float = 1.0, channel_weights: list[float] | None = None,
                 crop_columns: int | None = None, crop_until: float = 0.8, lr: float = 5e-4,
                 warmup: int = 200, max_steps: int | None = None, weight_decay: float = 0.01,
                 conditioner_lr: float | None = None, lr_decay: bool = True,
                 betas: tuple[float, float] = (0.9, 0.99), lora: LoraSettings | None = None,
                 train_unet: bool = True, schedule: NoiseSchedule | None = None):
        super().__init__()
        check_ranges({"model.condition_dropout": condition_dropout, "model.silence_weight": silence_weight,
                      "model.ground_weight": ground_weight, "model.crop_until": crop_until})
        # Numbers only: Lightning reads a checkpoint's hyperparameters with weights_only.
        self.save_hyperparameters(ignore=["unet", "conditioner", "lora", "schedule"])
        self.conditioner = conditioner
        self.lora = lora
        if not train_unet:
            unet.requires_grad_(False)
        if lora is not None:
            add_lora(unet, lora)
            # The checkpoint holds what is trained; the frozen base comes from its own files.
            self.strict_loading = False
        self.predictor = Predictor(unet, schedule or NoiseSchedule(), prediction_type)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.predictor.unet

    def configure_model(self) -> None:
        """Shard the networks over the processes of trainer=fsdp, block by block; nothing elsewhere."""
        if self.device_mesh is not None:
            shard(self.unet, self.conditioner, self.device_mesh["data_parallel"])

    def loss(self, batch: dict[str, Tensor], *, drop: bool) -> Tensor:
        """The mean over the batch; with `drop` a batch of training, else one that every process sees
        whole."""
        latent = batch["latent"].float()
        schedule, device = self.predictor.schedule, latent.device
        rank, world = (self.global_rank, self.trainer.world_size) if drop and self._trainer else (0, 1)

        def drawn(draw: Callable[[int], Tensor]) -> Tensor:
            # This process's rows of what one process with the batches of all would draw.
            return draw(len(latent) * world)[len(latent) * rank:][:len(latent)]

        noise = drawn(lambda n: torch.randn(n, *latent.shape[1:], device=device))
        t = drawn(lambda n: torch.randint(0, schedule.steps, (n,), device=device))
        squares = batch.get("scene")
        if drop:
            rows = drawn(lambda n: torch.rand(n, device=device)) < self.hparams["condition_dropout"]
            batch = self.conditioner.drop(batch, rows)
        answer = self.predictor.raw(schedule.add_noise(latent, noise, t), t,
                                    self.conditioner.encode(batch)).float()
        kind = self.predictor.prediction_type
        error = (answer - schedule.target(latent, noise, t, kind)) ** 2
        if self.hparams["channel_weights"] is not None:
            each = torch.tensor(self.hparams["channel_weights"], device=error.device)[:, None, None]
            error = error * each / each.mean()
        silence, ground = self.hparams["silence_weight"], self.hparams["ground_weight"]
        if silence < 1 and "frame_phones" in batch:
            weight = column_weights(batch["frame_phones"], latent.shape[-1], silence)
            error = error * weight / weight.mean()
        if ground < 1 and squares is not None:
            rows, columns = latent.shape[-2:]
            weight = scene_weights(squares, rows, columns, ground)
            error = error * weight / weight.mean()
        error = error.flatten(1).mean(1)
        gamma = self.hparams["min_snr_gamma"]
        if gamma is not None:
            snr = schedule.snr(t)
            error = error * snr.clamp(max=gamma) / (snr + 1 if kind == "v_prediction" else snr)
        return error.mean() + (self.conditioner.auxiliary_loss(batch) if drop else 0.0)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        columns, total = self.hparams["crop_columns"], self.hparams["max_steps"]
        if columns is not None and self.global_step < self.hparams["crop_until"] * (total or 0):
            batch = (crop_to_scene if "scene" in batch else crop_to_speech)(batch, columns)
        loss = self.loss(batch, drop=True)
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        # The same noise at every validation, or the figure would move by itself.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            loss = self.loss(batch, drop=False)
        self.log("valid/loss", loss, batch_size=len(batch["latent"]), prog_bar=True, sync_dist=True)

    def roles(self) -> dict[str, str]:
        """{name: role} of what is trained; each role has a learning rate of its own."""
        return {name: self._role(name) for name, parameter in self.named_parameters()
                if parameter.requires_grad}

    def _role(self, name: str) -> str:
        if name.startswith("conditioner."):
            return "conditioner"
        return "unfrozen" if self.lora and "lora_" not in name else "network"

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        lr = self.hparams["lr"]
        rates = {"network": lr, "conditioner": self.hparams["conditioner_lr"] or lr,
                 "unfrozen": self.lora.unfreeze_lr if self.lora else lr}
        groups: dict[str, list[nn.Parameter]] = {}
        for name, role in self.roles().items():
            groups.setdefault(role, []).append(self.get_parameter(name))
        return adamw([{"params": found, "lr": rates[role]} for role, found in groups.items()], lr=lr,
                     warmup=self.hparams["warmup"],
                     total=self.hparams["max_steps"] if self.hparams["lr_decay"] else None,
                     weight_decay=self.hparams["weight_decay"], betas=tuple(self.hparams["betas"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.lora is not None:
            checkpoint["state_dict"] = trainable_state(self, checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "optimizer_states" in checkpoint:
            roles = self.roles()
            shapes = [self.get_parameter(name).shape for name in roles]
            checkpoint["optimizer_states"] = [regrouped(state, list(roles.values()), shapes)
                                              for state in checkpoint["optimizer_states"]]
        # A sharded strategy has taken the weights out and loaded them by the time it asks.
        if self.lora is not None and "state_dict" in checkpoint:
            expected = set(trainable_state(self, self.state_dict()))
            found = set(checkpoint["state_dict"])
            # Non-strict loading would pass over a misspelt key without a word.
            if expected != found:
                raise ValueError(f"LoRA checkpoint: missing {sorted(expected - found)[:3]}, "
                                 f"unexpected {sorted(found - expected)[:3]}")

    def export(self, folder: Path, *_: Any) -> None:
        """Write what was trained: fp16 UNet and conditioner folders, or the LoRA in peft's layout."""
        if self.lora is not None:
            export_lora(self.unet, folder, self.lora)
        elif self.hparams["train_unet"]:
            save_half(self.unet, folder / "unet")
        if not any(p.requires_grad for p in self.conditioner.parameters()):
            return  # the one that it came from is as good
        self.conditioner.export(folder, save_half)
