"""A GPU of its own for every process that runs jobs of a sweep. Never imports torch."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

_held: list[Any] = []  # the lock lives as long as the process


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; empty where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


@cache
def claim(folder: str | None = None) -> str | None:
    """Take a GPU that no other process of this machine has claimed, and show this process no other.

    Once a process: CUDA cannot change its GPU later. Where there are more processes than GPUs, they are
    spread evenly. The lock is let go when the process ends, however it ends. To be called before torch is
    imported. Returns the GPU's name, or None where there is none.
    """
    gpus = visible()
    if not gpus:
        return None
    home = Path(folder or Path(tempfile.gettempdir()) / f"images-that-speak-{os.getuid()}")
    home.mkdir(exist_ok=True)
    for place in count():
        for gpu in gpus:
            lock = open(home / f"gpu-{gpu}-{place}.lock", "w", encoding="utf-8")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            _held.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return gpu
    return None
