"""A training small enough for a test, run in a process of its own that can kill itself at a batch.

python tests/tiny_training.py KIND FOLDER STEPS [KILL_AT]
"""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch
from kill_at import KillAt
from torch import Tensor
from torch.utils.data import Dataset

from images_that_speak.data.datamodule import EpochBatches
from images_that_speak.networks.adapters import AlignedAdapter, SequenceAdapter
from images_that_speak.runs.metrics import MetricsJsonl
from images_that_speak.training.diffusion import LatentDiffusionTraining, pocket_unet
from images_that_speak.training.fit import fit
from images_that_speak.training.lora import LoraSettings


class RandomLatents(Dataset):
    """Latents and phonemes that depend on the index alone."""

    def __len__(self) -> int:
        return 20

    def __getitems__(self, keys: list[int]) -> dict[str, Tensor]:
        parts = [self[key % len(self)] for key in keys]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(index)
        phones = torch.from_numpy(rng.integers(3, 40, 6))
        return {"latent": torch.from_numpy(rng.normal(size=(4, 8, 16)).astype(np.float32)),
                "phones": phones, "phone_mask": torch.ones(6, dtype=torch.bool),
                "frame_phones": phones.repeat_interleave(22)[:128].contiguous(),
                "frame_position": torch.linspace(0, 0.99, 128), "voice": torch.tensor(1)}


def build(kind: str) -> LatentDiffusionTraining:
    L.seed_everything(7, verbose=False)
    unet = pocket_unet(channels=(16, 32), latent_channels=4, size=(8, 16), cross_attention_dim=32)
    if kind == "lora":
        return LatentDiffusionTraining(
            unet, SequenceAdapter(43, 2, width=32), lr=1e-3, warmup=2, conditioner_lr=5e-4,
            lora=LoraSettings(rank=2, dropout=0.1, unfreeze=("mid_block.resnets.0",)))
    adapter = AlignedAdapter(43, 2, channels=16, rows=8, columns=16, frames=128, width=32, hidden=32)
    return LatentDiffusionTraining(unet, adapter, lr=1e-3, warmup=2, silence_weight=0.5)


def train(kind: str, folder: Path, steps: int, killed_at: int | None = None) -> None:
    """Train in a process that may be killed; again goes on."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    callbacks = [] if killed_at is None else [KillAt(killed_at)]
    loader = StatefulDataLoader(RandomLatents(), batch_sampler=EpochBatches(20, 4, seed=3),
                                collate_fn=lambda batch: batch)
    fit(build(kind), loader, folder, max_steps=steps, seed=5, checkpoint_every=3, log_every=1,
        ema_decay=0.9, callbacks=[MetricsJsonl(folder / "metrics.jsonl", 1), *callbacks],
        accelerator="cpu", progress=False)
