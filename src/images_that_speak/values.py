"""Keys that take one of a few values: checked by `validate`. Imports nothing."""

from __future__ import annotations

CHOICES: dict[str, tuple[str, ...]] = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "logger.wandb.mode": ("auto", "online", "offline", "disabled"),
    "precision.trainer": ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"),
    "precision.matmul": ("highest", "high", "medium"),
}
# Files of pictures, by their endings.
ENDINGS_READ = (".png", ".npy", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# What reader.picture may be, beside a section: readers of pictures with the settings that they are made with.
PICTURE_READERS = ("clip", "efficientnet")
